"""What benchmarks share: a dataset that is planned and prepared in a folder of its own, a training, a word on the machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from autoseg.batch import Failure
from autoseg.dataset import Dataset, images_in, open_dataset
from autoseg.device import choose_device
from autoseg.evaluate import StructureSummary, evaluate
from autoseg.fingerprint import Fingerprint
from autoseg.model import Model, load_model
from autoseg.plan import Plan, save_plan
from autoseg.planning import Wish, plan_dataset
from autoseg.predict import predict
from autoseg.runs import RunRecord
from autoseg.schedule import RunBudget
from autoseg.stages import fingerprint_dataset, prepare_dataset
from autoseg.task import TrainTask, train_task
from autoseg.train import train
from autoseg.workspace import Workspace

Change = Callable[[Plan], Plan]


@dataclass(frozen=True)
class Planned:
    """A dataset whose cases lie prepared in a workspace, as the plan says."""

    dataset: Dataset
    workspace: Workspace
    fingerprint: Fingerprint
    plan: Plan

    def task(self, fold: str, seed: int = 0) -> TrainTask:
        return train_task(self.dataset, self.workspace, None, fold, seed)


def plan_and_prepare(data: Path, root: Path, wish: Wish, change: Change = lambda plan: plan) -> Planned:
    """Plans a dataset, changes the plan, prepares the cases of its first configuration. A case that fails ends the benchmark."""
    dataset, workspace = open_dataset(data), Workspace(root)
    failures: list[Failure] = []
    fingerprint = fingerprint_dataset(dataset, workspace, failures, None)
    plan = change(plan_dataset(dataset, workspace, wish))
    save_plan(plan, workspace.about(dataset.name) / "plan.json")
    prepare_dataset(dataset, workspace, None, failures, None)
    assert not failures, failures
    return Planned(dataset, workspace, fingerprint, plan)


def learn(task: TrainTask, budget: RunBudget) -> tuple[Model, RunRecord]:
    """Trains on the CPU."""
    device = choose_device("cpu")
    train(task, budget, device)
    model, (record,) = load_model([task.run], device)
    return model, record


def learn_and_test(data: Path, root: Path, change: Change, epochs: int, seed: int) -> tuple[StructureSummary, ...]:
    """Trains on all cases of a dataset in nnU-Net's layout and scores each structure in its test cases."""
    planned = plan_and_prepare(data, root, Wish("cpu"), change)
    model, _ = learn(planned.task("all", seed), RunBudget(epochs=epochs))
    failures: list[Failure] = []
    predict(model, (), images_in(data / "imagesTs", len(planned.dataset.channels)), root / "masks", failures)
    report = evaluate(data / "labelsTs", root / "masks", planned.dataset.labels, root / "masks", 1.0, failures)
    assert not failures, failures
    return report.summary.structures


def machine(*packages: str) -> str:
    """'x86_64, 2 cores, torch 2.13.0'."""
    cores = f"{len(os.sched_getaffinity(0))} cores"
    return ", ".join((platform.machine(), cores, *(f"{package} {version(package)}" for package in packages)))
