"""`autoseg preprocess` on a workspace: the cases on the plan's grid and, for a cascade, the first stage's predictions."""

from __future__ import annotations

from autoseg.dataset import Dataset
from autoseg.dataset.reading import CaseReader
from autoseg.errors import DataError
from autoseg.fingerprint.dataset import load_fingerprint
from autoseg.pipeline.cascade import cascade_of
from autoseg.pipeline.ownership import remember_owner
from autoseg.pipeline.workspace import Workspace
from autoseg.plan import load_plan
from autoseg.preprocessing.dataset import PreprocessReport, preprocess
from autoseg.preprocessing.store import stored_key
from autoseg.splits.folds import load_folds
from autoseg.system.progress import log
from autoseg.system.workers import Failure


def preprocess_dataset(
    dataset: Dataset,
    workspace: Workspace,
    *,
    configuration: str | None = None,
    workers: int | None = None,
    reader: CaseReader | None = None,
) -> PreprocessReport:
    """Bring the usable cases to the grid of a configuration; prepared cases that are up to date are kept.

    Raises:
        DataError: no usable case.
        UsageError: not planned yet, no such configuration; the workspace holds work on another dataset of this name.
    """
    folder = workspace.dataset_folder(dataset.name)
    plan = load_plan(folder / "plan.json")
    remember_owner(dataset.name, dataset.root, workspace)
    name, _ = plan.configuration(configuration)
    keys = {c.name: c.digest for c in load_fingerprint(folder / "fingerprint.json").cases}
    if not any(c.name in keys for c in dataset.cases):
        raise DataError("no usable case", file=folder / "fingerprint.json", fix="autoseg fingerprint -d DATASET")
    prepared = workspace.prepared(dataset.name, plan.prepared_as(name))
    return preprocess(dataset, plan, name, prepared, keys, workers=workers, reader=reader)


def preprocess_previous_stage(
    dataset: Dataset, workspace: Workspace, *, configuration: str | None = None, workers: int | None = None
) -> tuple[Failure, ...]:
    """For the second stage of a cascade, bring the first one's predictions to the grid of the prepared cases.

    Returns:
        The cases that failed.

    Raises:
        UsageError: a fold of the first stage is not trained yet.
    """
    folder = workspace.dataset_folder(dataset.name)
    plan = load_plan(folder / "plan.json")
    name, _ = plan.configuration(configuration)
    cascade = cascade_of(plan, name, workspace.runs(dataset.name), workspace.prepared(dataset.name))
    if cascade is None:
        return ()
    keys = {c.name: key for c in dataset.cases if (key := stored_key(cascade.prepared, c.name)) is not None}
    folds = load_folds(folder / "splits.json")
    if remark := cascade.remark(folds):
        log.warning("note: %s", remark)
    return cascade.prepare(dataset.cases, folds, keys, workers=workers)
