"""The whole pipeline on a made-up dataset, in a few minutes on a laptop."""

from __future__ import annotations

from pathlib import Path

from autoseg.dataset import images_in, open_dataset
from autoseg.dataset.phantoms import LABELS, make_phantoms
from autoseg.evaluation.label_maps import Report, evaluate_label_maps, report_table
from autoseg.inference.model import load_model
from autoseg.inference.predict import predict
from autoseg.nets.device import choose_device
from autoseg.pipeline.fingerprint import fingerprint_dataset
from autoseg.pipeline.plan import PlanOptions, describe_plan, plan_dataset
from autoseg.pipeline.preprocess import preprocess_dataset
from autoseg.pipeline.training import set_runs_aside, training_job
from autoseg.pipeline.workspace import Workspace
from autoseg.runs.budget import RunBudget
from autoseg.runs.options import TrainingOptions
from autoseg.runs.record import common_rules, model_folds
from autoseg.system.progress import log
from autoseg.training.train import train

N_TRAINING, N_TEST = 20, 4


def run_demo(folder: Path, seconds: float, device: str) -> Report:
    """Makes phantoms below `folder`, then plans, trains for `seconds`, predicts the test cases and evaluates them.

    Says at each stage what it did and which command does the same on other data.
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
    task = training_job(dataset, workspace, None, "0")
    set_runs_aside([task.run])
    train(task, TrainingOptions(RunBudget(seconds=seconds)), choose_device(device))
    workspace.remember_model(task.run)

    masks = folder / "masks"
    log.info("\n4. autoseg predict -i %s -o %s", data / "imagesTs", masks)
    model, records = load_model(model_folds(task.run), choose_device(device))
    predict(model, common_rules(records), images_in(data / "imagesTs", 1), masks, overwrite=True).raise_if_failed()

    log.info("\n5. autoseg evaluate -p %s -r %s", masks, data / "labelsTs")
    report = evaluate_label_maps(data / "labelsTs", masks, LABELS, out=masks)
    report.raise_if_failed()
    log.info("%s", report_table(report))
    log.info("\nLook at: %s (every decision and its reason)", workspace.dataset_folder(dataset.name) / "plan.json")
    log.info("         %s (how training went)", task.run / "progress.png")
    log.info("         %s (label maps; open them in 3D Slicer or ITK-SNAP)", masks)
    return report
