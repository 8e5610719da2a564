"""The Python door: the same steps as the command line's, from the same functions.

    dataset = autoseg.open_dataset("Task04_Hippocampus")
    run = autoseg.train(dataset, time="10m")
    model = autoseg.load_model(run)
    model.predict("ct.nii.gz").save("mask.nii.gz")

Paths are strings or `os.PathLike`, times are seconds or words such as "10m". Reports hold the cases
that failed, and `raise_if_failed()` is there for scripts. Everything is written below `root`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np

from autoseg.dataset import Dataset
from autoseg.errors import UsageError
from autoseg.evaluation.folder import Evaluation, evaluate_folder
from autoseg.evaluation.metrics import NSD_TOLERANCE_MM
from autoseg.pipeline.datasets import open_dataset_folder, open_named_dataset
from autoseg.pipeline.evaluation import dataset_of_predictions, note_training_cases
from autoseg.pipeline.fingerprint import ensure_fingerprint
from autoseg.pipeline.plan import PlanOptions
from autoseg.pipeline.plan import plan_dataset as plan_in_workspace
from autoseg.pipeline.training import TrainReport, train_dataset
from autoseg.pipeline.workspace import Workspace
from autoseg.plan import Plan
from autoseg.runs.budget import RunBudget, parse_duration
from autoseg.runs.options import TrainingOptions
from autoseg.runs.record import model_folds
from autoseg.splits.folds import parse_folds
from autoseg.system.arguments import FilePath, as_path, check_type, check_workers
from autoseg.system.machine import announced_processes
from autoseg.system.progress import log, number_of, shown_progress
from autoseg.system.workers import FAILED, Failure, write_failures

if TYPE_CHECKING:  # torch takes seconds to load
    from autoseg.inference.predict import PredictReport
    from autoseg.inference.trained_model import TrainedModel

ROOT = "autoseg_work"
SETTINGS = """a dict such as {"training.loss": "dice"}, or None"""
DEVICES = "'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'"


def open_dataset(dataset: FilePath | None = None, *, root: FilePath = ROOT) -> Dataset:
    """Open a dataset in place; nothing is copied or renamed.

    Args:
        dataset: a path, a folder name, 'Task01' or '1', as after `-d`; None is the one planned last.
        root: folder for everything that autoseg writes.

    Raises:
        UsageError: nothing fits, or more than one folder does.
        DataError: the folder holds no dataset, or its dataset.json is malformed.
    """
    return open_named_dataset(None if dataset is None else os.fspath(as_path(dataset, "dataset")), _workspace(root))


def plan_dataset(
    dataset: Dataset | FilePath | None = None,
    *,
    time: str | float | None = None,
    memory_gb: float | None = None,
    device: str = "auto",
    family: str | None = None,
    recipe: str | None = None,
    settings: Mapping[str, Any] | None = None,
    replan: bool = False,
    root: FilePath = ROOT,
) -> Plan:
    """Plan a dataset, after taking its fingerprint if there is none; `print(plan)` shows every choice with its reason.

    Args:
        dataset: as `open_dataset` returns or takes it.
        time: time that a training will have, in seconds or as '10m'; None leaves it to the epochs of the recipe.
        memory_gb: memory that training may use; None is the GPU's, or 8 on a CPU.
        device: 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'.
        family: 'plain' or 'residual'; None is plain.
        recipe: 'adamw_constant', 'adamw_cosine' or 'sgd_poly'; None is adamw_constant.
        settings: values to set in the plan by their keys, such as {"training.loss": "dice"}, as `--set` does.
        replan: make a new plan although there is one; edits by hand are carried over.

    Raises:
        UsageError: an unknown device, family or recipe, or too little of something.
        DataError: no case can be used.
        PlanError: the existing plan is malformed.
    """
    check_type(memory_gb, "memory_gb", (int, float, NoneType), "a number of GB, or None")
    check_type(device, "device", str, DEVICES)
    check_type(settings, "settings", (Mapping, NoneType), SETTINGS)
    check_type(family, "family", (str, NoneType), "'plain', 'residual', or None")
    check_type(recipe, "recipe", (str, NoneType), "'adamw_constant', 'adamw_cosine', 'sgd_poly', or None")
    options = PlanOptions(device, None if memory_gb is None else float(memory_gb), family, _seconds(time), recipe)
    workspace = _workspace(root)
    opened = _dataset(dataset, workspace)
    failures = _measured(opened, workspace)
    if failures:
        log.warning("note: %s cannot be used, the first: %s", number_of(len(failures), "case"), failures[0].reason)
    return plan_in_workspace(opened, workspace, options, replan, settings=settings)


def train(
    dataset: Dataset | FilePath | None = None,
    *,
    time: str | float | None = None,
    epochs: int | None = None,
    fold: str | int = 0,
    configuration: str | None = None,
    settings: Mapping[str, Any] | None = None,
    restart: bool = False,
    seed: int = 0,
    device: str = "auto",
    workers: int = 1,
    root: FilePath = ROOT,
) -> TrainReport:
    """Train and validate a model; plan and prepare the dataset first, as far as that is missing.

    An interrupted training goes on where it was; a finished one is returned as it is. Progress is shown on stderr as on the
    command line, unless logging is configured, for the program or for the logger "autoseg".

    Args:
        dataset: as `open_dataset` returns or takes it.
        time: wall-clock budget of each fold, in seconds or as '10m'; a plan that is made now is made for it.
        epochs: budget in epochs instead. With neither, that of the interrupted run, else the plan's.
        fold: 0 to 4, 'all' to train on every case, or several, such as '0..4'.
        configuration: of the plan; None is its default.
        settings: values of the plan that are other ones for this run, by their keys, as `--set` does.
        restart: forget what was trained before.
        seed: of weights, sampling and augmentation.
        device: 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'.
        workers: threads that prepare batches; 0 for none.

    Returns:
        What `load_model` takes, the records of the folds, and the cases that could not be measured or prepared, which
        failed.csv lists, too.

    Raises:
        UsageError: time and epochs both; no such configuration or fold; several processes of torchrun.
        DataError: no case can be used, or training failed for good.
        ResourceError: not enough memory.
    """
    check_type(epochs, "epochs", (int, NoneType), "a number of epochs, or None")
    check_type(fold, "fold", (int, str), "0 to 4, 'all', or several, such as '0..4'")
    check_type(configuration, "configuration", (str, NoneType), "a name of the plan's, or None")
    check_type(device, "device", str, DEVICES)
    check_type(settings, "settings", (Mapping, NoneType), SETTINGS)
    check_type(seed, "seed", int, "a whole number")
    check_type(workers, "workers", int, "a number of threads")
    if announced_processes() > 1:
        raise UsageError(
            "several processes train together on the command line only",
            found=f"{announced_processes()} processes",
            fix="torchrun --nproc-per-node 2 -m autoseg train, or Python without torchrun",
        )
    seconds = _seconds(time)
    budget = None if seconds is None and epochs is None else RunBudget(seconds, None if epochs is None else int(epochs))
    folds = parse_folds(str(fold))
    options = TrainingOptions(budget=budget, seed=int(seed), threads=int(workers))
    with shown_progress():
        workspace = _workspace(root)
        opened = _dataset(dataset, workspace)
        folder = workspace.dataset_folder(opened.name)
        unusable: tuple[Failure, ...] = ()
        if not (folder / "plan.json").is_file():
            unusable = _measured(opened, workspace)
            plan_dataset(opened, time=seconds, device=device, root=root)
        report = train_dataset(
            opened,
            workspace,
            configuration=configuration,
            folds=folds,
            options=options,
            device=device,
            restart=restart,
            settings=settings,
        )
    assert report is not None, "one process alone is always the first"
    write_failures(folder / FAILED, report.failures, report.stages)
    return replace(report, failures=(*unusable, *report.failures))


def load_model(model: TrainReport | FilePath | None = None, *, device: str = "auto", root: FilePath = ROOT) -> TrainedModel:
    """Load a trained model with its postprocessing.

    Args:
        model: what `train` returned, the folder of a run, or the one above (all finished folds
            together, averaged); None is the model trained last.
        device: 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'.

    Raises:
        UsageError: no model there; an unknown device.
        DataError, PlanError: damaged weights, or those of another plan.
    """
    check_type(device, "device", str, DEVICES)
    if isinstance(model, TrainReport):
        folder = model.model
    else:
        folder = (
            _workspace(root).last_model() if model is None else as_path(model, "model", or_else="what autoseg.train returned")
        )
    runs = model_folds(folder)

    from autoseg.inference.trained_model import TrainedModel
    from autoseg.nets.device import choose_device

    return TrainedModel.load(runs, choose_device(device))


def predict(
    images: FilePath,
    out: FilePath,
    *,
    model: TrainReport | FilePath | None = None,
    mirror: bool = True,
    save_probabilities: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    root: FilePath = ROOT,
) -> PredictReport:
    """Predict every image of a folder into another one; see `TrainedModel.predict_folder` and `load_model`."""
    source, target = as_path(images, "images"), as_path(out, "out")
    loaded = load_model(model, device=device, root=root)
    return loaded.predict_folder(source, target, mirror=mirror, save_probabilities=save_probabilities, overwrite=overwrite)


def evaluate(
    predictions: FilePath,
    references: FilePath | None = None,
    *,
    dataset: Dataset | FilePath | None = None,
    images: FilePath | None = None,
    out: FilePath | None = None,
    tolerance_mm: float = NSD_TOLERANCE_MM,
    radii: Sequence[float] | None = None,
    workers: int | None = None,
    root: FilePath = ROOT,
) -> Evaluation:
    """Compare a folder of predictions with references: label maps, landmarks, or both.

    Args:
        references: folder of references; None is the dataset's own, as far as they were predicted.
        dataset: names the structures and landmarks; None is the one that the predictions' model has
            learnt from, as far as that is known, else the one planned last.
        images: folder of the images that landmarks belong to; None is the dataset's own.
        out: folder of the tables per case and the summary; None is that of the predictions.
        tolerance_mm: of the normalised surface Dice.
        radii: within which landmarks count as found: mm, or pixels in pictures.
        workers: threads; None is one per core.

    Returns:
        `scores.mean_dice`, `scores["liver"].dice.mean`, and the cases that could not be compared.

    Raises:
        UsageError: a folder is missing, or no case name is in both.
    """
    predicted = as_path(predictions, "predictions")
    check_type(tolerance_mm, "tolerance_mm", (int, float), "a number of mm")
    check_type(radii, "radii", (list, tuple, NoneType), "a list of numbers, or None")
    check_workers(workers)
    for radius in radii or ():
        check_type(radius, "radii", (int, float), "a list of numbers, or None")
    workspace = _workspace(root)
    has_references = references is not None
    opened = (
        dataset_of_predictions(predicted, workspace, has_references=has_references)
        if dataset is None
        else _dataset(dataset, workspace)
    )
    evaluation = evaluate_folder(
        opened,
        predicted,
        out=predicted if out is None else as_path(out, "out"),
        tolerance_mm=float(tolerance_mm),
        references=None if references is None else as_path(references, "references"),
        images=None if images is None else as_path(images, "images"),
        workers=workers,
        radii=None if radii is None else tuple(map(float, radii)),
    )
    note_training_cases(opened, workspace, predicted, evaluation.cases, has_references=has_references)
    return evaluation


def _workspace(root: FilePath) -> Workspace:
    return Workspace(as_path(root, "root"))


def _dataset(dataset: Dataset | FilePath | None, workspace: Workspace) -> Dataset:
    if isinstance(dataset, Dataset):
        return dataset
    if dataset is None:
        return open_dataset_folder(workspace.last_dataset(), workspace)
    return open_named_dataset(os.fspath(as_path(dataset, "dataset", or_else="what autoseg.open_dataset returned")), workspace)


def _measured(dataset: Dataset, workspace: Workspace) -> tuple[Failure, ...]:
    """Takes the fingerprint of a dataset that has none; the cases that cannot be used, which failed.csv lists, too."""
    failures = ensure_fingerprint(dataset, workspace)
    if failures:
        write_failures(workspace.dataset_folder(dataset.name) / FAILED, failures, ("fingerprint",))
    return failures


def _seconds(time: Any) -> float | None:
    time = time.item() if isinstance(time, np.number) else time
    if time is None or (isinstance(time, (int, float)) and not isinstance(time, bool) and math.isfinite(time)):
        return time
    if not isinstance(time, str):
        kind = time if isinstance(time, float) else type(time).__name__
        raise UsageError("time must be a number of seconds or words", found=kind, allowed="600, '10m', '1h30m'")
    return parse_duration(time)
