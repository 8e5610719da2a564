"""The budget: a graphics card is limited by its memory, a CPU by its speed, both by the time for a training."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import get_args

from autoseg.errors import UsageError, nearest
from autoseg.plan import DEFAULT_RECIPE, LEAST_TIME_S, Compute, Recipe
from autoseg.plan.ladder import TRAINING_SHARE
from autoseg.planner.family import FAMILIES
from autoseg.planner.wording import seconds

TYPICAL_GMACS_PER_S = {"cpu": 120.0, "cuda": 10_000.0}
"""10⁹ multiply-accumulates a second in training, where nothing better is known: two server cores with bf16 instructions
(benchmarks/results/step_bf16.md), and a mid-range GPU."""

CPU_STEP_S = 0.15
"""Seconds of a step that the batch is lowered to on a CPU, so that ten minutes hold some four thousand steps.

On small cases two samples a step did better than four in the same time, and four thousand steps better than two
(benchmarks/results/recipes.md)."""

CPU_PATCH_S = 0.83
"""Time of a step with the smallest batch, which the patch is shrunk to. A patch is given up later than a batch: context that
the network never sees cannot be learnt in any number of steps."""

STEPS_OF_A_BATCH = 4000  # that a time budget should hold: the batch is lowered for them
STEPS_OF_A_PATCH = 700  # the same for two samples: the patch is shrunk for them
STEPS_OF_A_WIDTH = 8000  # the same for two samples: with fewer a network twice as wide learns too little to be worth its time


@dataclass(frozen=True)
class Budget:
    """Device, memory and time of a training, and the family of networks and the recipe that were asked for.

    Args:
        time_s: wall-clock seconds of a training with its validation; None for no limit.
        gmacs_per_s: 10⁹ multiply-accumulates a second that the device does in training; None for a typical one.
        compute: the type that convolutions compute in on it; None for float32 on a CPU, bfloat16 on a GPU.
        recipe: how the network learns: `adamw_constant`; `adamw_cosine`, whose rate falls to zero; or
            nnU-Net's own `sgd_poly`.

    Raises:
        UsageError: unknown device, family or recipe, no memory, or less time than a training needs.
    """

    device: str
    memory_gb: float
    family: str = "plain"
    time_s: float | None = None
    gmacs_per_s: float | None = None
    compute: Compute | None = None
    recipe: str = DEFAULT_RECIPE

    def __post_init__(self) -> None:
        if self.device not in TYPICAL_GMACS_PER_S:
            allowed = ", ".join(TYPICAL_GMACS_PER_S)
            raise UsageError("no plan can be made for this device", found=self.device, allowed=allowed)
        if self.family not in FAMILIES:
            hint = nearest(self.family, FAMILIES)
            raise UsageError(f"no such family of networks{hint}", found=self.family, allowed=", ".join(FAMILIES))
        if self.recipe not in get_args(Recipe):
            hint = nearest(self.recipe, get_args(Recipe))
            raise UsageError(f"no such recipe{hint}", found=self.recipe, allowed=", ".join(get_args(Recipe)))
        if not 0 < self.memory_gb < inf:
            raise UsageError("the memory must be positive", found=f"{self.memory_gb} GB", allowed="more than 0 GB")
        if self.time_s is not None and not LEAST_TIME_S <= self.time_s < inf:
            raise UsageError("too little time to train", found=f"{self.time_s:g} s", allowed=f"{LEAST_TIME_S:g} s or more")
        if self.gmacs_per_s is not None and not 0 < self.gmacs_per_s < inf:
            raise UsageError("the speed must be positive", found=f"{self.gmacs_per_s} GMAC/s", allowed="more than 0")

    @property
    def speed(self) -> float:
        """10⁹ multiply-accumulates a second."""
        return self.gmacs_per_s or TYPICAL_GMACS_PER_S[self.device]

    @property
    def number_type(self) -> Compute:
        """The type that convolutions compute in."""
        return self.compute or ("float32" if self.device == "cpu" else "bfloat16")

    @property
    def batch_limit_s(self) -> float:
        """Seconds of a step that the batch is lowered to."""
        return self._limit(CPU_STEP_S, STEPS_OF_A_BATCH)

    @property
    def patch_limit_s(self) -> float:
        """Seconds of a step with two samples that the patch is shrunk to."""
        return self._limit(CPU_PATCH_S, STEPS_OF_A_PATCH)

    def steps(self, step_s: float) -> float:
        """Number of steps that the time holds; infinite without a limit."""
        return inf if self.time_s is None else TRAINING_SHARE * self.time_s / step_s

    def _limit(self, on_cpu: float, steps: int) -> float:
        device_limit = on_cpu if self.device == "cpu" else inf
        return device_limit if self.time_s is None else min(device_limit, TRAINING_SHARE * self.time_s / steps)

    def __str__(self) -> str:
        time = "" if self.time_s is None else f", {seconds(self.time_s)}"
        recipe = "" if self.recipe == DEFAULT_RECIPE else f", {self.recipe}"
        return f"{self.device} with {self.memory_gb:g} GB, {self.family} family{time}{recipe}"
