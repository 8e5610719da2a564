"""Trainings on a dataset of landmarks that differ in one thing.

All are evaluated on the same validation cases, those of fold 0. Every landmark counts as present,
at the peak of its map, whatever the network says about its presence: thresholds would be chosen on
the validation cases. Learning takes all of the time, since the predictions are made afterwards.
Results are kept in a file of JSON lines, and their experiments not repeated.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from _report import machine, write_report
from _training import Ledger, Limit, Planned, data_folder, learn, limit_of, plan_and_prepare

from autoseg.dataset import Case, load_landmarks
from autoseg.evaluation.landmarks import ComparedLandmarks, evaluate_landmarks
from autoseg.imaging.geometry import Grid
from autoseg.imaging.landmarks import Landmarks, Unit
from autoseg.inference.model import Model
from autoseg.io import read_grid, read_image
from autoseg.pipeline.plan import PlanOptions
from autoseg.plan import Configuration
from autoseg.runs.options import TrainingOptions
from autoseg.runs.record import RunRecord
from autoseg.system.records import to_json

RADIUS_MM = 2.0  # Wang et al., IEEE TMI 2015
RADIUS_SHARE = 0.01  # of the longest edge of the median case: 2 mm say little of a mouse, and nothing where a pixel has no size


@dataclass(frozen=True, eq=False)
class ValidationCase:
    """A validation case with its landmarks."""

    case: Case
    grid: Grid
    reference: Landmarks


@dataclass(frozen=True)
class Experiment:
    """A training: `variant` is what is compared, `plan` a digest of what the training follows."""

    dataset: str
    variant: str
    n_cases: int
    seed: int
    limit: str
    threads: int
    plan: str


@dataclass(frozen=True)
class Result:
    """Scores of an experiment, in the study's unit; `errors` holds those of each landmark by case, null without a reference.

    Args:
        mre: mean over landmarks of the mean over cases.
        sdr: success detection rate: share of the references whose prediction is within each of the `radii`.
        identified: share within half the way to the next landmark, and nearer to no other.
        swapped: share of the predictions that are nearer to another landmark.
    """

    experiment: Experiment
    steps: int
    step_s: float
    unit: Unit
    radii: tuple[float, ...]
    mre: float | None
    median: float | None
    p95: float | None
    sdr: tuple[float | None, ...]
    swapped: float | None
    identified: float | None
    errors: dict[str, tuple[float | None, ...]]


@dataclass(frozen=True, eq=False)
class Study:
    """A dataset that is planned and prepared for trainings of one length.

    Args:
        name, configuration: the configuration that all experiments start from.
        training: the training cases of fold 0, shuffled once and for all; n of them are the first n.
        radii: of the success detection rates, in the unit.
    """

    planned: Planned
    name: str
    configuration: Configuration
    limit: Limit
    training: tuple[Case, ...]
    validation: tuple[ValidationCase, ...]
    unit: Unit
    radii: tuple[float, ...]

    @property
    def dataset(self) -> str:
        return self.planned.dataset.name

    def experiment(self, variant: str, configuration: Configuration, *, n_cases: int, seed: int) -> Experiment:
        """The training of a configuration on the first cases."""
        decisions = to_json(self.planned.plan.data) + to_json(configuration.decisions)
        digest = hashlib.sha256(decisions.encode()).hexdigest()[:12]
        return Experiment(self.dataset, variant, n_cases, seed, self.limit.text, torch.get_num_threads(), digest)

    def train(self, experiment: Experiment, configuration: Configuration, run: Path) -> tuple[Model, RunRecord]:
        """Trains into the folder `run`."""
        plan = replace(self.planned.plan, ladder=(), configurations={self.name: configuration}, default_configuration=self.name)
        training = self.training[: experiment.n_cases]
        job = replace(self.planned.job("0"), plan=plan, run=run, training=training, validation=())
        model, record = learn(job, TrainingOptions(self.limit.budget, seed=experiment.seed))
        return replace(model, thresholds=()), record

    def predict(self, model: Model) -> dict[str, Landmarks]:
        """Landmarks of the validation cases by name, mirrored as planned."""
        predictions = {}
        for validation_case in self.validation:
            case = validation_case.case
            landmarks = model.predict_image(read_image(case.images, self.planned.dataset.channels), True).landmarks
            assert landmarks is not None
            predictions[case.name] = landmarks
        return predictions

    def evaluate(self, experiment: Experiment, predictions: Mapping[str, Landmarks], record: RunRecord | None = None) -> Result:
        """Scores landmarks of the validation cases, by name, against their references.

        Args:
            record: None where nothing was trained.
        """
        pairs = (ComparedLandmarks(v.case.name, v.reference, predictions[v.case.name], v.grid) for v in self.validation)
        with tempfile.TemporaryDirectory() as folder:
            report = evaluate_landmarks(pairs, Path(folder), radii=self.radii, unit=self.unit)
        report.raise_if_failed()
        summary = report.summary
        return Result(
            experiment=experiment,
            steps=record.steps if record else 0,
            step_s=record.step_s if record else 0.0,
            unit=self.unit,
            radii=summary.radii,
            mre=summary.mean_macro.value,
            median=summary.errors.median,
            p95=summary.errors.p95,
            sdr=tuple(share.value for share in summary.detected),
            swapped=summary.swapped.value,
            identified=summary.identified_near.value,
            errors={case.case: tuple(p.error for p in case.points) for case in report.cases},
        )


def open_study(data: Path, root: Path, limit: Limit) -> Study:
    """Plans for the CPU and for the time, if that is limited."""
    planned = plan_and_prepare(data, root, PlanOptions("cpu", time_s=limit.seconds))
    job, dataset = planned.job("0"), planned.dataset
    validation = []
    for case in job.validation:
        grid = read_grid(case.images[0])
        validation.append(ValidationCase(case, grid, load_landmarks(case, dataset, grid)))
    longest = float(np.median([max(case.landmarks.extent) for case in planned.fingerprint.cases]))
    return Study(
        planned=planned,
        name=job.configuration,
        configuration=limit.within(planned.plan.configurations[job.configuration]),
        limit=limit,
        training=tuple(job.training[i] for i in np.random.default_rng(0).permutation(len(job.training))),
        validation=tuple(validation),
        unit=job.unit,
        radii=(round(RADIUS_SHARE * longest, 1), *([RADIUS_MM] if job.unit == "mm" else [])),
    )


def run_experiments(
    ledger: Ledger[Result], experiments: Sequence[Experiment], train: Callable[[Path], Iterable[Result]]
) -> list[Result]:
    """Takes the results of the experiments that share one training from the ledger where it has them all; prints each.

    Args:
        train: from an empty folder to the results of `experiments`.
    """
    if not all(experiment in ledger.results for experiment in experiments):
        with tempfile.TemporaryDirectory() as folder:
            for result in train(Path(folder) / "fold_0"):
                ledger.add(result)
    for e in experiments:
        scores = score_columns([ledger.results[e]])
        print(f"{e.dataset}, {e.n_cases} cases, {e.variant}, seed {e.seed}: {scores}", flush=True)
    return [ledger.results[experiment] for experiment in experiments]


SCORES = "seeds | MRE | min–max | median | P95 | SDR (radius) | swapped | identified | s/step | steps"
DASHES = " ---: |" * len(SCORES.split(" | "))


def score_columns(results: Sequence[Result]) -> str:
    """The columns of `SCORES`, means over seeds."""
    unit, steps = results[0].unit, [r.steps for r in results]
    mres = [r.mre for r in results if r.mre is not None]
    rates = [f"{_mean([r.sdr[i] for r in results], '.1%')} ({radius:g} {unit})" for i, radius in enumerate(results[0].radii)]
    columns = [
        str(len(results)),
        f"{_mean(mres, '.4g')} {unit}",
        f"{min(mres):.4g}–{max(mres):.4g}" if len(mres) > 1 else "--",
        _mean([r.median for r in results], ".4g"),
        _mean([r.p95 for r in results], ".4g"),
        ", ".join(rates),
        _mean([r.swapped for r in results], ".1%"),
        _mean([r.identified for r in results], ".1%"),
        _mean([r.step_s for r in results], ".3f") if any(steps) else "--",
        (f"{min(steps)}–{max(steps)}" if min(steps) < max(steps) else str(steps[0])) if any(steps) else "--",
    ]
    return " | ".join(columns)


def _mean(values: Sequence[float | None], form: str) -> str:
    defined = [v for v in values if v is not None]
    return f"{fmean(defined):{form}}" if defined else "--"


NOTES = (
    "MRE: mean over landmarks of the mean over cases, then over seeds; minimum and maximum over seeds beside it. SDR: share of "
    "the landmarks predicted within the radius. Median, P95 and shares are over all landmarks of all validation cases. Swapped: "
    "nearer to another landmark. Identified: nearer to no other, and within half the way to the next. Presence is not asked for: "
    "every landmark counts as present, at the peak of its map."
)


def parse_options(
    description: str, add_options: Callable[[argparse.ArgumentParser], None] = lambda parser: None
) -> argparse.Namespace:
    """The options that were typed; `limit` is the `Limit`, `folders` where the datasets are."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", help="Folders, or names below $AUTOSEG_DATA, else ../shared/data.")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int, help="Of a training.")
    length.add_argument("--time", help="Of a training, such as 3m; the plan is made for it, too.")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="Of torch.")
    parser.add_argument("--out", type=Path, help="Table; the results are kept beside it in a .jsonl.")
    add_options(parser)
    options = parser.parse_args()
    options.limit = limit_of(options.time, options.steps)
    options.folders = [data_folder(d) for d in options.datasets]
    options.ledger = Ledger(Result, options.out.with_suffix(".jsonl") if options.out else None)
    torch.set_num_threads(options.threads)
    return options


def write_study(title: str, script: str, options: argparse.Namespace, more: str, table: Sequence[str]) -> None:
    """Writes the report of a study.

    Args:
        more: further options that were typed.
    """
    names = " ".join(folder.name for folder in options.folders)
    command = f"{script} {names} {options.limit.text}{more} --seeds {options.seeds} --threads {options.threads}"
    write_report(title, command, machine("autoseg", "torch"), table, notes=NOTES, out=options.out)
