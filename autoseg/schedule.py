"""Budget and learning rate: how far a run is, between 0 and 1, and what follows from it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from autoseg.errors import UsageError
from autoseg.plan import LEAST_TIME_S, TrainingPlan

EXTENSION_RATE = 1 / 3  # of the base learning rate, at its highest: less than at first, so that what was learnt is kept
EXTENSION_WARMUP = 0.05
EPOCH_SECONDS = (20.0, 480.0)  # a timed run reports and saves at least every 8 minutes, and not in every breath


@dataclass(frozen=True)
class RunBudget:
    """What a run may spend: either wall-clock seconds for everything including the final validation, or a number of epochs.

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
        """Share of the training that is behind us, 1 when it must stop; `reserve` seconds are kept for the validation."""
        if self.epochs is not None:
            return min(1.0, step / (self.epochs * steps_per_epoch))
        assert self.seconds is not None
        return min(1.0, elapsed / max(self.seconds - reserve, 1e-9))


def poly(t: float) -> float:
    """(1 - t)^0.9, as nnU-Net."""
    return (1 - t) ** 0.9


def cosine(t: float) -> float:
    """Half a cosine (Loshchilov & Hutter 2017)."""
    return 0.5 * (1 + math.cos(math.pi * t))


def one_cycle(t: float) -> float:
    """From 1/25 up to 1 in the first 30 %, then down to nearly 0, both along half a cosine (Smith & Topin 2018; the shares are
    those of torch's OneCycleLR)."""
    first, last, peak = 1 / 25, 1 / 25e4, 0.3
    if t < peak:
        return first + (1 - first) * cosine(1 - t / peak)
    return last + (1 - last) * cosine((t - peak) / (1 - peak))


def step(t: float) -> float:
    """A tenth after each third (He et al. 2016, ImageNet: 30 and 60 of 90 epochs)."""
    return 0.1 ** min(2, int(3 * t))


def multistep(t: float) -> float:
    """A tenth at 50 % and again at 75 % (He et al. 2016, CIFAR)."""
    return 0.1 ** ((t >= 0.5) + (t >= 0.75))


def exponential(t: float) -> float:
    """Evenly on a logarithmic scale, down to a hundredth."""
    return 0.01**t


def warm_restarts(t: float) -> float:
    """Three half cosines, each twice as long as the one before (Loshchilov & Hutter 2017, SGDR), the last ending with the run."""
    for begin, end in ((0, 1 / 7), (1 / 7, 3 / 7)):
        if t < end:
            return cosine((t - begin) / (end - begin))
    return cosine((t - 3 / 7) / (4 / 7))


def constant(t: float) -> float:
    return 1.0


SHAPES: dict[str, Callable[[float], float]] = {
    "cosine": cosine,
    "poly": poly,
    "one_cycle": one_cycle,
    "step": step,
    "multistep": multistep,
    "exponential": exponential,
    "warm_restarts": warm_restarts,
    "constant": constant,
}
"""Factor on the learning rate at a share t of the run, 0…1. All are functions of t alone, so that a run continues from its
progress and nothing else, and fits any budget; a rate that waits for a plateau could not be (there is --patience)."""


def learning_rate_factor(schedule: str, progress: float, warmup: float) -> float:
    """Factor on the base learning rate: a linear warm-up over the share `warmup` of the run, then as scheduled.

    `one_cycle` begins low by itself and takes no other warm-up.
    """
    if schedule == "one_cycle":
        return one_cycle(progress)
    if progress < warmup:
        return max(progress / warmup, 1e-3)
    return SHAPES[schedule]((progress - warmup) / (1 - warmup))


def extension_factor(schedule: str, progress: float) -> float:
    """`learning_rate_factor` while a finished run is extended: up linearly over the first 5 % to a third of the base learning
    rate, then as scheduled; a constant rate, which has not fallen, just goes on."""
    if schedule == "constant":
        return 1.0
    return EXTENSION_RATE * learning_rate_factor(schedule, progress, EXTENSION_WARMUP)


def planned_budget(training: TrainingPlan) -> RunBudget:
    """What a run may spend where nobody says otherwise."""
    return RunBudget(seconds=training.time_s) if training.time_s is not None else RunBudget(epochs=training.epochs)


def asked_budget(time: str | None, epochs: int | None, extend: str | None = None, restart: bool = False) -> RunBudget | None:
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
    """'90s', '10m', '2h', '1h30m' to seconds.

    Raises:
        UsageError: anything else.
    """
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s)?", text.strip().lower())
    if match and any(match.groups()):
        hours, minutes, seconds = (float(g or 0) for g in match.groups())
        return hours * 3600 + minutes * 60 + seconds
    raise UsageError("not a duration", found=text, allowed="such as 90s, 10m, 2h, 1h30m")
