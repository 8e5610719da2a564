"""Evaluation on a workspace: it knows which cases a model has learnt from, whose scores say little."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from autoseg.dataset import Dataset
from autoseg.errors import AutosegError
from autoseg.pipeline.workspace import Workspace
from autoseg.runs.record import load_run, model_folds
from autoseg.splits.folds import load_folds
from autoseg.system.progress import log


def note_training_cases(dataset: Dataset, workspace: Workspace, predictions: Path, names: Collection[str]) -> None:
    """Tell how many of the evaluated cases of a dataset its model was trained on, as far as that is known.

    Predictions do not say which model they are of: it is taken to be the run whose folder they lie in, else the last model.

    Args:
        names: of the cases that were compared with references of the dataset.
    """
    run = predictions.resolve().parent
    try:
        runs = (run,) if (run / "run.json").is_file() else model_folds(workspace.last_model())
        records = [load_run(folder) for folder in runs]
        if any(record.dataset != dataset.name for record in records):
            return
        folds = load_folds(workspace.dataset_folder(dataset.name) / "splits.json")
        trained = {name for record in records for name in folds.training_cases(record.fold)}
    except AutosegError:  # no model here, or another split by now: then nothing is known
        return
    if n_trained := len(trained & set(names)):
        log.warning(
            "note: %s was trained on %d of these %d cases; if it has predicted them, their scores say nothing about new cases",
            ", ".join(str(folder) for folder in runs),
            n_trained,
            len(names),
        )
