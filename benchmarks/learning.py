"""What benchmarks share: a dataset that is planned and prepared in a folder of its own, a training, a word on the machine."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch

from autoseg.dataset import Dataset, images_in, open_dataset
from autoseg.evaluation.label_maps import StructureSummary, evaluate_label_maps
from autoseg.fingerprint.dataset import Fingerprint
from autoseg.inference.model import Model, load_model
from autoseg.inference.predict import predict
from autoseg.nets.device import choose_device
from autoseg.pipeline.fingerprint import fingerprint_dataset
from autoseg.pipeline.plan import PlanOptions, plan_dataset
from autoseg.pipeline.preprocess import preprocess_dataset
from autoseg.pipeline.training import training_job
from autoseg.pipeline.workspace import Workspace
from autoseg.plan import Configuration, Plan, save_plan
from autoseg.runs.budget import RunBudget, parse_duration
from autoseg.runs.job import TrainingJob
from autoseg.runs.options import TrainingOptions
from autoseg.runs.record import RunRecord
from autoseg.system.files import write_text
from autoseg.system.records import from_json
from autoseg.training.train import train

Change = Callable[[Plan], Plan]
MOST_EPOCHS = 10


class OfCell(Protocol):
    """A data class for what came of a training that `cell` describes, of values that JSON can hold."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def cell(self) -> Hashable: ...


T = TypeVar("T", bound=OfCell)


@dataclass(frozen=True)
class Limit:
    """How long a training takes, as it was typed: '--steps 300' or '--time 3m'."""

    text: str
    seconds: float | None = None
    steps: int | None = None

    @property
    def epochs(self) -> int:
        """That the steps are divided into without rest."""
        assert self.steps is not None
        return next(n for n in range(MOST_EPOCHS, 0, -1) if self.steps % n == 0)

    @property
    def budget(self) -> RunBudget:
        return RunBudget(self.seconds) if self.steps is None else RunBudget(epochs=self.epochs)

    def within(self, chosen: Configuration) -> Configuration:
        """With epochs that make up the steps."""
        if self.steps is None:
            return chosen
        training = replace(chosen.training, epochs=self.epochs, steps_per_epoch=self.steps // self.epochs, time_s=None)
        return replace(chosen, training=training)


@dataclass(frozen=True)
class Planned:
    """A dataset whose cases lie prepared in a workspace, as the plan says."""

    dataset: Dataset
    workspace: Workspace
    fingerprint: Fingerprint
    plan: Plan

    def job(self, fold: str) -> TrainingJob:
        return training_job(self.dataset, self.workspace, None, fold)


def plan_and_prepare(data: Path, root: Path, wish: PlanOptions, change: Change = lambda plan: plan) -> Planned:
    """Plans a dataset, changes the plan, prepares the cases of its first configuration. A case that fails ends the benchmark."""
    dataset, workspace = open_dataset(data), Workspace(root)
    report = fingerprint_dataset(dataset, workspace)
    report.raise_if_failed()
    fingerprint = report.fingerprint
    plan = change(plan_dataset(dataset, workspace, wish))
    save_plan(plan, workspace.dataset_folder(dataset.name) / "plan.json")
    preprocess_dataset(dataset, workspace).raise_if_failed()
    return Planned(dataset, workspace, fingerprint, plan)


def learn(job: TrainingJob, options: TrainingOptions) -> tuple[Model, RunRecord]:
    """Trains on the CPU."""
    device = choose_device("cpu")
    train(job, options, device)
    model, (record,) = load_model([job.run], device)
    return model, record


def learn_and_test(data: Path, root: Path, change: Change, epochs: int, seed: int) -> tuple[StructureSummary, ...]:
    """Trains on all cases of a dataset in nnU-Net's layout and scores each structure in its test cases."""
    planned = plan_and_prepare(data, root, PlanOptions("cpu"), change)
    model, _ = learn(planned.job("all"), TrainingOptions(RunBudget(epochs=epochs), seed=seed))
    predict(model, (), images_in(data / "imagesTs", len(planned.dataset.channels)), root / "masks").raise_if_failed()
    report = evaluate_label_maps(data / "labelsTs", root / "masks", planned.dataset.labels, out=root / "masks")
    report.raise_if_failed()
    return report.summary.structures


class Ledger(Generic[T]):
    """What came of trainings, by their `cell`, in a file of JSON lines; None for no file.

    Args:
        kind: the data class of an outcome.
    """

    def __init__(self, kind: type[T], path: Path | None) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path and path.is_file() else []
        outcomes = [from_json(kind, line, f"{path}, line {i}") for i, line in enumerate(lines, start=1)]
        self.outcomes = {outcome.cell: outcome for outcome in outcomes}

    def add(self, outcome: T) -> None:
        self.outcomes[outcome.cell] = outcome
        if self.path:
            write_text(self.path, "".join(json.dumps(asdict(o)) + "\n" for o in self.outcomes.values()))


def limit_of(time: str | None, steps: int | None) -> Limit:
    """The one of both that was given."""
    if time:
        return Limit(f"--time {time}", seconds=parse_duration(time))
    return Limit(f"--steps {steps}", steps=steps)


def data_folder(typed: str) -> Path:
    """A folder, or one of that name below $AUTOSEG_DATA, else ../shared/data."""
    root = Path(os.environ.get("AUTOSEG_DATA") or Path(__file__).parents[2] / "shared" / "data")
    return Path(typed).resolve() if Path(typed).is_dir() else root / typed


def machine(*packages: str, device: str = "cpu") -> str:
    """'x86_64, 2 cores, torch 2.13.0', or with the GPU's name in place of the cores."""
    here = f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores" if device == "cpu" else torch.cuda.get_device_name()
    return ", ".join((here, *(f"{package} {version(package)}" for package in packages)))
