"""The whole pipeline on a made-up dataset, in a few minutes on a laptop."""

from __future__ import annotations

from pathlib import Path

from autoseg.dataset import Dataset, open_dataset
from autoseg.dataset.phantoms import LABELS, make_phantoms
from autoseg.evaluation.label_maps import Report, evaluate_label_maps, report_table
from autoseg.evaluation.overlay import save_overlay
from autoseg.inference.trained_model import TrainedModel
from autoseg.io import read_image, read_label_map
from autoseg.nets.device import choose_device
from autoseg.pipeline.fingerprint import fingerprint_dataset
from autoseg.pipeline.plan import PlanOptions, describe_plan, plan_dataset
from autoseg.pipeline.preprocess import preprocess_dataset
from autoseg.pipeline.training import train_dataset
from autoseg.pipeline.workspace import Workspace
from autoseg.runs.budget import RunBudget
from autoseg.runs.options import TrainingOptions
from autoseg.system.progress import log

N_TRAINING, N_TEST = 20, 4


def run_demo(folder: Path, seconds: float, device: str) -> Report:
    """Make phantoms below `folder`, then plan, train for `seconds`, predict the test cases and evaluate them.

    Logs each step and the command that does the same on other data.
    """
    data = make_phantoms(folder / "Dataset001_Phantom", N_TRAINING, N_TEST)
    log.info("1. made %d phantoms to train on and %d to test on: %s", N_TRAINING, N_TEST, data)
    dataset, workspace = open_dataset(data), Workspace(folder / "autoseg_work")

    log.info("\n2. autoseg plan_and_preprocess -d %s", data)
    fingerprint_dataset(dataset, workspace).raise_if_failed()
    plan = plan_dataset(dataset, workspace, PlanOptions(device))
    log.info("%s", describe_plan(plan, workspace.dataset_folder(dataset.name) / "plan.json", dataset.unit))
    preprocess_dataset(dataset, workspace).raise_if_failed()

    log.info("\n3. autoseg train --time %ds", seconds)
    trained = train_dataset(dataset, workspace, options=TrainingOptions(RunBudget(seconds=seconds)), device=device, restart=True)
    assert trained is not None, "one process alone is always the first"

    masks = folder / "masks"
    log.info("\n4. autoseg predict -i %s -o %s", data / "imagesTs", masks)
    model = TrainedModel.load((trained.model,), choose_device(device))
    model.predict_folder(data / "imagesTs", masks, overwrite=True).raise_if_failed()

    log.info("\n5. autoseg evaluate -p %s -r %s", masks, data / "labelsTs")
    report = evaluate_label_maps(data / "labelsTs", masks, LABELS, out=masks)
    report.raise_if_failed()
    log.info("%s", report_table(report))
    picture = folder / "overlay.png"
    _draw(dataset, data, masks, picture)
    log.info("\nLook at: %s (a test case: prediction beside reference)", picture)
    log.info("         %s (every decision and its reason)", workspace.dataset_folder(dataset.name) / "plan.json")
    log.info("         %s (how training went)", trained.model / "progress.png")
    log.info("         %s (label maps; open them in 3D Slicer or ITK-SNAP)", masks)
    return report


def _draw(dataset: Dataset, data: Path, masks: Path, picture: Path) -> None:
    """Draws the first test case."""
    reference = min((data / "labelsTs").iterdir())
    image = read_image((data / "imagesTs" / reference.name.replace(".nii.gz", "_0000.nii.gz"),), dataset.channels)
    save_overlay(picture, image, read_label_map(masks / reference.name, LABELS), read_label_map(reference, LABELS))
