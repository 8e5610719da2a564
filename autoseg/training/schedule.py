"""Learning rate schedules: factors on the base learning rate as functions of a run's progress, 0 to 1."""

from __future__ import annotations

import math
from collections.abc import Callable

EXTENSION_RATE = 1 / 3  # of the base learning rate, at its highest: lower than in the first training, so that it is not undone
EXTENSION_WARMUP = 0.05


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
