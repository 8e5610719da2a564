"""How much the network sees at once, and how many such patches make a batch (nnU-Net)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from autoseg.planner.topology import MIN_EDGE, Topology, find_topology, room_for_two_stages

START_VOXELS = {2: 2048**2, 3: 256**3}  # the patch that shrinking starts from
MIN_BATCH = 2
MAX_SHARE = 0.05  # of the dataset's voxels in one batch: more would be the same batch again and again


@dataclass(frozen=True)
class Reference:
    """nnU-Net's calibration: a batch of `batch_size` samples of `elements` convolution outputs each takes 8 GB."""

    elements: float
    batch_size: int

    def scaled(self, memory_gb: float) -> Reference:
        return Reference(self.elements * memory_gb / 8, self.batch_size)

    @property
    def elements_at_smallest_batch(self) -> float:
        """What one sample may have when a batch holds only `MIN_BATCH` of them."""
        return self.elements * self.batch_size / MIN_BATCH


REFERENCES = {2: Reference(8.5e7, 12), 3: Reference(5.6e8, 2)}


def initial_patch(spacing: Sequence[float], median_shape: Sequence[float]) -> Topology:
    """The largest patch considered: as long in mm along every axis, but not larger than the median case."""
    ndim = len(spacing)
    edge_mm = (START_VOXELS[ndim] * prod(spacing)) ** (1 / ndim)
    size = [min(float(round(edge_mm / s)), n) for s, n in zip(spacing, median_shape)]
    return find_topology(spacing, room_for_two_stages(spacing, size))


def shrink_until(
    fits: Callable[[Topology], bool], topology: Topology, spacing: Sequence[float], median_shape: Sequence[float]
) -> Topology:
    """The first of ever smaller patches that fits, or the smallest possible one if none does."""
    while not fits(topology):
        smaller = shrink(topology, spacing, median_shape)
        if smaller is None:
            return topology
        topology = smaller
    return topology


def shrink(topology: Topology, spacing: Sequence[float], median_shape: Sequence[float]) -> Topology | None:
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
        step = find_topology(spacing, whole).divisors[axis]
        for size in (_with(patch, axis, patch[axis] - step), whole):
            smaller = find_topology(spacing, size)
            if len(smaller.strides) > 1 and prod(smaller.patch_size) < prod(patch):
                return smaller
    return None


def batch_size(reference: Reference, elements: int, patch_size: Sequence[int], dataset_voxels: float) -> int:
    """As many samples as the memory holds, but at most 5 % of the dataset's voxels, and at least two.

    Args:
        elements: convolution outputs of one sample, `footprint.conv_elements`.
        dataset_voxels: of all cases after resampling.
    """
    held = round(reference.elements / elements * reference.batch_size)
    return max(min(held, batch_cap(patch_size, dataset_voxels)), MIN_BATCH)


def batch_cap(patch_size: Sequence[int], dataset_voxels: float) -> int:
    """Samples that hold 5 % of the dataset's voxels."""
    return round(dataset_voxels * MAX_SHARE / prod(patch_size))


def _with(patch: Sequence[int], axis: int, value: int) -> tuple[int, ...]:
    return tuple(value if a == axis else n for a, n in enumerate(patch))
