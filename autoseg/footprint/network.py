"""Weights, work and maps of a network.

All three figures are sums over one list of layers, so that they cannot disagree about what the network is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

from autoseg.plan import NetworkPlan, ScnPlan

STEP_PASSES = 3  # a training step costs three forward passes: forward, and the gradients of inputs and of weights


@dataclass(frozen=True)
class Layer:
    """A convolution, or a pooled shortcut (no inputs, no weights) that only makes a feature map.

    Args:
        inputs, outputs: channels.
        voxels: of the output of one sample.
        kernel: weights per pair of input and output channel.
        taps: multiplications per output voxel and pair of channels.
        biases: per output channel.
        norm: whether a normalisation with scale and shift follows.
    """

    inputs: int
    outputs: int
    voxels: int
    kernel: int
    taps: int
    biases: int
    norm: bool


@dataclass(frozen=True)
class LandmarkMaps:
    """What a network has for landmarks: a map of each at its finest stage, and the branch that corrects them, if there is one."""

    n: int = 0
    scn: ScnPlan | None = None


NO_MAPS = LandmarkMaps()


def conv_elements(
    network: NetworkPlan, patch_size: Sequence[int], n_channels: int, n_classes: int, landmarks: LandmarkMaps = NO_MAPS
) -> int:
    """Output elements of all convolutions for one sample: nnU-Net's proxy for the memory of a training step.

    Counts the segmentation head of the finest level only, as nnU-Net does (it estimates without deep supervision).
    """
    single = replace(network, deep_supervision=False)
    return sum(layer.outputs * layer.voxels for layer in layers(single, patch_size, n_channels, n_classes, landmarks))


def n_parameters(network: NetworkPlan, n_channels: int, n_classes: int, landmarks: LandmarkMaps = NO_MAPS) -> int:
    """Trainable numbers: weights, biases, and scale and shift of the normalisations."""
    patch = [prod(row[axis] for row in network.strides) for axis in range(len(network.strides[0]))]  # any size will do
    return sum(
        layer.outputs * (layer.inputs * layer.kernel + layer.biases + 2 * layer.norm)
        for layer in layers(network, patch, n_channels, n_classes, landmarks)
    )


def multiply_accumulates(
    network: NetworkPlan, patch_size: Sequence[int], n_channels: int, n_classes: int, landmarks: LandmarkMaps = NO_MAPS
) -> int:
    """Multiply-accumulates of all convolutions in one forward pass of one sample."""
    return sum(
        layer.inputs * layer.outputs * layer.voxels * layer.taps
        for layer in layers(network, patch_size, n_channels, n_classes, landmarks)
    )


def layers(
    network: NetworkPlan, patch_size: Sequence[int], n_channels: int, n_classes: int, landmarks: LandmarkMaps = NO_MAPS
) -> Iterator[Layer]:
    """
    Args:
        n_classes: structures and background; 0 where there are no label maps.
    """
    voxels = stage_voxels(network, patch_size)
    yield from _encoder(network, patch_size, n_channels)
    for stage in reversed(range(len(network.features) - 1)):
        width, kernel = network.features[stage], prod(network.kernel_sizes[stage])
        # upsampling: the kernel of the transposed convolution is its stride, so each output voxel has one tap; each of the
        # kernel's places has a bias of its own
        stride = prod(network.strides[stage + 1])
        yield Layer(network.features[stage + 1], width, voxels[stage], stride, 1, biases=stride, norm=False)
        for block in range(network.decoder_blocks[stage]):
            yield _conv(width if block else 2 * width, width, voxels[stage], kernel)
        if n_classes and (stage == 0 or network.deep_supervision):
            yield Layer(width, n_classes, voxels[stage], 1, 1, biases=1, norm=False)
    if landmarks.n:
        yield Layer(network.features[0], landmarks.n, voxels[0], 1, 1, biases=1, norm=False)
    if landmarks.scn:
        yield from scn_layers(landmarks.scn, map_size(network, patch_size), landmarks.n)


def scn_layers(scn: ScnPlan, size: Sequence[int], n_landmarks: int) -> Iterator[Layer]:
    """The convolutions of a spatial configuration branch, for maps of `size`.

    Those over all maps: one into the features, those between, one out. For each landmark alone: one,
    over all maps to its own.
    A U-Net: two at each level, with the features of the finest, whose maps are halved from level to level and added.
    """
    voxels = prod(n // f for n, f in zip(size, scn.factor))
    taps = scn.kernel ** len(scn.factor)
    if scn.form == "per_landmark":
        yield Layer(n_landmarks, n_landmarks, voxels, taps, taps, biases=1, norm=False)
        return
    halved = 2 ** len(scn.factor)
    each = 2 if scn.form == "unet" else 1
    yield Layer(n_landmarks, scn.features, voxels, taps, taps, biases=1, norm=False)
    for level in range(1, scn.layers * each):
        there = max(1, voxels // halved ** (level // each)) if scn.form == "unet" else voxels
        yield Layer(scn.features, scn.features, there, taps, taps, biases=1, norm=False)
    yield Layer(scn.features, n_landmarks, voxels, taps, taps, biases=1, norm=False)


def _encoder(network: NetworkPlan, patch_size: Sequence[int], n_channels: int) -> Iterator[Layer]:
    voxels = stage_voxels(network, patch_size)
    residual = network.kind == "residual_unet"
    previous = n_channels
    if residual:
        previous = network.features[0]
        yield _conv(n_channels, previous, prod(patch_size), prod(network.kernel_sizes[0]))
    for stage, width in enumerate(network.features):
        kernel = prod(network.kernel_sizes[stage])
        for block in range(network.encoder_blocks[stage]):
            yield _conv(previous, width, voxels[stage], kernel)
            if residual:
                yield _conv(width, width, voxels[stage], kernel)
                resized = block == 0 and max(network.strides[stage]) > 1
                yield from _shortcut(previous, width, voxels[stage], resized)
            previous = width


def _shortcut(inputs: int, outputs: int, voxels: int, resized: bool) -> Iterator[Layer]:
    """What a residual block needs so that its input can be added to its output: nothing where both have the same shape."""
    if inputs != outputs:
        yield Layer(inputs, outputs, voxels, 1, 1, biases=0, norm=True)
    elif resized:
        yield Layer(0, outputs, voxels, 0, 0, biases=0, norm=False)


def _conv(inputs: int, outputs: int, voxels: int, kernel: int) -> Layer:
    return Layer(inputs, outputs, voxels, kernel, kernel, biases=0, norm=True)  # the norm would take a bias away again


def map_size(network: NetworkPlan, patch_size: Sequence[int]) -> tuple[int, ...]:
    """Voxels of the finest stage along each axis, which are those of the maps that come out."""
    return tuple(n // s for n, s in zip(patch_size, network.strides[0]))


def stage_voxels(network: NetworkPlan, patch_size: Sequence[int]) -> list[int]:
    size, voxels = list(patch_size), []
    for row in network.strides:
        size = [n // s for n, s in zip(size, row)]
        voxels.append(prod(size))
    return voxels
