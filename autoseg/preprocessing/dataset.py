"""Preprocessing of a dataset for one configuration: only cases that have changed are done again."""

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
    """Names of the cases that were preprocessed now, were up to date, or were deleted.

    Args:
        removed: prepared cases that the dataset no longer has.
    """

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
    """Preprocess the cases of a dataset that `folder` lacks or holds in an outdated form, and delete all others.

    Can be killed and started again at any time. One process at a time: others wait, and then find the
    cases that the first one has prepared.

    Args:
        configuration: its name in the plan.
        case_keys: digest of each case's files, by name. A case without one could not be read for the
            fingerprint and is left out.
        workers: threads, as in `CaseRun`.
        reader: may still hold cases that the fingerprint has read.

    Raises:
        UsageError: the plan has no such configuration.
        PlanError: the plan was made for other structures or landmarks than the dataset now names.
    """
    for what, same, names, planned in (
        ("structures", dataset.labels == plan.data.labels, dataset.labels.names, plan.data.labels.names),
        # only the names: the plan may correct which of them are pairs
        ("landmarks", dataset.landmarks.names == plan.data.landmarks.names, dataset.landmarks.names, plan.data.landmarks.names),
    ):
        if not same:
            raise PlanError(
                f"the plan was made for other {what}",
                found=", ".join(names),
                allowed=", ".join(planned),
                fix=f"autoseg plan --replan, or put the {'labels' if what == 'structures' else what} in dataset.json back",
            )
    with folder_lock(folder):
        source = reader or CaseReader(dataset)
        space = plan.configuration(configuration)[1].space
        cases = [c for c in dataset.cases if c.name in case_keys]
        keys = {c.name: prepared_key(case_keys[c.name], plan.data, space) for c in cases}
        stored = stored_names(folder)
        removed = [name for name in stored if name not in keys]
        for name in removed:
            remove_case(folder, name)
        reused = {name for name in stored if name in keys and stored_key(folder, name) == keys[name]}
        outdated = [c for c in cases if c.name not in reused]

        def work(case: Case) -> None:
            remove_case(folder, case.name)  # first, so that a case that fails now does not live on in its old form
            loaded = source.read(case)
            prepared = preprocess_case(loaded.image, loaded.label_map, plan.data, space, loaded.landmarks)
            write_case(folder, case.name, prepared, keys[case.name])

        run = CaseRun(work, outdated, f"preprocess {configuration}", workers=workers)
        done = [case.name for case, _ in run]
        return PreprocessReport(tuple(sorted(done)), tuple(sorted(reused)), tuple(removed), failures=run.failures)


def prepared_key(case_key: str, data: DataPlan, space: SpacePlan) -> str:
    """Digest of everything that a prepared case depends on: its files, the plan's data and space, this code's version."""
    parts = (str(PREPROCESSING_VERSION), case_key, to_json(data), to_json(space))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
