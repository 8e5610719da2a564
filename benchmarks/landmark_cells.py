"""Trainings on a dataset of landmarks that differ in one thing, all judged by the same cases: what such benchmarks share.

A cell is one training and what came of it: the errors of the validation cases of fold 0. Every landmark counts as found where its
map peaks, whatever the network says about its presence: thresholds would be chosen on the cases that judge. Learning takes all of
the time that is given, since the predictions are made afterwards. Cells are kept in a file of JSON lines, and not trained again.
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
from learning import Ledger, Limit, Planned, data_folder, learn, limit_of, machine, plan_and_prepare

from autoseg.dataset import Case, load_landmarks
from autoseg.evaluation.landmark_summary import Unit
from autoseg.evaluation.landmarks import ComparedLandmarks, evaluate_landmarks
from autoseg.imaging.geometry import Grid
from autoseg.imaging.landmarks import Landmarks
from autoseg.inference.model import Model
from autoseg.io import read_grid, read_image
from autoseg.pipeline.plan import PlanOptions
from autoseg.plan import Configuration
from autoseg.runs.options import TrainingOptions
from autoseg.runs.record import RunRecord
from autoseg.system.files import write_text
from autoseg.system.records import to_json

RADIUS_MM = 2.0  # Wang et al., IEEE TMI 2015
RADIUS_SHARE = 0.01  # of the longest edge of the median case: 2 mm say little of a mouse, and nothing where a pixel has no size
ALL = "all"


@dataclass(frozen=True, eq=False)
class Judged:
    """A validation case with its landmarks."""

    case: Case
    grid: Grid
    reference: Landmarks


@dataclass(frozen=True, eq=False)
class Study:
    """A dataset that is planned and prepared for trainings of one length.

    Args:
        name, chosen: the configuration that all cells start from.
        order: the training cases of fold 0, shuffled once and for all; n of them are the first n.
        radii: within which a landmark counts as found, in the unit.
    """

    planned: Planned
    name: str
    chosen: Configuration
    limit: Limit
    order: tuple[Case, ...]
    judged: tuple[Judged, ...]
    unit: Unit
    radii: tuple[float, ...]

    @property
    def dataset(self) -> str:
        return self.planned.dataset.name


@dataclass(frozen=True)
class Cell:
    """A training: `arm` is what is compared, `plan` a digest of what the training follows."""

    dataset: str
    arm: str
    n_cases: int
    seed: int
    limit: str
    threads: int
    plan: str


@dataclass(frozen=True)
class Outcome:
    """What came of it, in the study's unit; `errors` holds those of each landmark by case, null where there is no reference.

    Args:
        mre: mean over landmarks of the mean over cases.
        found: share of the references within each of the `radii`.
        identified: share within half the way to the next landmark, and nearer to no other.
        swapped: share of the predictions that are nearer to another landmark.
    """

    cell: Cell
    steps: int
    step_s: float
    unit: Unit
    radii: tuple[float, ...]
    mre: float | None
    median: float | None
    p95: float | None
    found: tuple[float | None, ...]
    swapped: float | None
    identified: float | None
    errors: dict[str, tuple[float | None, ...]]


def open_study(data: Path, root: Path, limit: Limit) -> Study:
    """Plans for the CPU and for the time, if that is limited."""
    planned = plan_and_prepare(data, root, PlanOptions("cpu", time_s=limit.seconds))
    job, dataset = planned.job("0"), planned.dataset
    judged = []
    for case in job.validation:
        grid = read_grid(case.images[0])
        judged.append(Judged(case, grid, load_landmarks(case, dataset, grid)))
    longest = float(np.median([max(case.landmarks.extent) for case in planned.fingerprint.cases]))
    return Study(
        planned=planned,
        name=job.configuration,
        chosen=limit.within(planned.plan.configurations[job.configuration]),
        limit=limit,
        order=tuple(job.training[i] for i in np.random.default_rng(0).permutation(len(job.training))),
        judged=tuple(judged),
        unit=job.unit,
        radii=(round(RADIUS_SHARE * longest, 1), *([RADIUS_MM] if job.unit == "mm" else [])),
    )


def cell_of(study: Study, arm: str, chosen: Configuration, n_cases: int, seed: int) -> Cell:
    follows = to_json(study.planned.plan.data) + to_json(chosen.decisions)
    digest = hashlib.sha256(follows.encode()).hexdigest()[:12]
    return Cell(study.dataset, arm, n_cases, seed, study.limit.text, torch.get_num_threads(), digest)


def train_cell(study: Study, chosen: Configuration, n_cases: int, seed: int, run: Path) -> tuple[Model, RunRecord]:
    """Trains `chosen` on the first cases of the study's order into the folder `run`."""
    plan = replace(study.planned.plan, configurations={study.name: chosen}, default_configuration=study.name)
    job = replace(study.planned.job("0"), plan=plan, run=run, training=study.order[:n_cases], validation=())
    model, record = learn(job, TrainingOptions(study.limit.budget, seed=seed))
    return replace(model, thresholds=()), record


def predict_judged(study: Study, model: Model) -> dict[str, Landmarks]:
    """Landmarks of the validation cases, mirrored as planned."""
    found = {}
    for j in study.judged:
        landmarks = model.predict_image(read_image(j.case.images, study.planned.dataset.channels), True).landmarks
        assert landmarks is not None
        found[j.case.name] = landmarks
    return found


def evaluate_cell(study: Study, cell: Cell, found: Mapping[str, Landmarks], steps: int = 0, step_s: float = 0.0) -> Outcome:
    """The landmarks found in the validation cases, by name, against their references."""
    pairs = (ComparedLandmarks(j.case.name, j.reference, found[j.case.name], j.grid) for j in study.judged)
    with tempfile.TemporaryDirectory() as folder:
        report = evaluate_landmarks(pairs, Path(folder), radii=study.radii, unit=study.unit)
    report.raise_if_failed()
    summary = report.summary
    return Outcome(
        cell=cell,
        steps=steps,
        step_s=step_s,
        unit=study.unit,
        radii=summary.radii,
        mre=summary.mean_macro.value,
        median=summary.errors.median,
        p95=summary.errors.p95,
        found=tuple(share.value for share in summary.detected),
        swapped=summary.swapped.value,
        identified=summary.identified_near.value,
        errors={case.case: tuple(p.error for p in case.points) for case in report.cases},
    )


def fill(ledger: Ledger[Outcome], cells: Sequence[Cell], train: Callable[[Path], Iterable[Outcome]]) -> list[Outcome]:
    """The outcomes of the cells that one training gives, from the ledger where it has them all; says each.

    Args:
        train: into an empty folder, to the outcomes of `cells`.
    """
    if not all(cell in ledger.outcomes for cell in cells):
        with tempfile.TemporaryDirectory() as folder:
            for outcome in train(Path(folder) / "fold_0"):
                ledger.add(outcome)
    outcomes = [ledger.outcomes[cell] for cell in cells]
    for o in outcomes:
        print(f"{o.cell.dataset}, {o.cell.n_cases} cases, {o.cell.arm}, seed {o.cell.seed}: {cells_of([o])}", flush=True)
    return outcomes


HEAD = "seeds | MRE | least–most | median | P95 | found within | swapped | identified | s/step | steps"
DASHES = " ---: |" * len(HEAD.split(" | "))


def cells_of(outcomes: Sequence[Outcome]) -> str:
    """The columns of `HEAD`, means over seeds."""
    unit, steps = outcomes[0].unit, [o.steps for o in outcomes]
    mres = [o.mre for o in outcomes if o.mre is not None]
    found = [f"{_mean([o.found[i] for o in outcomes], '.1%')} ({r:g} {unit})" for i, r in enumerate(outcomes[0].radii)]
    columns = [
        str(len(outcomes)),
        f"{_mean(mres, '.4g')} {unit}",
        f"{min(mres):.4g}–{max(mres):.4g}" if len(mres) > 1 else "--",
        _mean([o.median for o in outcomes], ".4g"),
        _mean([o.p95 for o in outcomes], ".4g"),
        ", ".join(found),
        _mean([o.swapped for o in outcomes], ".1%"),
        _mean([o.identified for o in outcomes], ".1%"),
        _mean([o.step_s for o in outcomes], ".3f") if any(steps) else "--",
        (f"{min(steps)}–{max(steps)}" if min(steps) < max(steps) else str(steps[0])) if any(steps) else "--",
    ]
    return " | ".join(columns)


def _mean(values: Sequence[float | None], form: str) -> str:
    known = [v for v in values if v is not None]
    return f"{fmean(known):{form}}" if known else "--"


NOTES = (
    "MRE: mean over landmarks of the mean over cases, then over seeds; least and most of the seeds beside it. Median, P95 and "
    "shares are over all landmarks of all validation cases. Swapped: nearer to another landmark. Identified: nearer to no other, "
    "and within half the way to the next. Presence is not asked for: every landmark counts as found where its map peaks."
)


def options_of(about: str, add: Callable[[argparse.ArgumentParser], None] = lambda parser: None) -> argparse.Namespace:
    """What was typed; `limit` is the `Limit`, `folders` where the datasets are."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", help="Folders, or names below $AUTOSEG_DATA, else ../shared/data.")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int, help="Of a training.")
    length.add_argument("--time", help="Of a training, such as 3m; the plan is made for it, too.")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="Of torch.")
    parser.add_argument("--out", type=Path, help="Table; the cells are kept beside it in a .jsonl.")
    add(parser)
    options = parser.parse_args()
    options.limit = limit_of(options.time, options.steps)
    options.folders = [data_folder(d) for d in options.datasets]
    options.ledger = Ledger(Outcome, options.out.with_suffix(".jsonl") if options.out else None)
    torch.set_num_threads(options.threads)
    return options


def write_table(script: str, title: str, options: argparse.Namespace, more: str, lines: Sequence[str]) -> None:
    """Prints the table, and writes it where that is wanted.

    Args:
        more: further options that were typed.
    """
    names = " ".join(folder.name for folder in options.folders)
    typed = f"{script} {names} {options.limit.text}{more} --seeds {options.seeds} --threads {options.threads}"
    about = f"`python benchmarks/{typed}` on {machine('autoseg', 'torch')}."
    text = "\n".join([f"# {title}", "", about, "", NOTES, "", *lines, ""])
    print(text)
    if options.out:
        write_text(options.out, text)
