"""Evaluation on a workspace: it knows which dataset predictions are of, and which cases their model has learnt from."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from autoseg.dataset import Dataset
from autoseg.dataset.predicted import makers, origins
from autoseg.errors import AutosegError, UsageError
from autoseg.pipeline.datasets import find_named_dataset, open_dataset_folder
from autoseg.pipeline.ownership import owner_folder
from autoseg.pipeline.workspace import Workspace
from autoseg.runs.record import load_run, model_folds
from autoseg.runs.training_cases import load_training_cases
from autoseg.splits.folds import load_folds
from autoseg.system.progress import log


def dataset_of_predictions(predictions: Path, workspace: Workspace, *, has_references: bool) -> Dataset:
    """Open the dataset that the model of these predictions has learnt from, else the one that was planned last.

    Args:
        has_references: whether the dataset only names the structures and landmarks.

    Raises:
        UsageError: the predictions are of models of several datasets, or of another one than was planned last that is not
            found; or nothing is known and nothing was planned.
    """
    last = workspace.last().dataset
    names = _dataset_names(predictions)
    if not names or names == [Path(last).name]:
        return open_dataset_folder(workspace.last_dataset(), workspace)
    fix = "-d (Python: dataset) names the dataset" + ("" if has_references else ", -r (references) a folder of references")
    if len(names) > 1:
        raise UsageError("the predictions are of models of several datasets", file=predictions, found=", ".join(names), fix=fix)
    [name] = names
    try:
        folder = owner_folder(name, workspace) or find_named_dataset(name, workspace)
    except UsageError as error:
        if has_references and last:
            log.warning("note: the predictions are of %s, which is not found; structures are taken to be those of %s", name, last)
            return open_dataset_folder(Path(last), workspace)
        raise UsageError(
            "the dataset that the model of these predictions has learnt from is not found",
            file=predictions,
            found=f"{name}; planned last: {last or 'nothing'}",
            fix=fix,
        ) from error
    if last:
        log.warning(
            "note: the predictions are of a model of %s and evaluated so, not as of %s, which was planned last",
            name,
            last,
        )
    return open_dataset_folder(folder, workspace)


def _dataset_names(predictions: Path) -> Sequence[str]:
    """Names of the datasets that the models of these predictions have learnt from, as far as that is known."""
    run = predictions.resolve().parent  # whose validation cases they may be
    if (run / "run.json").is_file():
        return [load_run(run).dataset]
    return sorted({maker.dataset for maker in makers(predictions)})


def note_training_cases(
    dataset: Dataset, workspace: Workspace, predictions: Path, names: Collection[str], *, has_references: bool
) -> None:
    """Tell how many of the evaluated cases their model was trained on, as far as that is known.

    Where predictions do not say which model they are of, it is taken to be the run whose folder they lie in, else the last one.

    Args:
        names: of the cases that were compared.
        has_references: whether they were compared with others than those of the dataset.
    """
    of_cases = {origin.case: origin for origin in origins(predictions).values() if origin.case in names}
    if of_cases:
        sizes = {maker: load_training_cases([Path(run) for run in maker.runs]) for maker in {o.maker for o in of_cases.values()}}
        learnt = [name for name, origin in of_cases.items() if sizes[origin.maker].get(name) == origin.image_sizes]
        if learnt:
            log.warning(
                "note: their model was trained on %d of these %d cases, whose scores say nothing about new ones",
                len(learnt),
                len(names),
            )
    elif not has_references:
        _note_cases_of_run(dataset, workspace, predictions, names)


def _note_cases_of_run(dataset: Dataset, workspace: Workspace, predictions: Path, names: Collection[str]) -> None:
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
