"""The rungs of a plan's ladder against each other: the Dice that each can be expected to reach in a time.

A model of four numbers, fitted to measured trainings (benchmarks/results/budget.md). It need not be right about a
dataset's score, which also depends on how hard its structures are to tell apart; it must put the rungs in the right order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, sqrt

from autoseg.plan.model import LEAST_TIME_S, Configuration, Rung

TRAINING_SHARE = 0.85  # of a time budget; the rest is start-up and validation
STEPS, STEPS_POWER = 30.0, 0.66
"""Steps in which a network has learnt 63 % of what steps can teach of one structure, and how steeply the rest follows. Of four
structures it takes twice as many: the square root of their number."""
CASES, CASES_POWER = 22.0, 0.86  # the same for whole cases' worth of voxels that it has seen
CONTEXT = 0.03  # power of the share of a case that a patch shows: with less around it a structure is harder to tell apart
MONTH_S = 30 * 24 * 3600.0
MARGIN = 0.01  # of Dice: the finest rung that comes so near to the best is chosen


@dataclass(frozen=True)
class Choice:
    """The rung for a time, and what each configuration of the ladder is expected to reach."""

    rung: Rung
    expected: dict[str, float]
    steps: dict[str, float]


def expected_dice(rung: Rung, steps: float, n_structures: int) -> float:
    """Mean Dice that a network can be expected to reach on a rung in so many steps."""
    difficulty = sqrt(n_structures)
    practised = 1 - exp(-((steps / (difficulty * STEPS)) ** STEPS_POWER))
    seen = 1 - exp(-((steps * rung.cases / (difficulty * CASES)) ** CASES_POWER))
    return float(rung.ceiling * rung.covered**CONTEXT * practised * seen)


def choose_rung(
    rungs: Sequence[Rung],
    configurations: Mapping[str, Configuration],
    seconds: float | None,
    *,
    n_structures: int,
    slowdown: float = 1.0,
) -> Choice:
    """Chooses the rung for a limit of time: the finest that comes within `MARGIN` of the best.

    A rung whose footprint is unknown, since it was edited by hand, has no expectation and is left out unless all are.

    Args:
        configurations: by name; their footprints tell the seconds a step.
        seconds: of the whole training; None for as many steps as the plan says.
        slowdown: times the planned seconds that a step takes.
    """
    known = [r for r in rungs if configurations[r.configuration].footprint is not None] or rungs
    steps = {r.configuration: _steps(configurations[r.configuration], seconds, slowdown) for r in known}
    expected = {r.configuration: expected_dice(r, steps[r.configuration], n_structures) for r in known}
    best = max(expected.values())
    return Choice(next(r for r in known if expected[r.configuration] >= best - MARGIN), expected, steps)


def least_time(
    rungs: Sequence[Rung], configurations: Mapping[str, Configuration], is_enough: Callable[[Choice], bool], *, n_structures: int
) -> float | None:
    """The shortest limit of time (s, in steps of a quarter) whose choice is enough; None where a month is not."""
    seconds = LEAST_TIME_S
    while seconds < MONTH_S:
        if is_enough(choose_rung(rungs, configurations, seconds, n_structures=n_structures)):
            return seconds
        seconds *= 1.25
    return None


def edited_rung(rungs: Sequence[Rung], configurations: Mapping[str, Configuration], *, first: str) -> str | None:
    """A configuration of the ladder whose grid is not the planned one, since it was edited by hand; None for none.

    Args:
        first: is found before others.
    """
    edited = [r.configuration for r in rungs if configurations[r.configuration].space.spacing_mm != r.spacing_mm]
    return first if first in edited else next(iter(edited), None)


def _steps(configuration: Configuration, seconds: float | None, slowdown: float) -> float:
    """Steps that the time holds, no more than those of the plan; these where the time of a step is unknown."""
    training, footprint = configuration.training, configuration.footprint
    most = float(training.epochs * training.steps_per_epoch)
    if seconds is None or footprint is None or not footprint.step_s:
        return most
    return min(most, TRAINING_SHARE * seconds / (footprint.step_s * slowdown))
