"""The configuration that a training without -c takes: the rung of the plan's ladder for its time, or the plan's default."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.plan import AUTO, Plan
from autoseg.plan.ladder import choose_rung, edited_rung, least_time
from autoseg.runs.abandoned import Abandoned, load_abandoned, save_abandoned
from autoseg.runs.options import TrainingOptions
from autoseg.runs.record import is_finished
from autoseg.system.progress import duration, log

USEFUL = 0.5  # of the Dice that the best grid can hold; a training that is expected to reach less is not worth its time


@dataclass(frozen=True)
class ChosenConfiguration:
    """Name of a configuration to train, and how it was found.

    Args:
        by_time: the ladder has chosen it for a limit of time, so that another rung may be trained instead.
        instead_of: why it is trained instead of one that was given up.
    """

    name: str
    by_time: bool = False
    instead_of: str | None = None


def choose_configuration(
    plan: Plan,
    runs: Path,
    configuration: str | None,
    options: TrainingOptions,
    *,
    folds: Sequence[str],
    restart: bool,
    device: str = "cpu",
) -> ChosenConfiguration:
    """Finds the configuration to train.

    One that the user names is taken as it is. Without a budget an interrupted run is continued, and with `extend` a
    finished one, whatever its rung. A grid that was edited by hand is kept, and so is the plan's default where no other
    limit of time is given than the plan's.

    Args:
        runs: folder of the dataset's runs.
        restart: whether what earlier runs have found about the pace counts for nothing.
        device: kind of device that is trained on.

    Raises:
        UsageError: no such configuration.
    """
    name, default = plan.configuration(configuration)
    if configuration not in (None, AUTO) or not plan.ladder:
        return ChosenConfiguration(name)
    budget = options.budget
    goes_on = (budget is None or options.extend) and not restart
    if goes_on and (begun := _begun(plan, runs, folds[0], finished=options.extend)):
        return ChosenConfiguration(begun)
    if edited := edited_rung(plan.ladder, plan.configurations, first=name):
        log.info("the grid of %s was edited by hand: it is trained, whatever the time", edited)
        return ChosenConfiguration(edited)
    planned_s = default.training.time_s
    seconds = planned_s if budget is None else budget.seconds
    if seconds is None:  # a number of epochs
        return ChosenConfiguration(name)
    if seconds != planned_s:
        choice = choose_rung(plan.ladder, plan.configurations, seconds, n_structures=len(plan.data.labels.names))
        name = choice.rung.configuration
        log.info("in %s %s promises most: it could come to Dice %.2f", duration(seconds), name, choice.expected[name])
    chosen = ChosenConfiguration(name, by_time=True)
    if not restart:
        chosen = _after_abandoned(plan, runs, name, seconds, device)
    _note_limits(plan, chosen.name, seconds)
    return chosen


def _begun(plan: Plan, runs: Path, fold: str, *, finished: bool) -> str | None:
    """The rung whose run of a fold was written to last, of those that are finished, or of those that are not; None for none."""
    last = {r.configuration: runs / r.configuration / f"fold_{fold}" / "last.safetensors" for r in plan.ladder}
    begun = {name: path for name, path in last.items() if path.is_file() and is_finished(path.parent) == finished}
    return max(begun, key=lambda name: begun[name].stat().st_mtime_ns, default=None)


def _note_limits(plan: Plan, name: str, seconds: float) -> None:
    """Tells what a limit of time is too short for: to learn anything, or for a grid that holds every structure."""
    n = len(plan.data.labels.names)
    rung = next(rung for rung in plan.ladder if rung.configuration == name)
    useful = USEFUL * max(r.ceiling for r in plan.ladder)
    expected = choose_rung(plan.ladder, plan.configurations, seconds, n_structures=n).expected.get(name, 1.0)
    if expected < useful:
        least = least_time(plan.ladder, plan.configurations, lambda c: max(c.expected.values()) >= useful, n_structures=n)
        advice = f"; {duration(least)} is the least that is useful" if least else ""
        log.warning("note: %s is too little for any grid: expect Dice %.2f at most%s", duration(seconds), expected, advice)
    if rung.lost:
        least = least_time(plan.ladder, plan.configurations, lambda c: not set(rung.lost) & set(c.rung.lost), n_structures=n)
        advice = f"; from about {duration(least)} on a grid that keeps them is chosen" if least else ""
        names = ", ".join(f"'{structure}'" for structure in rung.lost[:5])
        more = f" and {len(rung.lost) - 5} more" if len(rung.lost) > 5 else ""
        log.warning(
            "note: the grid of %s is too coarse for %s%s%s, or use -c %s", name, names, more, advice, plan.ladder[0].configuration
        )


def abandon(run: Path, abandoned: Abandoned) -> None:
    """Empties the folder of a run that was given up in its first steps, and leaves a note there."""
    shutil.rmtree(run, ignore_errors=True)
    save_abandoned(run, abandoned)


def _after_abandoned(plan: Plan, runs: Path, name: str, seconds: float, device: str) -> ChosenConfiguration:
    """The rung that earlier calls with the same limit of time ended up with, since steps took more or less time than planned.

    Notes of another plan or device count for nothing.
    """
    left = {rung.configuration for rung in plan.ladder} - {name}
    instead_of = None
    while (note := _note_of(runs / name, seconds, device)) and note.instead in left:
        left.remove(note.instead)
        instead_of = f"{name} was given up: {note.reason}"
        name = note.instead
    return ChosenConfiguration(name, by_time=True, instead_of=instead_of)


def _note_of(folder: Path, seconds: float, device: str) -> Abandoned | None:
    """The note that a training with this limit of time has left in a configuration's folder."""
    runs = (run for run in sorted(folder.glob("fold_*")) if run.suffix != ".previous")
    notes = (note for run in runs if (note := load_abandoned(run)) is not None)
    return next((note for note in notes if (note.seconds, note.device) == (seconds, device)), None)
