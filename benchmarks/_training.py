"""Trainings of benchmarks: a dataset is planned and prepared in its own folder, trained on, scored."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

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


class HasExperiment(Protocol):
    """Data class for the result of a training that `experiment` describes, of values that JSON can hold."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def experiment(self) -> Hashable: ...


T = TypeVar("T", bound=HasExperiment)


@dataclass(frozen=True)
class Limit:
    """Length of a training, as it was typed: '--steps 300' or '--time 3m'."""

    text: str
    seconds: float | None = None
    steps: int | None = None

    @property
    def epochs(self) -> int:
        """Number of epochs that divides the steps without rest."""
        assert self.steps is not None
        return next(n for n in range(MOST_EPOCHS, 0, -1) if self.steps % n == 0)

    @property
    def budget(self) -> RunBudget:
        return RunBudget(self.seconds) if self.steps is None else RunBudget(epochs=self.epochs)

    def within(self, configuration: Configuration) -> Configuration:
        """The configuration with epochs that make up the steps."""
        if self.steps is None:
            return configuration
        steps_per_epoch = self.steps // self.epochs
        training = replace(configuration.training, epochs=self.epochs, steps_per_epoch=steps_per_epoch, time_s=None)
        return replace(configuration, training=training)


@dataclass(frozen=True)
class Planned:
    """A dataset whose cases lie prepared in a workspace, as the plan says."""

    dataset: Dataset
    workspace: Workspace
    fingerprint: Fingerprint
    plan: Plan

    def job(self, fold: str) -> TrainingJob:
        return training_job(self.dataset, self.workspace, None, fold)


def plan_and_prepare(data: Path, root: Path, options: PlanOptions, change: Change = lambda plan: plan) -> Planned:
    """Plans a dataset, changes the plan, prepares the cases of its first configuration. A case that fails ends the benchmark."""
    dataset, workspace = open_dataset(data), Workspace(root)
    report = fingerprint_dataset(dataset, workspace)
    report.raise_if_failed()
    fingerprint = report.fingerprint
    plan = change(plan_dataset(dataset, workspace, options))
    save_plan(plan, workspace.dataset_folder(dataset.name) / "plan.json")
    preprocess_dataset(dataset, workspace).raise_if_failed()
    return Planned(dataset, workspace, fingerprint, plan)


def learn(job: TrainingJob, options: TrainingOptions) -> tuple[Model, RunRecord]:
    """Trains on the CPU and loads the model of the run."""
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
    """Results of trainings by their `experiment`, in a file of JSON lines; None for no file.

    Args:
        kind: the data class of a result.
    """

    def __init__(self, kind: type[T], path: Path | None) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path and path.is_file() else []
        results = [from_json(kind, line, f"{path}, line {i}") for i, line in enumerate(lines, start=1)]
        self.results = {result.experiment: result for result in results}

    def add(self, result: T) -> None:
        self.results[result.experiment] = result
        if self.path:
            write_text(self.path, "".join(json.dumps(asdict(r)) + "\n" for r in self.results.values()))


def limit_of(time: str | None, steps: int | None) -> Limit:
    """The limit from the one option that was typed, the other being None."""
    if time:
        return Limit(f"--time {time}", seconds=parse_duration(time))
    return Limit(f"--steps {steps}", steps=steps)


def data_folder(typed: str) -> Path:
    """The folder of that path, or else of that name below $AUTOSEG_DATA (../shared/data where unset)."""
    root = Path(os.environ.get("AUTOSEG_DATA") or Path(__file__).parents[2] / "shared" / "data")
    return Path(typed).resolve() if Path(typed).is_dir() else root / typed
