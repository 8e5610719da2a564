"""Weights, work and feature maps of a network, each a sum over one list of layers.

So they cannot disagree about what the network is.
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
class NetworkIO:
    """Inputs and outputs of a network.

    Args:
        n_channels: of the images.
        n_classes: structures and background; 0 without label maps.
        n_previous_classes: channels that the network makes of what the previous stage found, which comes as one channel more.
        n_landmarks: each has a map of its own at the network's finest stage.
        scn: the branch that corrects these maps; None for none.
    """

    n_channels: int
    n_classes: int
    n_previous_classes: int = 0
    n_landmarks: int = 0
    scn: ScnPlan | None = None

    @property
    def input_channels(self) -> int:
        """Channels that the first convolution takes."""
        return self.n_channels + self.n_previous_classes

    @property
    def without_landmarks(self) -> NetworkIO:
        """Inputs and outputs without the landmarks' heatmaps."""
        return replace(self, n_landmarks=0, scn=None)


def conv_elements(network: NetworkPlan, patch_size: Sequence[int], io: NetworkIO) -> int:
    """Output elements of all convolutions for one sample: nnU-Net's proxy for the memory of a training step.

    Counts the segmentation head of the finest level only, as nnU-Net does (it estimates without deep supervision).
    """
    single = replace(network, deep_supervision=False)
    return sum(layer.outputs * layer.voxels for layer in layers(single, patch_size, io))


def n_parameters(network: NetworkPlan, io: NetworkIO) -> int:
    """Trainable numbers: weights, biases, and scale and shift of the normalisations."""
    patch = [prod(row[axis] for row in network.strides) for axis in range(len(network.strides[0]))]  # any size will do
    return sum(
        layer.outputs * (layer.inputs * layer.kernel + layer.biases + 2 * layer.norm) for layer in layers(network, patch, io)
    )


def multiply_accumulates(network: NetworkPlan, patch_size: Sequence[int], io: NetworkIO) -> int:
    """Multiply-accumulates of all convolutions in one forward pass of one sample."""
    return sum(layer.inputs * layer.outputs * layer.voxels * layer.taps for layer in layers(network, patch_size, io))


def layers(network: NetworkPlan, patch_size: Sequence[int], io: NetworkIO) -> Iterator[Layer]:
    """Every convolution of a network, and every shortcut that is pooled: the U-Net's, then those of its heads."""
    yield from unet_layers(network, patch_size, io.input_channels)
    yield from _head_layers(network, patch_size, io)


def unet_layers(network: NetworkPlan, patch_size: Sequence[int], input_channels: int) -> Iterator[Layer]:
    """The layers of encoder and decoder, without those that make logits or landmark maps."""
    voxels = stage_voxels(network, patch_size)
    yield from _encoder(network, patch_size, input_channels)
    for stage in reversed(range(len(network.features) - 1)):
        width, kernel = network.features[stage], prod(network.kernel_sizes[stage])
        # upsampling: the kernel of the transposed convolution is its stride, so each output voxel has one tap; each of the
        # kernel's places has a bias of its own
        stride = prod(network.strides[stage + 1])
        yield Layer(network.features[stage + 1], width, voxels[stage], stride, 1, biases=stride, norm=False)
        for block in range(network.decoder_blocks[stage]):
            yield _conv(width if block else 2 * width, width, voxels[stage], kernel)


def _head_layers(network: NetworkPlan, patch_size: Sequence[int], io: NetworkIO) -> Iterator[Layer]:
    """A segmentation head for each supervised level of the decoder, maps of landmarks, and the branch that corrects them."""
    voxels = stage_voxels(network, patch_size)
    if io.n_classes:
        for stage in range(len(network.features) - 1 if network.deep_supervision else 1):
            yield Layer(network.features[stage], io.n_classes, voxels[stage], 1, 1, biases=1, norm=False)
    if io.n_landmarks:
        yield Layer(network.features[0], io.n_landmarks, voxels[0], 1, 1, biases=1, norm=False)
    if io.scn:
        yield from scn_layers(io.scn, map_size(network, patch_size), io.n_landmarks)


def scn_layers(scn: ScnPlan, size: Sequence[int], n_landmarks: int) -> Iterator[Layer]:
    """The convolutions of a spatial configuration branch, for maps of `size`.

    `convolutions`: one from all maps to the features, hidden ones between features, one back to all maps.
    `per_landmark`: one from all maps to the landmark's own.
    `unet`: two at each level, with the features of the finest, whose maps are halved from level to level and added.
    """
    voxels = prod(n // f for n, f in zip(size, scn.factor))
    taps = scn.kernel ** len(scn.factor)
    if scn.form == "per_landmark":
        yield Layer(n_landmarks, n_landmarks, voxels, taps, taps, biases=1, norm=False)
        return
    halved = 2 ** len(scn.factor)
    per_level = 2 if scn.form == "unet" else 1
    yield Layer(n_landmarks, scn.features, voxels, taps, taps, biases=1, norm=False)
    for level in range(1, scn.layers * per_level):
        level_voxels = max(1, voxels // halved ** (level // per_level)) if scn.form == "unet" else voxels
        yield Layer(scn.features, scn.features, level_voxels, taps, taps, biases=1, norm=False)
    yield Layer(scn.features, n_landmarks, voxels, taps, taps, biases=1, norm=False)


def _encoder(network: NetworkPlan, patch_size: Sequence[int], input_channels: int) -> Iterator[Layer]:
    voxels = stage_voxels(network, patch_size)
    residual = network.kind == "residual_unet"
    inputs = input_channels
    if residual:
        inputs = network.features[0]
        yield _conv(input_channels, inputs, prod(patch_size), prod(network.kernel_sizes[0]))
    for stage, width in enumerate(network.features):
        kernel = prod(network.kernel_sizes[stage])
        for block in range(network.encoder_blocks[stage]):
            yield _conv(inputs, width, voxels[stage], kernel)
            if residual:
                yield _conv(width, width, voxels[stage], kernel)
                resized = block == 0 and max(network.strides[stage]) > 1
                yield from _shortcut(inputs, width, voxels[stage], resized)
            inputs = width


def _shortcut(inputs: int, outputs: int, voxels: int, resized: bool) -> Iterator[Layer]:
    """The layer that fits a residual block's input to its output, so that they can be added; none where both have one shape."""
    if inputs != outputs:
        yield Layer(inputs, outputs, voxels, 1, 1, biases=0, norm=True)
    elif resized:
        yield Layer(0, outputs, voxels, 0, 0, biases=0, norm=False)


def _conv(inputs: int, outputs: int, voxels: int, kernel: int) -> Layer:
    return Layer(inputs, outputs, voxels, kernel, kernel, biases=0, norm=True)  # the norm would take a bias away again


def map_size(network: NetworkPlan, patch_size: Sequence[int]) -> tuple[int, ...]:
    """Voxels of the finest stage along each axis, which are those of the maps that the network makes."""
    return tuple(n // s for n, s in zip(patch_size, network.strides[0]))


def stage_voxels(network: NetworkPlan, patch_size: Sequence[int]) -> list[int]:
    """Voxels of one feature map in each stage of the encoder, finest first."""
    size, voxels = list(patch_size), []
    for row in network.strides:
        size = [n // s for n, s in zip(size, row)]
        voxels.append(prod(size))
    return voxels
