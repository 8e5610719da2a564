"""The configuration that a training without -c takes: the rung of the plan's ladder for its time, or the plan's default."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.pipeline.workspace import Workspace
from autoseg.plan import AUTO, Plan
from autoseg.plan.ladder import choose_rung, edited_rung, least_time
from autoseg.runs.abandoned import Abandoned, load_abandoned, save_abandoned
from autoseg.system.progress import duration, log

USEFUL = 0.5  # of the Dice that the best grid can hold; a training that is expected to reach less is not worth its time


@dataclass(frozen=True)
class ChosenConfiguration:
    """Name of a configuration, and why it is trained instead of a finer one, if it is so."""

    name: str
    instead_of: str | None = None


def choose_configuration(
    plan: Plan, workspace: Workspace, configuration: str | None, seconds: float | None, *, folds: Sequence[str], restart: bool
) -> ChosenConfiguration:
    """Finds the configuration to train.

    One that the user names is taken as it is, and so is the plan's default where no time is given that differs from the
    plan's. A grid that was edited by hand is kept: the ladder is not consulted then.

    Args:
        seconds: limit of time that is asked for; None for the plan's own.
        restart: whether what earlier runs have found about the pace counts for nothing.

    Raises:
        UsageError: no such configuration.
    """
    name, _ = plan.configuration(configuration)
    if configuration not in (None, AUTO) or not plan.ladder:
        return ChosenConfiguration(name)
    if edited := edited_rung(plan.ladder, plan.configurations):
        log.info("the grid of %s was edited by hand: it is trained, whatever the time", edited)
        return ChosenConfiguration(edited)
    if seconds is not None:
        choice = choose_rung(plan.ladder, plan.configurations, seconds, n_structures=len(plan.data.labels.names))
        name = choice.rung.configuration
        log.info("in %s %s promises most: it could come to Dice %.2f", duration(seconds), name, choice.expected[name])
    limit = seconds if seconds is not None else plan.configurations[name].training.time_s
    chosen = ChosenConfiguration(name)
    if limit is not None and not restart:
        chosen = _after_abandoned(plan, workspace, name, limit, folds)
    _note_limits(plan, chosen.name, limit)
    return chosen


def _note_limits(plan: Plan, name: str, seconds: float | None) -> None:
    """Tells what a limit of time is too short for: to learn anything, or for a grid that holds every structure."""
    n = len(plan.data.labels.names)
    rung = next(rung for rung in plan.ladder if rung.configuration == name)
    if seconds is not None:
        useful = USEFUL * max(r.ceiling for r in plan.ladder)
        expected = choose_rung(plan.ladder, plan.configurations, seconds, n_structures=n).expected[name]
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


def _after_abandoned(plan: Plan, workspace: Workspace, name: str, seconds: float, folds: Sequence[str]) -> ChosenConfiguration:
    """The configuration that earlier calls with the same limit of time ended up with, since steps took too long."""
    instead_of = None
    while True:
        parent = workspace.run(plan.name, name, folds[0]).parent
        notes = [note for run in sorted(parent.glob("fold_*")) if (note := load_abandoned(run)) and note.seconds == seconds]
        if not notes or notes[0].instead not in plan.configurations:  # of another plan
            return ChosenConfiguration(name, instead_of)
        instead_of = f"{name} was given up: {notes[0].reason}"
        name = notes[0].instead
