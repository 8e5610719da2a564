"""What a processor allows: a graphics card is limited by its memory, a CPU by its time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, prod

from autoseg.errors import UsageError
from autoseg.footprint import multiply_accumulates
from autoseg.plan import NetworkPlan
from autoseg.planner.patch import MIN_BATCH, shrink_until
from autoseg.planner.topology import Topology, plain_unet, without_last_halving

CPU_STEP_GMACS = 36.0
"""Work of one training step on a CPU, in 10⁹ multiply-accumulates, that the batch is lowered to, so that ten minutes
hold some two thousand steps. About 0.3 s on two cores with bf16 instructions, twice that without."""

CPU_PATCH_GMACS = 100.0
"""The same for the smallest batch, which the patch is shrunk to: about a second a step on two cores. A patch is given up
later than a batch, since context that the network never sees cannot be learnt in any number of steps."""

PADDING = 1.25
"""A patch that has this many times the voxels of one with a stage less is mostly padding."""

PASSES = 3  # a training step costs three forward passes: forward, and the gradients of inputs and of weights


@dataclass(frozen=True)
class Budget:
    """What training may use.

    Raises:
        UsageError: unknown device, or no memory.
    """

    device: str
    memory_gb: float

    def __post_init__(self) -> None:
        if self.device not in WIDTHS:
            raise UsageError("no plan can be made for this device", found=self.device, allowed=", ".join(WIDTHS))
        if not self.memory_gb > 0:
            raise UsageError("a plan needs some memory", found=f"{self.memory_gb} GB", allowed="more than 0 GB")


@dataclass(frozen=True)
class Width:
    """Features of the finest stage, the most that a stage may have in 2D and in 3D, and convolutions a decoder stage."""

    base: int
    most_2d: int
    most_3d: int
    decoder_blocks: int

    def most(self, ndim: int) -> int:
        return self.most_2d if ndim == 2 else self.most_3d


WIDTHS = {"cuda": Width(32, 512, 320, 2), "cpu": Width(16, 256, 160, 1)}  # cuda: nnU-Net; cpu: a sixth of its work


@dataclass(frozen=True)
class Sample:
    """What goes into the network and comes out of it, and so what it costs."""

    n_channels: int
    n_classes: int
    width: Width

    def network(self, topology: Topology) -> NetworkPlan:
        """The U-Net of this width."""
        most = self.width.most(len(topology.patch_size))
        return plain_unet(topology, self.width.base, most, self.width.decoder_blocks)

    def step_gmacs(self, topology: Topology, batch_size: int) -> float:
        """10⁹ multiply-accumulates of one training step."""
        forward = multiply_accumulates(self.network(topology), topology.patch_size, self.n_channels, self.n_classes)
        return PASSES * batch_size * forward / 1e9


@dataclass(frozen=True)
class CpuFit:
    """A patch and a batch for a CPU, and what was done to get there."""

    topology: Topology
    batch_size: int
    patch_reason: str
    batch_reason: str


def fit_cpu_step(
    topology: Topology, batch_size: int, sample: Sample, spacing: Sequence[float], median_shape: Sequence[float]
) -> CpuFit:
    """Bounds the work of a training step: less padding first, then a smaller batch, to two, then a smaller patch."""

    def fits(t: Topology) -> bool:
        return sample.step_gmacs(t, MIN_BATCH) <= CPU_PATCH_GMACS

    tight = _less_padding(topology, median_shape)
    tight = tight if tight and fits(tight) else None
    smaller = tight or shrink_until(fits, topology, spacing, median_shape)
    batch = min(batch_size, max(MIN_BATCH, floor(CPU_STEP_GMACS / sample.step_gmacs(smaller, 1))))
    work = f"{sample.step_gmacs(smaller, batch):.3g}·10⁹ multiply-accumulates a step"
    batch_reason = f"{work} on a CPU"
    if batch < batch_size:
        batch_reason = f"lowered to {batch} on a CPU, so that a step takes a fraction of a second: {work}"
    patch_reasons = []
    if tight:
        share = prod(topology.patch_size) / prod(tight.patch_size)
        patch_reasons.append(f"one stage less on a CPU: a patch {share:.2g} times as large would be mostly padding")
    elif smaller != topology:
        patch_reasons.append(
            f"shrunk on a CPU towards {CPU_PATCH_GMACS:g}·10⁹ multiply-accumulates a step of {MIN_BATCH} samples"
        )
    return CpuFit(smaller, batch, "; ".join(patch_reasons), batch_reason)


def _less_padding(topology: Topology, median_shape: Sequence[float]) -> Topology | None:
    """A topology with one stage less, if the patch covers the whole median case and a good part of it is padding."""
    if any(n < m for n, m in zip(topology.patch_size, median_shape)):
        return None
    fewer = without_last_halving(topology, median_shape)
    return fewer if fewer and prod(topology.patch_size) >= PADDING * prod(fewer.patch_size) else None
