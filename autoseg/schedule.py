"""Budget and learning rate: how far a run is, between 0 and 1, and what follows from it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from autoseg.errors import UsageError
from autoseg.progress import duration

EXTENSION_RATE = 1 / 3  # of the base learning rate, at its highest: less than at first, so that what was learnt is kept
EXTENSION_WARMUP = 0.05
EPOCH_SECONDS = (20.0, 480.0)  # a timed run reports and saves at least every 8 minutes, and not in every breath


@dataclass(frozen=True)
class Budget:
    """Either wall-clock seconds for everything including the final validation, or a number of epochs.

    Raises:
        UsageError: both, neither, or nothing to spend.
    """

    seconds: float | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        if (self.seconds is None) == (self.epochs is None):
            raise UsageError("give either --time or --epochs", found=f"time {self.seconds}, epochs {self.epochs}")
        if self.seconds is not None and self.seconds < 20:
            raise UsageError("too little time to train", found=duration(self.seconds), allowed="20 s or more")
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


def learning_rate_factor(schedule: str, progress: float, warmup: float) -> float:
    """Factor on the base learning rate: a linear warm-up over the share `warmup` of the run, then down to 0 at its end.

    `cosine`: half a cosine (Loshchilov & Hutter 2017). `poly`: (1 - t)^0.9 as nnU-Net.
    """
    if progress < warmup:
        return max(progress / warmup, 1e-3)
    t = (progress - warmup) / (1 - warmup)
    return (1 - t) ** 0.9 if schedule == "poly" else 0.5 * (1 + math.cos(math.pi * t))


def extension_factor(schedule: str, progress: float) -> float:
    """`learning_rate_factor` while a finished run is extended: up linearly over the first 5 % to a third of the base learning
    rate, then as scheduled."""
    return EXTENSION_RATE * learning_rate_factor(schedule, progress, EXTENSION_WARMUP)


def asked_budget(time: str | None, epochs: int | None, extend: str | None = None, restart: bool = False) -> Budget | None:
    """The budget that the options --time, --epochs and --extend ask for; None where there is none of them.

    Raises:
        UsageError: options that contradict each other, or that are no budget.
    """
    if extend is None:
        return Budget(parse_duration(time) if time else None, epochs) if time or epochs is not None else None
    others = {"--time": time, "--epochs": epochs, "--restart": restart or None}
    if given := [name for name, value in others.items() if value is not None]:
        raise UsageError(
            "--extend says how much is added to a finished run",
            found=f"--extend {extend} with {' and '.join(given)}",
            fix="leave out one of them",
        )
    return Budget(epochs=int(extend)) if extend.strip().isdecimal() else Budget(seconds=parse_duration(extend))


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
