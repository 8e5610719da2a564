"""The patch and batch that the memory allows, by nnU-Net's presets for 8, 24 and 40 GB."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, prod

from autoseg.errors import ResourceError
from autoseg.planner.budget import Budget
from autoseg.planner.cost import NetworkCost
from autoseg.planner.patch import MIN_BATCH, Reference, batch_cap, batch_size, initial_patch, shrink_until, steady_batch_size
from autoseg.planner.topology import Topology
from autoseg.planner.wording import billions, number, size

FIXED_SHARE = 0.75
"""Largest share of the memory for weights and images. What nnU-Net counts are the maps between them,
which take most of the memory of its networks; this only comes into play with hundreds of channels
or with very little memory."""

LARGEST = {2: "2048²", 3: "256³"}


class TooLittleMemory(ResourceError):
    """The smallest patch takes `needed_gb`, which is more than there is."""

    def __init__(self, patch_size: Sequence[int], memory_gb: float, needed_gb: float) -> None:
        super().__init__(
            f"even a patch of {size(patch_size)} voxels does not fit the memory",
            found=f"{number(memory_gb)} GB",
            allowed=f"at least {needed_gb:.10g} GB",
            fix="fewer channels or structures, or more memory",
        )
        self.patch_size, self.needed_gb = patch_size, needed_gb


@dataclass(frozen=True)
class MemoryFit:
    """A patch and a batch for a memory size, and what they follow from.

    Args:
        start: the largest patch considered.
        reference: the calibration, scaled to the memory that was filled.
        samples_held: samples that the memory holds.
        cap: samples that are 5 % of the dataset's voxels.
    """

    topology: Topology
    batch_size: int
    start: Topology
    reference: Reference
    elements: int
    samples_held: int
    cap: int

    @property
    def voxels(self) -> int:
        """Voxels of a batch."""
        return self.batch_size * prod(self.topology.patch_size)

    @property
    def patch_reason(self) -> str:
        memory = (
            f"{billions(self.elements)} of the {billions(self.reference.largest_sample)} convolution outputs "
            f"that {number(self.reference.memory_gb)} GB hold for each of {self._number_of_samples}"
        )
        if self.start == self.topology:
            largest = LARGEST[len(self.topology.patch_size)]
            return f"all of it fits the memory, up to the largest patch considered ({largest} voxels): {memory}"
        voxels = prod(self.start.patch_size) / prod(self.topology.patch_size)
        return f"a patch {number(voxels)} times as large was shrunk along the axis that it covers most, until it took {memory}"

    @property
    def batch_reason(self) -> str:
        patch = size(self.topology.patch_size)
        limits = (
            f"memory holds {self.samples_held} patches of {patch}, 5 % of the dataset's voxels are {self.cap}, the least is 2"
        )
        if self.batch_size < max(min(self.samples_held, self.cap), 2):
            limits += ", and more would be more voxels than the next larger patch has"
        return f"{limits}: {self.batch_size}"

    @property
    def _number_of_samples(self) -> str:
        return "two samples" if self.reference.least_batch == 2 else f"{self.reference.least_batch} samples"


def fit_memory(
    cost: NetworkCost, budget: Budget, spacing: Sequence[float], median_shape: Sequence[float], dataset_voxels: float
) -> MemoryFit:
    """Finds the patch and batch for the budget's memory; for the memory of one of nnU-Net's presets they are nnU-Net's.

    More memory never means fewer voxels a batch: a plan for less memory is kept where it shows the network more.

    Args:
        spacing, median_shape: in nnU-Net's order of axes, `spacing.coarsest_first`.

    Raises:
        ResourceError: the smallest patch needs more memory than there is.
    """
    return max(_candidates(cost, budget, spacing, median_shape, dataset_voxels), key=lambda fit: fit.voxels)


def _candidates(
    cost: NetworkCost, budget: Budget, spacing: Sequence[float], median_shape: Sequence[float], dataset_voxels: float
) -> Iterator[MemoryFit]:
    """The fit for this memory, then nnU-Net's for each preset that fits into it, the largest first."""
    ndim = len(spacing)
    start = initial_patch(spacing, median_shape)
    memory = budget.memory_gb
    reference = cost.family.reference(ndim, memory)
    topology, larger = _shrink(cost, reference, start, spacing, median_shape)
    if not fits_memory(cost, reference, memory, topology):
        raise _too_little(cost, memory, topology)
    elements, patch = cost.elements(topology), topology.patch_size
    batch = min(steady_batch_size(reference, elements, patch, dataset_voxels, larger), _largest_batch(cost, memory, topology))
    cap = batch_cap(patch, dataset_voxels)
    yield MemoryFit(topology, batch, start, reference, elements, floor(reference.samples_held(elements)), cap)
    for preset in reversed(cost.family.presets(ndim)):
        if preset.memory_gb > memory:
            continue
        # a patch for less memory is no larger, so shrinking goes on from the one above
        topology, _ = _shrink(cost, preset, topology, spacing, median_shape)
        elements, patch = cost.elements(topology), topology.patch_size
        cap = batch_cap(patch, dataset_voxels)
        batch = min(batch_size(preset, elements, patch, dataset_voxels), _largest_batch(cost, preset.memory_gb, topology))
        yield MemoryFit(topology, batch, start, preset, elements, round(preset.samples_held(elements)), cap)


def _shrink(
    cost: NetworkCost,
    reference: Reference,
    start: Topology,
    spacing: Sequence[float],
    median_shape: Sequence[float],
) -> tuple[Topology, list[Topology]]:
    """The largest patch that fits the memory of a calibration, or the smallest possible one; and those tried before it."""
    memory_gb = reference.memory_gb
    return shrink_until(lambda t: fits_memory(cost, reference, memory_gb, t), start, spacing, median_shape)


def fits_memory(cost: NetworkCost, reference: Reference, memory_gb: float, topology: Topology) -> bool:
    """True where the smallest batch fits: by nnU-Net's measure, the weights by themselves, and all that training takes."""
    maps_fit = cost.elements(topology) <= reference.largest_sample
    weights_fit = cost.fixed_gb(topology) <= FIXED_SHARE * memory_gb
    return maps_fit and weights_fit and cost.training_gb(topology, MIN_BATCH) <= allowed_overrun(cost) * memory_gb


def _largest_batch(cost: NetworkCost, memory_gb: float, topology: Topology) -> int:
    """The largest batch for which the memory is enough, at least the smallest one.

    Matters with many classes: nnU-Net's measure leaves out what the loss takes.
    """
    without_samples = cost.training_gb(topology, 0)
    per_sample = cost.training_gb(topology, 1) - without_samples
    return max(MIN_BATCH, floor((allowed_overrun(cost) * memory_gb - without_samples) / per_sample))


def allowed_overrun(cost: NetworkCost) -> float:
    """The share of the memory that the smallest batch may take: more than 1 where nnU-Net's presets do (on a GPU)."""
    return cost.family.allowed_overrun if cost.device == "cuda" else 1.0


def _too_little(cost: NetworkCost, memory_gb: float, topology: Topology) -> TooLittleMemory:
    maps = cost.family.memory_for(len(topology.patch_size), cost.elements(topology))
    training = cost.training_gb(topology, MIN_BATCH) / allowed_overrun(cost)
    needed = max(maps, cost.fixed_gb(topology) / FIXED_SHARE, training)
    return TooLittleMemory(topology.patch_size, memory_gb, ceil(100 * needed) / 100)  # rounded up, so that it is enough
