"""The budget of a run in seconds or epochs, as asked for or as planned."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from autoseg.errors import UsageError
from autoseg.plan import LEAST_TIME_S, TrainingPlan

EPOCH_SECONDS = (20.0, 480.0)  # a timed run reports and saves at least every 8 minutes, and not in every breath


@dataclass(frozen=True)
class RunBudget:
    """Budget of a run: either wall-clock seconds for everything including the final validation, or a number of epochs.

    Raises:
        UsageError: both, neither, or nothing to spend.
    """

    seconds: float | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        if (self.seconds is None) == (self.epochs is None):
            raise UsageError("give either --time or --epochs", found=f"time {self.seconds}, epochs {self.epochs}")
        if self.seconds is not None and self.seconds < LEAST_TIME_S:
            raise UsageError("too little time to train", found=f"{self.seconds:g} s", allowed=f"{LEAST_TIME_S:g} s or more")
        if self.epochs is not None and self.epochs < 1:
            raise UsageError("too few epochs", found=self.epochs, allowed="1 or more")

    @property
    def n_epochs(self) -> int:
        """Number of reports; a timed run gets ten or more, none longer than eight minutes."""
        if self.epochs is not None:
            return self.epochs
        assert self.seconds is not None
        shortest, longest = EPOCH_SECONDS
        return max(1, min(10, int(self.seconds / shortest)), math.ceil(self.seconds / longest))

    def progress(self, step: int, steps_per_epoch: int, elapsed: float, reserve: float) -> float:
        """Share of the training that is done, 1 when it must stop; `reserve` seconds are kept for the validation."""
        if self.epochs is not None:
            return min(1.0, step / (self.epochs * steps_per_epoch))
        assert self.seconds is not None
        return min(1.0, elapsed / max(self.seconds - reserve, 1e-9))


def planned_budget(training: TrainingPlan) -> RunBudget:
    """Budget that the plan sets, for runs without --time and --epochs."""
    return RunBudget(seconds=training.time_s) if training.time_s is not None else RunBudget(epochs=training.epochs)


def budget_from_options(
    time: str | None, epochs: int | None, extend: str | None = None, restart: bool = False
) -> RunBudget | None:
    """The budget that the options --time, --epochs and --extend ask for; None where there is none of them.

    Raises:
        UsageError: options that contradict each other, or that are no budget.
    """
    if extend is None:
        nothing = time is None and epochs is None
        return None if nothing else RunBudget(None if time is None else parse_duration(time), epochs)
    others = {"--time": time, "--epochs": epochs, "--restart": restart or None}
    if given := [name for name, value in others.items() if value is not None]:
        raise UsageError(
            "--extend says how much is added to a finished run",
            found=f"--extend {extend} with {' and '.join(given)}",
            fix="leave out one of them",
        )
    return RunBudget(epochs=int(extend)) if extend.strip().isdecimal() else RunBudget(seconds=parse_duration(extend))


def parse_duration(text: str) -> float:
    """Convert '90s', '10m', '2h' or '1h30m' to seconds.

    Raises:
        UsageError: anything else.
    """
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s)?", text.strip().lower())
    if match and any(match.groups()):
        hours, minutes, seconds = (float(g or 0) for g in match.groups())
        return hours * 3600 + minutes * 60 + seconds
    raise UsageError("not a duration", found=text, allowed="such as 90s, 10m, 2h, 1h30m")


def check_deterministic(budget: RunBudget) -> None:
    """Check that a run with this budget can be repeated exactly.

    Raises:
        UsageError: the budget is time, so a clock decides how the run goes.
    """
    if budget.seconds is not None:
        raise UsageError(
            "a training that is limited by time cannot be repeated exactly",
            found=f"--deterministic with {budget.seconds:g} s",
            fix="--epochs instead of --time",
        )
