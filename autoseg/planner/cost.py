"""The cost of a patch: memory and work of the network that a patch would get, from its inputs, outputs, width and family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from autoseg.footprint import (
    BYTES_PER_WEIGHT,
    STEP_PASSES,
    NetworkIO,
    TrainingMemory,
    conv_elements,
    multiply_accumulates,
    n_parameters,
    training_memory,
)
from autoseg.plan import Compute, DeviceKind, NetworkPlan
from autoseg.planner.family import Family
from autoseg.planner.patch import MIN_BATCH
from autoseg.planner.topology import SIMILAR, Topology

DEEP = 2**20  # a stride after which a stage costs next to nothing

Rows = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Width:
    """Features of a family's networks: how wide they are.

    Args:
        base: features of the finest stage.
        most_2d, most_3d: features that a stage may have at most.
        decoder_blocks: convolutions that a decoder stage may have at most.
    """

    base: int
    most_2d: int
    most_3d: int
    decoder_blocks: int

    def most(self, ndim: int) -> int:
        return self.most_2d if ndim == 2 else self.most_3d


WIDE = Width(32, 512, 320, 2)  # nnU-Net
NARROW = Width(16, 256, 160, 1)  # a sixth of its work


@dataclass(frozen=True)
class NetworkCost:
    """Memory and work of networks of one family and width, by the patch and topology that they get.

    Args:
        io: inputs and outputs; with the landmarks' branch once it is known.
        device, compute: where the network is trained, and the type that convolutions compute in there.
    """

    io: NetworkIO
    width: Width
    family: Family
    device: DeviceKind
    compute: Compute

    def halves_first(self, topology: Topology) -> bool:
        """True for a network without a stage at full resolution: one for landmarks alone.

        Positions are decoded to a fraction of a voxel; mouse skulls came out as well a step as with full maps of images twice as
        coarse, in half of the time.
        """
        return not self.io.n_classes and len(topology.strides) > 2

    def network(self, topology: Topology) -> NetworkPlan:
        """The U-Net of this family and width: features are doubled from stage to stage up to a maximum."""
        first = 1 if self.halves_first(topology) else 0
        strides, kernel_sizes = topology.strides[first:], topology.kernel_sizes[first:]
        n, widest = len(strides), self.width.most(len(topology.patch_size))
        return NetworkPlan(
            kind=self.family.kind,
            features=tuple(min(self.width.base * 2**stage, widest) for stage in range(n)),
            strides=strides,
            kernel_sizes=kernel_sizes,
            encoder_blocks=self.family.blocks(n),
            decoder_blocks=(min(self.width.decoder_blocks, self.family.decoder_blocks),) * (n - 1),
            deep_supervision=self.io.n_classes > 0,
        )

    def elements(self, topology: Topology) -> int:
        """Outputs of all convolutions for a sample, nnU-Net's measure of memory."""
        return self._cost(topology).elements * self._repeats(topology)

    def step_gmacs(self, topology: Topology, batch_size: int) -> float:
        """10⁹ multiply-accumulates of one training step."""
        return STEP_PASSES * batch_size * self._cost(topology).multiply_accumulates * self._repeats(topology) / 1e9

    def fixed_gb(self, topology: Topology) -> float:
        """GB of the weights with all that the optimizer keeps of them, and of the images of the smallest batch."""
        images = 4 * MIN_BATCH * self.io.n_channels * prod(topology.patch_size)
        return (BYTES_PER_WEIGHT * self._cost(topology).parameters + images) / 1e9

    def training_gb(self, topology: Topology, batch_size: int) -> float:
        """GB that a training process takes in all, see `footprint.training_memory`."""
        if self.io.n_landmarks:
            return _training_bytes(self, topology, batch_size) / 1e9
        cost = self._cost(topology)
        return (cost.base_bytes + batch_size * cost.sample_bytes * self._repeats(topology)) / 1e9

    def finest_stage(self, spacing: Sequence[float]) -> tuple[float, float]:
        """Convolution outputs of a sample, and 10⁹ multiply-accumulates of the smallest training step, by voxel of the patch.

        No network costs less, since deeper stages come on top.
        """
        ndim = len(spacing)
        first = tuple(3 if s / min(spacing) < SIMILAR else 1 for s in spacing)
        two_stages = Topology((DEEP,) * ndim, ((1,) * ndim, (DEEP,) * ndim), (first, (1,) * ndim))
        deep = 1e-6  # the second stage is there, if hardly; this is more than its share
        voxels = DEEP**ndim * (1 + deep)
        return self.elements(two_stages) / voxels, self.step_gmacs(two_stages, MIN_BATCH) / voxels

    def _cost(self, topology: Topology) -> _Cost:
        return _cost_of(self, self._part(topology), topology.strides, topology.kernel_sizes)

    def _repeats(self, topology: Topology) -> int:
        """Number of smallest patches (`_part`) that tile a patch."""
        return prod(topology.patch_size) // prod(self._part(topology))

    def _part(self, topology: Topology) -> tuple[int, ...]:
        """The smallest patch that the network can take; the whole patch if there is a branch, whose maps may be as coarse."""
        return topology.patch_size if self.io.scn else topology.divisors


@dataclass(frozen=True)
class _Cost:
    """Costs of one patch; those of larger ones are in proportion, except for the weights."""

    elements: int
    multiply_accumulates: int
    parameters: int
    base_bytes: float
    sample_bytes: float


@lru_cache(maxsize=4096)  # planning tries hundreds of patches on a dozen networks
def _cost_of(cost: NetworkCost, patch: tuple[int, ...], strides: Rows, kernel_sizes: Rows) -> _Cost:
    network = cost.network(Topology(patch, strides, kernel_sizes))
    memory = _training_memory(cost, network, patch, 1)
    base = memory.base + memory.slack * memory.weights
    return _Cost(
        elements=conv_elements(network, patch, cost.io),
        multiply_accumulates=multiply_accumulates(network, patch, cost.io),
        parameters=n_parameters(network, cost.io),
        base_bytes=base,
        sample_bytes=memory.total - base,
    )


@lru_cache(maxsize=4096)
def _training_bytes(cost: NetworkCost, topology: Topology, batch_size: int) -> float:
    """Bytes of training with the whole batch: what the loss of landmarks takes is not in proportion to the patch."""
    return _training_memory(cost, cost.network(topology), topology.patch_size, batch_size).total


def _training_memory(cost: NetworkCost, network: NetworkPlan, patch: tuple[int, ...], batch_size: int) -> TrainingMemory:
    return training_memory(network, patch, cost.io, batch_size=batch_size, compute=cost.compute, device=cost.device)
