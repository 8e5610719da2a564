"""The strides and kernels of a U-Net: axes are halved as often as the patch allows, the finer ones first (nnU-Net)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, prod

MIN_EDGE = 4  # voxels that remain along a halved axis at the bottleneck
MIN_EDGE_ALONE = 6  # the same where no other axis is halved with it
SIMILAR = 2.0  # axes whose spacings differ by less than this factor are treated alike


@dataclass(frozen=True)
class Topology:
    """A patch and the strides and kernels that go with it, one row per stage."""

    patch_size: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    kernel_sizes: tuple[tuple[int, ...], ...]

    @cached_property
    def divisors(self) -> tuple[int, ...]:
        """The number that each axis of the patch must be a multiple of."""
        return tuple(prod(row[axis] for row in self.strides) for axis in range(len(self.patch_size)))

    def ordered(self, order: Sequence[int]) -> Topology:
        """The topology with its axes reordered: new axis `i` is the present axis `order[i]`."""
        return Topology(
            tuple(self.patch_size[a] for a in order),
            tuple(tuple(row[a] for a in order) for row in self.strides),
            tuple(tuple(row[a] for a in order) for row in self.kernel_sizes),
        )


def find_topology(spacing: Sequence[float], size: Sequence[float]) -> Topology:
    """Finds strides and kernels for a patch of about `size` voxels, which grows to the next multiple that the strides ask for.

    An axis gets kernels of 3 from the stage on at which its spacing is less than twice the finest; the bottleneck always.
    """
    axes = range(len(size))
    stage_spacing, stage_size = list(spacing), [float(n) for n in size]
    kernel = [1] * len(axes)
    strides, kernels = [(1,) * len(axes)], []
    while halved := _axes_to_halve(stage_spacing, stage_size):
        kernel = [3 if k == 3 or stage_spacing[a] / min(stage_spacing) < SIMILAR else 1 for a, k in zip(axes, kernel)]
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if a in halved else 1 for a in axes))
        for a in halved:
            stage_spacing[a] *= 2
            stage_size[a] = ceil(stage_size[a] / 2)
    kernels.append((3,) * len(axes))
    divisors = [prod(row[a] for row in strides) for a in axes]
    return Topology(next_multiple(size, divisors), tuple(strides), tuple(kernels))


def next_multiple(size: Sequence[float], divisors: Sequence[int]) -> tuple[int, ...]:
    """The smallest patch that covers `size` and can be halved as often as the network does."""
    return tuple(ceil(n / d) * d for n, d in zip(size, divisors))


def at_least_two_stages(spacing: Sequence[float], size: Sequence[float]) -> tuple[float, ...]:
    """`size`, grown along the finest axes if it is too small for a U-Net, which needs at least one halving."""
    if len(find_topology(spacing, size).strides) > 1:
        return tuple(size)
    finest = [a for a, s in enumerate(spacing) if s / min(spacing) < SIMILAR]
    least = 2 * (MIN_EDGE if len(finest) > 1 else MIN_EDGE_ALONE)
    return tuple(max(n, least) if a in finest else n for a, n in enumerate(size))


def without_last_halving(topology: Topology, size: Sequence[float]) -> Topology | None:
    """A topology with one stage less, whose patch covers `size` with less padding; None below three stages."""
    if len(topology.strides) < 4:
        return None
    strides = topology.strides[:-1]
    divisors = [prod(row[a] for row in strides) for a in range(len(size))]
    return Topology(next_multiple(size, divisors), strides, (*topology.kernel_sizes[:-2], topology.kernel_sizes[-1]))


def _axes_to_halve(spacing: Sequence[float], size: Sequence[float]) -> set[int]:
    large = [a for a, n in enumerate(size) if n >= 2 * MIN_EDGE]
    finest = min((spacing[a] for a in large), default=0.0)
    halved = {a for a in large if spacing[a] / finest < SIMILAR}
    return set() if len(halved) == 1 and size[min(halved)] < 2 * MIN_EDGE_ALONE else halved
