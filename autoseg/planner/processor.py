"""What a processor allows: a graphics card is limited by its memory, a CPU by its time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor

from autoseg.errors import UsageError
from autoseg.footprint import multiply_accumulates
from autoseg.planner.patch import MIN_BATCH, shrink_until
from autoseg.planner.topology import Topology, plain_unet

CPU_STEP_GMACS = 75.0
"""Work of one training step on a CPU, in 10⁹ multiply-accumulates: a rule of thumb that keeps a step at a few seconds."""

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
    """Features of the finest stage, and the most that a stage may have in 2D and in 3D."""

    base: int
    most_2d: int
    most_3d: int

    def most(self, ndim: int) -> int:
        return self.most_2d if ndim == 2 else self.most_3d


WIDTHS = {"cuda": Width(32, 512, 320), "cpu": Width(16, 256, 160)}  # cuda: nnU-Net; cpu: a quarter of its work


@dataclass(frozen=True)
class Sample:
    """What goes into the network and comes out of it, and so what it costs."""

    n_channels: int
    n_classes: int
    width: Width

    def step_gmacs(self, topology: Topology, batch_size: int) -> float:
        """10⁹ multiply-accumulates of one training step."""
        network = plain_unet(topology, self.width.base, self.width.most(len(topology.patch_size)))
        forward = multiply_accumulates(network, topology.patch_size, self.n_channels, self.n_classes)
        return PASSES * batch_size * forward / 1e9


def fit_cpu_step(
    topology: Topology, batch_size: int, sample: Sample, spacing: Sequence[float], median_shape: Sequence[float]
) -> tuple[Topology, int, str]:
    """A patch and batch whose training step stays below `CPU_STEP_GMACS`: first the batch shrinks, to two, then the patch.

    Returns the reason too; it says so if even the smallest patch takes more.
    """
    before = sample.step_gmacs(topology, batch_size)
    limit = f"{CPU_STEP_GMACS:g}·10⁹ multiply-accumulates that a CPU is given for a step"
    if before <= CPU_STEP_GMACS:
        return topology, batch_size, f"a step takes {before:.3g} of the {limit}"
    batch = max(MIN_BATCH, min(batch_size, floor(CPU_STEP_GMACS / sample.step_gmacs(topology, 1))))
    topology = shrink_until(lambda t: sample.step_gmacs(t, batch) <= CPU_STEP_GMACS, topology, spacing, median_shape)
    after = sample.step_gmacs(topology, batch)
    verb = "reduced until" if after <= CPU_STEP_GMACS else "as small as the network allows, still"
    return topology, batch, f"{verb} a step takes {after:.3g} instead of {before:.3g} of the {limit}"
