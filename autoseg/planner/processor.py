"""What a processor allows: a graphics card is limited by its memory, a CPU by its time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor, inf, prod

from autoseg.errors import UsageError, nearest
from autoseg.planner.family import FAMILIES
from autoseg.planner.patch import MIN_BATCH, shrink_until
from autoseg.planner.sample import WIDTHS, Sample
from autoseg.planner.topology import Topology, without_last_halving

CPU_STEP_GMACS = 36.0
"""Work of one training step on a CPU, in 10⁹ multiply-accumulates, that the batch is lowered to, so that ten minutes
hold some two thousand steps. About 0.3 s on two cores with bf16 instructions, twice that without."""

CPU_PATCH_GMACS = 100.0
"""The same for the smallest batch, which the patch is shrunk to: about a second a step on two cores. A patch is given up
later than a batch, since context that the network never sees cannot be learnt in any number of steps."""

PADDING = 1.25
"""A patch that has this many times the voxels of one with a stage less is mostly padding."""


@dataclass(frozen=True)
class Budget:
    """What training may use, and the family of networks that it is to use.

    Raises:
        UsageError: unknown device or family, or no memory.
    """

    device: str
    memory_gb: float
    family: str = "plain"

    def __post_init__(self) -> None:
        if self.device not in WIDTHS:
            raise UsageError("no plan can be made for this device", found=self.device, allowed=", ".join(WIDTHS))
        if self.family not in FAMILIES:
            hint = nearest(self.family, FAMILIES)
            raise UsageError(f"no such family of networks{hint}", found=self.family, allowed=", ".join(FAMILIES))
        if not 0 < self.memory_gb < inf:
            raise UsageError("a plan needs some memory", found=f"{self.memory_gb} GB", allowed="more than 0 GB")

    def __str__(self) -> str:
        return f"{self.device} with {self.memory_gb:g} GB, {self.family} family"


@dataclass(frozen=True)
class CpuFit:
    """A patch and a batch for a CPU, and what was done to get there."""

    topology: Topology
    batch_size: int
    patch_reason: str
    batch_reason: str


def fit_cpu_step(
    topology: Topology,
    batch_size: int,
    sample: Sample,
    spacing: Sequence[float],
    median_shape: Sequence[float],
    fits: Callable[[Topology], bool],
) -> CpuFit:
    """Bounds the work of a training step: less padding first, then a smaller batch, to two, then a smaller patch.

    Args:
        fits: whether the memory is enough; thin patches may take more of it than larger ones.
    """
    tight = _less_padding(topology, median_shape)
    if tight and sample.step_gmacs(tight, MIN_BATCH) > CPU_PATCH_GMACS:
        tight = None  # it must be shrunk anyway, and smaller patches have the padding of their own stages
    start = tight or topology
    smaller, _ = shrink_until(
        lambda t: sample.step_gmacs(t, MIN_BATCH) <= CPU_PATCH_GMACS and fits(t), start, spacing, median_shape
    )
    batch = min(batch_size, max(MIN_BATCH, floor(CPU_STEP_GMACS / sample.step_gmacs(smaller, 1))))
    work = f"{sample.step_gmacs(smaller, batch):.3g}·10⁹ multiply-accumulates a step"
    batch_reason = f"{work} on a CPU"
    if batch < batch_size:
        batch_reason = f"lowered to {batch} on a CPU, so that a step takes a fraction of a second: {work}"
    patch_reasons = []
    if tight:
        share = prod(topology.patch_size) / prod(tight.patch_size)
        patch_reasons.append(f"one stage less on a CPU: a patch {share:.2g} times as large would be mostly padding")
    if smaller != start:
        patch_reasons.append(
            f"shrunk on a CPU towards {CPU_PATCH_GMACS:g}·10⁹ multiply-accumulates a step of {MIN_BATCH} samples"
        )
    return CpuFit(smaller, batch, "; ".join(patch_reasons), batch_reason)


def most_voxels(sample: Sample, budget: Budget, spacing: Sequence[float]) -> float:
    """More voxels than any patch has that is not the smallest possible one: so many that the finest stage alone is too much."""
    elements, gmacs = sample.finest_stage(spacing)
    held = sample.family.reference(len(spacing), budget.memory_gb).largest_sample / elements
    return min(held, CPU_PATCH_GMACS / gmacs) if budget.device == "cpu" else held


def _less_padding(topology: Topology, median_shape: Sequence[float]) -> Topology | None:
    """A topology with one stage less, if the patch covers the whole median case and a good part of it is padding."""
    if any(n < m for n, m in zip(topology.patch_size, median_shape)):
        return None
    fewer = without_last_halving(topology, median_shape)
    return fewer if fewer and prod(topology.patch_size) >= PADDING * prod(fewer.patch_size) else None
