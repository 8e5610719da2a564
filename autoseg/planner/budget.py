"""What a processor and the time allow: a graphics card is limited by its memory, a CPU by its speed, both by a time budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import floor, inf, prod
from typing import get_args

from autoseg.errors import UsageError, nearest
from autoseg.plan import DEFAULT_RECIPE, LEAST_TIME_S, Compute, Recipe
from autoseg.planner.cost import NARROW, NetworkCost
from autoseg.planner.family import FAMILIES
from autoseg.planner.patch import MIN_BATCH, shrink_until
from autoseg.planner.topology import Topology, without_last_halving
from autoseg.planner.wording import billions, seconds

TYPICAL_GMACS_PER_S = {"cpu": 120.0, "cuda": 10_000.0}
"""10⁹ multiply-accumulates a second in training, where nothing better is known: two server cores with bf16 instructions
(benchmarks/results/step_bf16.md), and a mid-range GPU."""

CPU_STEP_S = 0.15
"""What the batch is lowered to on a CPU, so that ten minutes hold some four thousand steps: on small cases two samples a step did
better than four in the same time, and four thousand steps better than two (benchmarks/results/recipes.md)."""

CPU_PATCH_S = 0.83
"""The same for the smallest batch, which the patch is shrunk to. A patch is given up later than a batch, since context that
the network never sees cannot be learnt in any number of steps."""

TRAINING_SHARE = 0.85  # of a time budget; the rest is start-up and validation
STEPS_OF_A_BATCH = 4000  # that a time budget should hold: the batch is lowered for them
STEPS_OF_A_PATCH = 700  # the same for two samples: the patch is shrunk for them
STEPS_OF_A_WIDTH = 8000  # the same for two samples: with fewer a network twice as wide learns too little to be worth its time

PADDING = 1.25
"""A patch that has this many times the voxels of one with a stage less is mostly padding."""


@dataclass(frozen=True)
class Budget:
    """What training may use, and the family of networks that it is to use.

    Args:
        time_s: wall-clock seconds of a training with its validation; None for no limit.
        gmacs_per_s: 10⁹ multiply-accumulates a second that the device does in training; None for a typical one.
        compute: the type that convolutions compute in there; None for float32 on a CPU, bfloat16 on a GPU.
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
            raise UsageError("a plan needs some memory", found=f"{self.memory_gb} GB", allowed="more than 0 GB")
        if self.time_s is not None and not LEAST_TIME_S <= self.time_s < inf:
            raise UsageError("too little time to train", found=f"{self.time_s:g} s", allowed=f"{LEAST_TIME_S:g} s or more")
        if self.gmacs_per_s is not None and not 0 < self.gmacs_per_s < inf:
            raise UsageError("a device has some speed", found=f"{self.gmacs_per_s} GMAC/s", allowed="more than 0")

    @property
    def speed(self) -> float:
        """10⁹ multiply-accumulates a second."""
        return self.gmacs_per_s or TYPICAL_GMACS_PER_S[self.device]

    @property
    def number_type(self) -> Compute:
        """What convolutions compute in."""
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
        """How many steps the time holds; infinite without a limit."""
        return inf if self.time_s is None else TRAINING_SHARE * self.time_s / step_s

    def _limit(self, on_cpu: float, steps: int) -> float:
        own = on_cpu if self.device == "cpu" else inf
        return own if self.time_s is None else min(own, TRAINING_SHARE * self.time_s / steps)

    def __str__(self) -> str:
        time = "" if self.time_s is None else f", {seconds(self.time_s)}"
        recipe = "" if self.recipe == DEFAULT_RECIPE else f", {self.recipe}"
        return f"{self.device} with {self.memory_gb:g} GB, {self.family} family{time}{recipe}"


@dataclass(frozen=True)
class TimeFit:
    """A patch and a batch for the time that a step may take, and what was done to get there.

    `tight` tells that there is a stage less, for less padding.
    """

    topology: Topology
    batch_size: int
    tight: bool
    patch_reason: str
    batch_reason: str


def fit_time(
    topology: Topology,
    batch_size: int,
    cost: NetworkCost,
    budget: Budget,
    *,
    spacing: Sequence[float],
    median_shape: Sequence[float],
    fits: Callable[[Topology], bool],
) -> TimeFit:
    """Bounds the time of a training step: on a CPU less padding first, then a smaller batch, to two, then a smaller patch.

    Args:
        fits: whether the memory is enough; thin patches may take more of it than larger ones.
    """

    def step_s(topology: Topology, batch: int) -> float:
        return cost.step_gmacs(topology, batch) / budget.speed

    tight = _less_padding(topology, median_shape) if budget.device == "cpu" else None
    if tight and step_s(tight, MIN_BATCH) > budget.patch_limit_s:
        tight = None  # it must be shrunk anyway, and smaller patches have the padding of their own stages
    start = tight or topology
    smaller, _ = shrink_until(lambda t: step_s(t, MIN_BATCH) <= budget.patch_limit_s and fits(t), start, spacing, median_shape)
    batch = min(batch_size, max(MIN_BATCH, floor(budget.batch_limit_s / step_s(smaller, 1))))
    where = "on a CPU" if budget.device == "cpu" else "in the time there is"
    if budget.device == "cpu" and budget.time_s is not None:
        where += f" in {seconds(budget.time_s)}"
    work = f"{billions(1e9 * cost.step_gmacs(smaller, batch))} multiply-accumulates a step"
    batch_reason = f"{work} {where}"
    if batch < batch_size:
        batch_reason = f"lowered to {batch} {where}, so that a step takes about {step_s(smaller, batch):.2g} s: {work}"
    patch_reasons = []
    if tight:
        share = prod(topology.patch_size) / prod(tight.patch_size)
        patch_reasons.append(f"one stage less on a CPU: a patch {share:.2g} times as large would be mostly padding")
    if smaller != start:
        patch_reasons.append(f"shrunk {where} towards {budget.patch_limit_s:.2g} s a step of {MIN_BATCH} samples")
    return TimeFit(smaller, batch, tight is not None, "; ".join(patch_reasons), batch_reason)


def most_voxels(cost: NetworkCost, budget: Budget, spacing: Sequence[float]) -> float:
    """More voxels than any patch has that is not the smallest possible one: so many that the finest stage alone is too much."""
    narrow = budget.device == "cpu" or budget.time_s is not None  # then the network may come out narrow, which costs less
    elements, gmacs = (replace(cost, width=NARROW) if narrow else cost).finest_stage(spacing)
    held = cost.family.reference(len(spacing), budget.memory_gb).largest_sample / elements
    return min(held, budget.patch_limit_s * budget.speed / gmacs)


def _less_padding(topology: Topology, median_shape: Sequence[float]) -> Topology | None:
    """A topology with one stage less, if the patch covers the whole median case and a good part of it is padding."""
    if any(n < m for n, m in zip(topology.patch_size, median_shape)):
        return None
    fewer = without_last_halving(topology, median_shape)
    return fewer if fewer and prod(topology.patch_size) >= PADDING * prod(fewer.patch_size) else None
