"""Memory of a training step: what autograd keeps, and what is needed beside it at the worst moment.

Found by `torch.autograd.graph.saved_tensors_hooks` and the memory records of `torch.profiler` (torch 2.13): a step is at its
largest either while the loss of the finest level is differentiated (many classes), or while the first convolution of the
finest decoder stage is (few). Both are counted here tensor by tensor; only `BASE` and `SLACK` are measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from autoseg.footprint.network import NetworkIO, map_size, n_parameters, scn_layers, stage_voxels, unet_layers
from autoseg.plan import Compute, Configuration, DeviceKind, NetworkPlan, Plan
from autoseg.plan.limits import BATCHES_AHEAD, MAP_ELEMENTS_AT_ONCE

BYTES_PER_WEIGHT = 20  # four bytes each for the weight, its average, its gradient and the two moments of AdamW

BASE = {"cpu": 0.55e9, "cuda": 0.5e9}
"""cpu: resident after three steps of a network of 600 weights (torch 2.13 without CUDA, Linux): Python and torch 0.41, oneDNN
and threads 0.10, matplotlib for the curves 0.04. cuda: of the card, the context with the driver and the kernels; an
H200, which has many processors to keep memory for, gives 0.81 to it with CUDA 13; smaller cards were not measured."""

SLACK = {"cpu": 1.2, "cuda": 1.1}
"""Memory that is held over memory in use. cpu: glibc keeps freed blocks of up to 32 MB for later; with MALLOC_MMAP_THRESHOLD_ at
64 kB, where it gives them back, the same steps take 1.13 to 1.5 times less beyond the base (and ten times as long). cuda:
blocks that torch's allocator has cut and cannot join. Where there is plenty it comes to hold 1.1 to 1.9 times as much as this
gives (benchmarks/results/footprint.md), since cuDNN tries what is fastest however much it takes; what it makes do with on a card
that is nearly full was not measured."""

LOADED_BATCHES = 1 + BATCHES_AHEAD + 1  # the one that is learnt from, those that wait, and the copies made while one is stacked

LOSS_COPIES = 2  # float32 maps of all classes: the logits as float32 and their softmax
LOSS_VOXEL = 32  # bytes: two int64 indices, the probability of the true class and its logarithm, masks

LANDMARK_COPIES = 2  # of the maps of all landmarks, in the compute type: logits and gradient (losses.landmarks.spatial_ce)
CHUNKS = 2  # of MAP_ELEMENTS_AT_ONCE, in float32, that the landmark loss holds together
BOX_EDGE, BOX_BYTES = 13, 40  # voxels around a landmark that have a target, and bytes of each: index, mass, logit, gradient
FLOAT32_COPIES = 1  # of the maps of all landmarks more in float32 while they are differentiated: measured with 300 landmarks
SCN_COPIES = 1  # maps of all landmarks that a spatial configuration branch adds: its own, brought to their size


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of a training step: of the process on a CPU, of the card on a GPU.

    Args:
        base: before there is a network.
        weights: with average, gradient, moments and the copy in the compute type.
        maps: kept from the forward pass for the backward pass.
        loss: at its largest, with the logits of all levels.
        workspace: gradients and reordered copies, while the largest convolution is differentiated.
        batches: images and label maps.
        slack: what the allocator holds for a byte in use.
    """

    base: float
    weights: float
    maps: float
    loss: float
    workspace: float
    batches: float
    slack: float

    @property
    def total(self) -> float:
        """Peak. The loss is done with before the convolutions are differentiated, so the larger of the two counts."""
        return self.base + self.slack * (self.weights + self.maps + max(self.loss, self.workspace) + self.batches)


def training_memory(
    network: NetworkPlan,
    patch_size: Sequence[int],
    io: NetworkIO,
    *,
    batch_size: int,
    compute: Compute,
    device: DeviceKind,
) -> TrainingMemory:
    """Peak memory of training, within 20 % on a CPU with glibc (benchmarks/results/footprint.md).

    On a GPU it is less than what is taken where there is plenty, see `SLACK`. Landmarks are learnt with `spatial_ce`; the
    other losses take up to ten float32 copies of the maps more.

    Args:
        patch_size: voxels, multiples of the network's strides.
        compute: the type that convolutions compute in.
    """
    half = compute != "float32"
    size = 2 if half else 4
    has_previous, has_labels = io.n_previous_classes > 0, io.n_classes > 0
    voxels = batch_size * prod(patch_size)
    stages = stage_voxels(network, patch_size)
    finest = batch_size * stages[0]
    supervised = stages[:-1] if network.deep_supervision else stages[:1]
    logits = size * (io.n_classes * batch_size * sum(supervised) + io.n_landmarks * finest)
    kept = _kept(network, patch_size, io, half, device) + 4 * io.n_previous_classes * prod(patch_size)
    return TrainingMemory(
        base=BASE[device],
        weights=(BYTES_PER_WEIGHT + size * half) * n_parameters(network, io),
        maps=batch_size * kept,
        loss=voxels * has_labels * (4 * LOSS_COPIES * io.n_classes + LOSS_VOXEL)
        + _landmark_loss(io, finest, batch_size, ndim=len(patch_size), size=size)
        + logits,
        workspace=finest * size * _differentiating(network, max(io.n_classes, io.n_landmarks), half, device)
        + finest * size * io.n_landmarks * FLOAT32_COPIES * (not half)
        + logits,
        batches=voxels
        * (4 * (io.n_channels + has_previous) + 8 * has_labels)
        * (LOADED_BATCHES if device == "cpu" else 1),  # float32 image, int64 label map
        slack=SLACK[device],
    )


def plan_memory(plan: Plan, configuration: str, compute: Compute, device: DeviceKind) -> TrainingMemory:
    """`training_memory` of a plan's configuration."""
    c = plan.configurations[configuration]
    return training_memory(
        c.network,
        c.patch.patch_size,
        plan_io(plan, plan.configurations[configuration]),
        batch_size=c.patch.batch_size,
        compute=compute,
        device=device,
    )


def plan_io(plan: Plan, configuration: Configuration) -> NetworkIO:
    """Inputs and outputs of the network of a plan's configuration."""
    return NetworkIO(
        n_channels=len(plan.data.channels),
        n_classes=plan.data.n_classes,
        n_previous_classes=plan.n_previous_classes(configuration),
        n_landmarks=len(plan.data.landmarks),
        scn=configuration.landmarks.scn if configuration.landmarks else None,
    )


def _landmark_loss(io: NetworkIO, voxels: int, batch_size: int, *, ndim: int, size: int) -> float:
    """Bytes of the landmarks' loss beside the logits, with the branch's maps at full resolution.

    Args:
        voxels: of the maps of one landmark in the whole batch.
        size: bytes of a number of the compute type.
    """
    if not io.n_landmarks:
        return 0.0
    copies = LANDMARK_COPIES - 1 + SCN_COPIES * (io.scn is not None)
    chunk = min(io.n_landmarks * voxels, max(MAP_ELEMENTS_AT_ONCE, voxels // max(1, batch_size)))
    targets = batch_size * io.n_landmarks * BOX_EDGE**ndim * BOX_BYTES
    return size * copies * io.n_landmarks * voxels + 4 * CHUNKS * chunk + targets


def _kept(network: NetworkPlan, patch_size: Sequence[int], io: NetworkIO, half: bool, device: DeviceKind) -> float:
    """Bytes of a sample that autograd keeps.

    For each convolution these are the input of its norm, and the output of the leaky ReLU, which the next convolution keeps.
    """
    size = 2 if half else 4
    stages = stage_voxels(network, patch_size)
    kept = 0.0
    for layer in unet_layers(network, patch_size, io.input_channels):
        if layer.norm:
            kept += 2 * size * layer.outputs * layer.voxels
    if io.scn:
        coarse = scn_layers(io.scn, map_size(network, patch_size), io.n_landmarks)
        kept += sum(size * (layer.inputs + layer.outputs) * layer.voxels for layer in coarse)
    for width, voxels in zip(network.features[:-1], stages):
        kept += size * 2 * width * voxels  # concatenated skip and upsampled map
    if half:
        kept += size * io.input_channels * prod(patch_size)
        if network.kind == "residual_unet" and device == "cpu" and len(patch_size) == 3:
            # where a shortcut strides, autocast pools a float32 copy: on a CPU avg_pool3d is on its list, avg_pool2d is not
            stage_inputs = [(network.features[0], prod(patch_size)), *zip(network.features, stages)]
            kept += sum(4 * width * voxels for (width, voxels), row in zip(stage_inputs, network.strides) if max(row) > 1)
    return kept


def _differentiating(network: NetworkPlan, n_maps: int, half: bool, device: DeviceKind) -> float:
    """The most channels of the finest stage that are held beside the kept maps while one of its convolutions is differentiated.

    These are the gradients of its input and output, and oneDNN's copies of both in its own order; with two bytes once more,
    for the weights' gradient. What later layers kept is freed by then: two maps of each block.
    """
    width = network.features[0]
    copies = {"cpu": 3 if half else 2, "cuda": 2}[device]
    largest, freed = float(copies * (width + n_maps)), 2 * width
    for block in reversed(range(network.decoder_blocks[0])):
        inputs = width if block else 2 * width
        largest = max(largest, copies * (inputs + width) - freed)
        freed += 2 * width
    return largest
