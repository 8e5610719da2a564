"""The patches and batches that are tried, from large to small (nnU-Net); `memory` and `time_fit` say which one is taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import floor, prod

from autoseg.planner.topology import MIN_EDGE, Topology, at_least_two_stages, find_topology

START_VOXELS = {2: 2048**2, 3: 256**3}  # the patch that shrinking starts from
MIN_BATCH = 2
MAX_SHARE = 0.05  # of the dataset's voxels in one batch: more would be the same batch again and again


@dataclass(frozen=True)
class Reference:
    """A calibration of nnU-Net: a batch of `batch_size` samples of `elements` convolution outputs each takes `memory_gb`.

    Args:
        least_batch: samples that the memory must hold; this limits the patch.
    """

    memory_gb: float
    elements: float
    batch_size: int
    least_batch: int

    def scaled(self, memory_gb: float) -> Reference:
        """The calibration for another memory, in proportion."""
        return replace(self, memory_gb=memory_gb, elements=self.elements * memory_gb / self.memory_gb)

    @property
    def largest_sample(self) -> float:
        """Convolution outputs that one sample may have."""
        return self.elements * self.batch_size / self.least_batch

    def samples_held(self, elements: int) -> float:
        """Number of samples of `elements` convolution outputs that the memory holds."""
        return self.elements / elements * self.batch_size


def initial_patch(spacing: Sequence[float], median_shape: Sequence[float]) -> Topology:
    """The largest patch considered: as long in mm along every axis, but not larger than the median case."""
    ndim = len(spacing)
    edge_mm = (START_VOXELS[ndim] * prod(spacing)) ** (1 / ndim)
    size = [min(float(round(edge_mm / s)), n) for s, n in zip(spacing, median_shape)]
    return find_topology(spacing, at_least_two_stages(spacing, size))


def shrink_until(
    fits: Callable[[Topology], bool], topology: Topology, spacing: Sequence[float], median_shape: Sequence[float]
) -> tuple[Topology, list[Topology]]:
    """The first of ever smaller patches that fits, or the smallest possible one if none does; and those tried before it."""
    larger: list[Topology] = []
    while not fits(topology):
        smaller = shrink(topology, tuple(spacing), tuple(median_shape))
        if smaller is None:
            break
        larger.append(topology)
        topology = smaller
    return topology, larger


@lru_cache(maxsize=4096)  # a ladder asks for the same patches again and again
def shrink(topology: Topology, spacing: tuple[float, ...], median_shape: tuple[float, ...]) -> Topology | None:
    """The next smaller patch: the axis that covers most of the median case loses one step. None where nothing is left to lose.

    The step is the divisor that holds after the loss, since a whole present one would skip sizes: 224 after 256, where
    five halvings ask for 32 but six for 64.
    """
    patch = topology.patch_size
    cover = [n / m for n, m in zip(patch, median_shape)]
    # nnU-Net takes the last of equals; here size and spacing decide first, so that the order of the axes does not matter
    for axis in sorted(range(len(patch)), key=lambda a: (cover[a], patch[a], spacing[a], a), reverse=True):
        whole = _with(patch, axis, patch[axis] - topology.divisors[axis])
        if whole[axis] < MIN_EDGE:
            continue
        coarse = find_topology(spacing, whole)
        step = coarse.divisors[axis]
        fine = coarse if step == topology.divisors[axis] else find_topology(spacing, _with(patch, axis, patch[axis] - step))
        for smaller in (fine, coarse):
            if len(smaller.strides) > 1 and prod(smaller.patch_size) < prod(patch):
                return smaller
    return None


def batch_size(reference: Reference, elements: int, patch_size: Sequence[int], dataset_voxels: float) -> int:
    """nnU-Net's batch: as many samples as the memory holds, rounded, but at most 5 % of the dataset's voxels, and at least two.

    Args:
        elements: convolution outputs of one sample, `footprint.conv_elements`.
        dataset_voxels: of all cases after resampling.
    """
    return max(min(round(reference.samples_held(elements)), batch_cap(patch_size, dataset_voxels)), MIN_BATCH)


def steady_batch_size(
    reference: Reference, elements: int, patch_size: Sequence[int], dataset_voxels: float, larger: Sequence[Topology]
) -> int:
    """A batch that memory holds without rounding up, and that shows the network no more voxels than the next larger patch would.

    nnU-Net's rounding takes up to a quarter more than the memory there is, and then more memory could mean fewer voxels a
    step: three samples become two as soon as a patch fits that is a quarter larger.

    Args:
        larger: the patches that need more than the memory, the largest first.
    """
    largest = max(min(floor(reference.samples_held(elements)), batch_cap(patch_size, dataset_voxels)), MIN_BATCH)
    if not larger:
        return largest
    voxels = reference.least_batch * prod(larger[0].patch_size)
    for size in (topology.patch_size for topology in larger):
        first_batch = max(min(reference.least_batch, batch_cap(size, dataset_voxels)), MIN_BATCH)
        voxels = min(first_batch, voxels // prod(size)) * prod(size)  # of a batch, as soon as the memory is enough for this patch
    return min(largest, voxels // prod(patch_size))


def batch_cap(patch_size: Sequence[int], dataset_voxels: float) -> int:
    """Samples that hold 5 % of the dataset's voxels."""
    return round(dataset_voxels * MAX_SHARE / prod(patch_size))


def _with(patch: Sequence[int], axis: int, value: int) -> tuple[int, ...]:
    return tuple(value if a == axis else n for a, n in enumerate(patch))
