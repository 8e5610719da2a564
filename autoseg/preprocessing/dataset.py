"""Prepares every case of a dataset for one configuration, and only those that have changed since."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autoseg.dataset import Case, Dataset
from autoseg.dataset.reading import CaseReader
from autoseg.errors import PlanError
from autoseg.plan import DataPlan, Plan, SpacePlan
from autoseg.preprocessing.case import preprocess_case
from autoseg.preprocessing.store import remove_case, stored_key, stored_names, write_case
from autoseg.system.lock import folder_lock
from autoseg.system.records import to_json
from autoseg.system.workers import CaseReport, CaseRun

PREPROCESSING_VERSION = 1  # raise it when prepared cases of the same plan come out differently


@dataclass(frozen=True)
class PreprocessReport(CaseReport):
    """Names of the cases that were prepared now, were up to date, and were deleted since the dataset lacks them."""

    done: tuple[str, ...]
    reused: tuple[str, ...]
    removed: tuple[str, ...]


def preprocess(
    dataset: Dataset,
    plan: Plan,
    configuration: str,
    folder: Path,
    case_keys: Mapping[str, str],
    *,
    workers: int | None = None,
    reader: CaseReader | None = None,
) -> PreprocessReport:
    """Brings `folder` in line with dataset and plan; can be killed and started again at any time.

    One process at a time: others wait, and find what the first one has done.

    Args:
        configuration: its name in the plan.
        case_keys: digest of each case's files, by name. A case without one could not be read before and is left out.
        workers: threads, as in `CaseRun`.
        reader: may still hold what the fingerprint has read.

    Raises:
        UsageError: the plan has no such configuration.
        PlanError: the plan was made for other structures or landmarks than the dataset now names.
    """
    for what, same, found, planned in (
        ("structures", dataset.labels == plan.data.labels, dataset.labels.names, plan.data.labels.names),
        # which of them are pairs the plan may know better
        ("landmarks", dataset.landmarks.names == plan.data.landmarks.names, dataset.landmarks.names, plan.data.landmarks.names),
    ):
        if not same:
            raise PlanError(
                f"the plan was made for other {what}",
                found=", ".join(found),
                allowed=", ".join(planned),
                fix=f"autoseg plan --replan, or put the {'labels' if what == 'structures' else what} in dataset.json back",
            )
    with folder_lock(folder):
        source = reader or CaseReader(dataset)
        space = plan.configuration(configuration)[1].space
        cases = [c for c in dataset.cases if c.name in case_keys]
        wanted = {c.name: prepared_key(case_keys[c.name], plan.data, space) for c in cases}
        present = stored_names(folder)
        removed = [name for name in present if name not in wanted]
        for name in removed:
            remove_case(folder, name)
        reused = {name for name in present if name in wanted and stored_key(folder, name) == wanted[name]}
        outdated = [c for c in cases if c.name not in reused]

        def work(case: Case) -> None:
            remove_case(folder, case.name)  # first, so that a case that fails now does not live on in its old form
            pair = source.read(case)
            prepared = preprocess_case(pair.image, pair.label_map, plan.data, space, pair.landmarks)
            write_case(folder, case.name, prepared, wanted[case.name])

        run = CaseRun(work, outdated, f"preprocess {configuration}", workers=workers)
        done = [case.name for case, _ in run]
        return PreprocessReport(tuple(sorted(done)), tuple(sorted(reused)), tuple(removed), failures=run.failures)


def prepared_key(case_key: str, data: DataPlan, space: SpacePlan) -> str:
    """Digest of all that a prepared case depends on: its files, the plan's data and space, and this code's version."""
    parts = (str(PREPROCESSING_VERSION), case_key, to_json(data), to_json(space))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
