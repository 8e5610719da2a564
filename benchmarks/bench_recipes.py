"""Recipes of training: the Dice that each reaches in the same time, on the same cores.

    python benchmarks/bench_recipes.py DATASET... (--time 5m [10m 30m] | --steps N) [--recipes NAME...] [--seeds 1] [--threads 2]
        [--every 5] [--out table.md]

Every dataset is planned for a CPU and for the time; then fold 0 is trained once as planned, and
once for each recipe that differs from the plan as it says. The time includes the validation. Dice
is the mean over structures of the validation cases, predicted with averaged weights and clean-up
left out. GOMP_SPINCOUNT=1000 in the environment makes steps as fast as the command line's. With
--every 5 a fifth of the cases is trained on, so that what small data does to long trainings shows
five times as soon. Finished trainings are kept in a .jsonl beside the table, and not repeated.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

import torch
from _report import machine, write_report
from _training import Ledger, Limit, Planned, data_folder, learn, limit_of, plan_and_prepare

from autoseg.pipeline.plan import PlanOptions
from autoseg.plan import Configuration
from autoseg.planner.training import RECIPES
from autoseg.runs.options import TrainingOptions

PLANNED = "as planned"
Edit = Callable[[Configuration], Configuration]


def training(**changes: Any) -> Edit:
    return lambda c: replace(c, training=replace(c.training, **changes))


def recipe(name: str, **changes: Any) -> Edit:
    """Another of the planner's recipes, for the same time, loss and mirroring."""
    base, _ = RECIPES[name]()

    def edit(c: Configuration) -> Configuration:
        kept = ("time_s", "epochs", "steps_per_epoch", "mirror_axes", "batch_dice", "loss")
        planned: dict[str, Any] = {name: getattr(c.training, name) for name in kept}
        return replace(c, training=replace(base, **planned, **changes))

    return edit


def rate(factor: float) -> Edit:
    return lambda c: training(learning_rate=c.training.learning_rate * factor)(c)


def batch(factor: float) -> Edit:
    return lambda c: replace(c, patch=replace(c.patch, batch_size=max(1, round(c.patch.batch_size * factor))))


def mirrored(*axes: int) -> Edit:
    """In training and in predictions."""
    return lambda c: replace(training(mirror_axes=axes)(c), inference=replace(c.inference, mirror_axes=axes))


def width(factor: float) -> Edit:
    return lambda c: replace(c, network=replace(c.network, features=tuple(round(f * factor) for f in c.network.features)))


EDITS: dict[str, Edit] = {
    PLANNED: lambda c: c,
    "sgd_poly": recipe("sgd_poly"),
    "sgd_poly, averaged": recipe("sgd_poly", ema_decay=0.999),
    "poly": training(schedule="poly"),
    "one_cycle": training(schedule="one_cycle"),
    "cosine": training(schedule="cosine"),
    "adamw_cosine": recipe("adamw_cosine"),
    "decay / 30": training(weight_decay=1e-2),
    "decay / 3": training(weight_decay=0.1),
    "not averaged": training(ema_decay=0.0),
    "averaged over 100 steps": training(ema_decay=0.99),
    "rate / 3": rate(1 / 3),
    "rate x 2": rate(2),
    "batch / 2": batch(0.5),
    "batch x 2": batch(2),
    "width x 2": width(2),
    "width x 2, batch / 4": lambda c: width(2)(batch(0.25)(c)),
    "width x 2, batch / 2": lambda c: width(2)(batch(0.5)(c)),
    "rate x 2, decay / 30": lambda c: rate(2)(training(weight_decay=1e-2)(c)),
    "decay x 3": training(weight_decay=1.0),
    "cosine, decay x 3": training(schedule="cosine", weight_decay=1.0),
    "cosine, decay x 10": training(schedule="cosine", weight_decay=3.0),
    "x mirrored": mirrored(2),
    "all axes mirrored": mirrored(0, 1, 2),
    "not augmented": training(augmentation="none"),
}


@dataclass(frozen=True)
class Experiment:
    """A training with a recipe on every so many-th case."""

    dataset: str
    limit: str
    recipe: str
    seed: int
    threads: int
    every: int


@dataclass(frozen=True)
class Result:
    """Dice of an experiment; `seconds` are those of the whole training with its validation."""

    experiment: Experiment
    steps: int
    step_s: float
    seconds: float
    dice: float
    structures: dict[str, float | None]


def train_one(planned: Planned, experiment: Experiment, limit: Limit, run: Path) -> Result:
    name, configuration = planned.plan.configuration(None)
    edited = EDITS[experiment.recipe](limit.within(configuration))
    plan = replace(planned.plan, ladder=(), configurations={name: edited}, default_configuration=name)
    job = planned.job("0")
    job = replace(job, plan=plan, run=run, training=job.training[:: experiment.every])
    _, record = learn(job, TrainingOptions(limit.budget, seed=experiment.seed))
    if record.stopped or record.case_dice is None:
        raise SystemExit(f"no Dice of {experiment}: {record.stopped or 'no label maps'}")
    return Result(experiment, record.steps, record.step_s, record.seconds, record.case_dice, record.structure_dice)


def study(data: Path, limit: Limit, options: argparse.Namespace, ledger: Ledger[Result]) -> None:
    """Trains what the ledger lacks of a dataset; one seed of all recipes, then the next."""
    with tempfile.TemporaryDirectory() as folder:
        planned: Planned | None = None
        for seed in range(options.seeds):
            for name in options.recipes:
                experiment = Experiment(data.name, limit.text, name, seed, options.threads, options.every)
                if experiment not in ledger.results:
                    planned = planned or plan_and_prepare(data, Path(folder) / "work", PlanOptions("cpu", time_s=limit.seconds))
                    with tempfile.TemporaryDirectory(dir=folder) as run:
                        ledger.add(train_one(planned, experiment, limit, Path(run) / "fold_0"))
                o = ledger.results[experiment]
                print(f"{data.name}, {limit.text}, {name}, seed {seed}: {o.dice:.4f} after {o.steps} steps", flush=True)


def table(results: Sequence[Result]) -> list[str]:
    """A row for each dataset, time and recipe: the median of its seeds, and its difference to the plan's."""

    def of(o: Result) -> tuple[str, str, str]:
        return o.experiment.dataset, o.experiment.limit, o.experiment.recipe

    groups = {key: tuple(group) for key, group in groupby(sorted(results, key=of), key=of)}
    rows = []
    for key in dict.fromkeys(map(of, results)):
        dice, base = ([o.dice for o in groups.get(k, ())] for k in (key, (*key[:2], PLANNED)))
        gap = f"{median(dice) - median(base):+.4f}" if base and key[2] != PLANNED else ""
        spread = f"{min(dice):.4f}–{max(dice):.4f}" if len(dice) > 1 else ""
        steps = round(median(o.steps for o in groups[key]))
        rows.append((*key, str(len(dice)), f"{median(dice):.4f}", spread, gap, str(steps)))
    head = ("dataset", "budget", "recipe", "seeds", "Dice", "min–max", "difference to the plan's", "steps")
    return [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", help="Folders, or names below $AUTOSEG_DATA, else ../shared/data.")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int, help="Of a training.")
    length.add_argument("--time", nargs="+", help="Of a training, such as 5m; the plan is made for it, too.")
    parser.add_argument("--recipes", nargs="+", choices=EDITS, default=(PLANNED, "sgd_poly"), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2, help="Of torch.")
    parser.add_argument("--every", type=int, default=1, help="Train on each so many-th case only.")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ledger = Ledger(Result, options.out.with_suffix(".jsonl") if options.out else None)
    limits = [limit_of(time, None) for time in options.time] if options.time else [limit_of(None, options.steps)]
    for typed in options.datasets:
        for limit in limits:
            study(data_folder(typed), limit, options, ledger)
    results = [
        o for o in ledger.results.values() if (o.experiment.threads, o.experiment.every) == (options.threads, options.every)
    ]
    notes = f"{options.threads} threads"
    notes += "." if options.every == 1 else f"; trained on one of {options.every} cases."
    write_report(
        "Recipes of training", "bench_recipes.py", machine("autoseg", "torch"), table(results), notes=notes, out=options.out
    )


if __name__ == "__main__":
    main()
