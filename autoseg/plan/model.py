"""The plan: dataclasses, field for field as the JSON has them, and the names that may stand in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, get_args

from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import LandmarkSet
from autoseg.plan.registries import AUGMENTATIONS, BLOCKS, LOSSES

SCHEMA_VERSION = 6
LEAST_TIME_S = 20.0  # the shortest time limit of a training

Normalization = Literal[
    "ct", "zscore", "zscore_robust", "zscore_nonzero", "zscore_nonzero_robust", "rescale_0_1", "rgb_0_1", "none"
]
SamplingKind = Literal["cases", "structures"]
NetworkKind = Annotated[str, BLOCKS]
Schedule = Literal["cosine", "poly", "one_cycle", "step", "multistep", "exponential", "warm_restarts", "constant"]
Optimizer = Literal["adamw", "adam", "sgd", "rmsprop"]
LossName = Annotated[str, LOSSES]
Augmentation = Annotated[str, AUGMENTATIONS]
PostprocessRule = Literal["largest_foreground", "largest_per_structure"]
DeviceKind = Literal["cpu", "cuda"]
Compute = Literal["float32", "bfloat16", "float16"]
FamilyName = Literal["plain", "residual"]
Recipe = Literal["adamw_constant", "adamw_cosine", "sgd_poly"]
Target = Literal["segmentation", "landmarks", "segmentation and landmarks"]
LandmarkLossName = Literal["spatial_ce", "mse", "cone_bce", "dsnt"]
ScnForm = Literal["per_landmark", "convolutions", "unet"]
ScnCombination = Literal["gate", "logit_sum", "product"]
NORMALIZATIONS: tuple[Normalization, ...] = get_args(Normalization)
POSTPROCESS_RULES: tuple[PostprocessRule, ...] = get_args(PostprocessRule)
DEFAULT_RECIPE: Recipe = "adamw_constant"


@dataclass(frozen=True)
class ChannelPlan:
    """One input channel: how its intensities are normalised, and the foreground statistics that `ct` needs."""

    name: str
    normalization: Normalization
    mean: float
    std: float
    percentile_00_5: float
    percentile_99_5: float


@dataclass(frozen=True)
class DataPlan:
    """Inputs and outputs: channels in order, structures in the order of their label values, landmarks.

    `unseen` names structures that no training case contains; they are never predicted.
    """

    channels: tuple[ChannelPlan, ...]
    labels: LabelSet
    landmarks: LandmarkSet
    unseen: tuple[str, ...] = ()

    @property
    def n_classes(self) -> int:
        """Number of structures and background together; 0 without structures."""
        return self.labels.n_classes if self.labels.names else 0


@dataclass(frozen=True)
class SpacePlan:
    """The grid that cases are brought to.

    Args:
        spacing_mm: along (z, y, x); for 2D along the two axes of a slice.
        slice_axis: for 2D the axis that runs through the slices (0 z, 1 y, 2 x), along which nothing is resampled; else null.
        image_order, label_order: of the interpolation: 0 nearest, 1 linear, 3 cubic (images only).
    """

    orientation: Literal["LPS"]
    spacing_mm: tuple[float, ...]
    slice_axis: int | None
    crop: Literal["nonzero", "none"]
    image_order: int
    label_order: int

    def in_volume(self, values: Sequence[Any], along_slices: Any) -> tuple[Any, Any, Any]:
        """Turns one value per axis of the patch into one per axis of the volume (z, y, x), with `along_slices` in the gap."""
        if self.slice_axis is None:
            return values[0], values[1], values[2]
        in_plane = iter(values)
        z, y, x = (along_slices if axis == self.slice_axis else next(in_plane) for axis in range(3))
        return z, y, x


@dataclass(frozen=True)
class PatchPlan:
    """Size (voxels) of a patch, patches in a batch, and the share of them that must show a structure.

    For that share `sampling` says what is drawn first: one of the `cases`, or one of the `structures` and then a case with it.
    """

    patch_size: tuple[int, ...]
    batch_size: int
    foreground_fraction: float
    sampling: SamplingKind = "cases"


@dataclass(frozen=True)
class NetworkPlan:
    """A U-Net, one entry per encoder stage, finest first. `strides[i]` leads into stage i."""

    kind: NetworkKind
    features: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]
    deep_supervision: bool


@dataclass(frozen=True)
class ScnPlan:
    """A spatial configuration branch (Payer et al., Medical Image Analysis 2019).

    It tells from coarse maps of all landmarks where each of them should be.

    Args:
        form: for each landmark one convolution over the maps of the others, convolutions over all of them, or a small U-Net.
        factor: by which maps are made coarser, along the axes of the patch.
        kernel: edge of the convolutions, voxels.
        layers: hidden convolutions, or levels of the U-Net.
        features: channels between them.
        combine: the branch tells the probability that a landmark may be in a cell, whose logarithm is added to the logits; or
            logits of its own, which are added; or factors, which maps are multiplied by.
    """

    form: ScnForm
    factor: tuple[int, ...]
    kernel: int
    layers: int
    features: int
    combine: ScnCombination


@dataclass(frozen=True)
class LandmarkPlan:
    """Head and loss of the landmarks. Their heatmaps have the resolution of the network's finest stage.

    Args:
        sigma_mm: standard deviation of the Gaussian that is a landmark's target, along the axes of the patch.
        scn: null for no spatial configuration branch.
    """

    sigma_mm: tuple[float, ...]
    loss: LandmarkLossName
    scn: ScnPlan | None


@dataclass(frozen=True)
class TrainingPlan:
    """Length, optimizer, schedule, loss and augmentation of a training.

    Args:
        time_s: wall-clock seconds for everything, the final validation included; null means `epochs`.
        mirror_axes: of the array's spatial axes: 0 z, 1 y, 2 x.
        batch_dice: the Dice of the loss is that of the whole batch, not of each sample.
    """

    epochs: int
    steps_per_epoch: int
    time_s: float | None
    optimizer: Optimizer
    learning_rate: float
    weight_decay: float
    schedule: Schedule
    warmup_fraction: float
    ema_decay: float
    augmentation: Augmentation
    mirror_axes: tuple[int, ...]
    loss: LossName = "dice_ce"
    batch_dice: bool = False


@dataclass(frozen=True)
class InferencePlan:
    """Sliding window: overlap of neighbouring windows (0…1), Gaussian weight, and the axes mirrored and averaged."""

    overlap: float
    mirror_axes: tuple[int, ...]


@dataclass(frozen=True)
class Footprint:
    """Expected memory, disk and time of a configuration; estimates by arithmetic.

    Args:
        training_gb: memory of a training process, on the GPU for a plan for one, else RAM.
        prediction_ram_gb: RAM of predicting the median case.
        prepared_gb: disk space of all prepared cases.
        step_s: seconds a training step.
    """

    training_gb: float
    prediction_ram_gb: float
    prepared_gb: float
    step_s: float


@dataclass(frozen=True)
class Configuration:
    """One complete way to train on the dataset.

    Args:
        previous_stage: the configuration whose network says beforehand where structures are, or landmarks where there are no
            structures: a further input channel for each; null for none.
        landmarks: null for a dataset without landmarks.
        footprint: null where it was not estimated.
        why: a sentence for each chosen value, by its dotted key.
    """

    previous_stage: str | None
    space: SpacePlan
    patch: PatchPlan
    network: NetworkPlan
    landmarks: LandmarkPlan | None
    training: TrainingPlan
    inference: InferencePlan
    postprocess: tuple[PostprocessRule, ...]
    footprint: Footprint | None
    why: dict[str, str]

    @property
    def decisions(self) -> Configuration:
        """The configuration without reasons and estimates: what training and prediction follow."""
        return replace(self, footprint=None, why={})

    @property
    def ndim(self) -> int:
        return len(self.patch.patch_size)

    @property
    def window(self) -> tuple[int, int, int]:
        """The patch as a (z, y, x) shape; a 2D patch is one slice."""
        return self.space.in_volume(self.patch.patch_size, 1)

    @property
    def divisors(self) -> tuple[int, int, int]:
        """The numbers that the network's input must be multiples of along (z, y, x)."""
        return self.space.in_volume(self.network_divisors, 1)

    @property
    def output_strides(self) -> tuple[int, int, int]:
        """Voxels of the network's input for one of its output, along (z, y, x)."""
        return self.space.in_volume(self.network.strides[0], 1)

    @property
    def network_divisors(self) -> tuple[int, ...]:
        """The product of the strides along each axis of the patch."""
        return tuple(math.prod(row[axis] for row in self.network.strides) for axis in range(self.ndim))


@dataclass(frozen=True)
class Rung:
    """One grid of a plan's ladder: what a network on it can hold, and how much of the data it sees.

    Args:
        configuration: its name in the plan.
        spacing_mm: of its grid as planned; a configuration with another one was edited by hand.
        factor: times the finest spacing of the full resolution.
        ceiling: Dice that the grid can hold at best, mean over the structures; measured by the fingerprint.
        covered: share of the median case that a patch shows, 1 at most.
        cases: whole cases' worth of voxels that a training step shows.
        lost: structures whose Dice the grid limits to less than half.
    """

    configuration: str
    spacing_mm: tuple[float, ...]
    factor: float
    ceiling: float
    covered: float
    cases: float
    lost: tuple[str, ...] = ()


@dataclass(frozen=True)
class Origin:
    """The origin of a plan: the fingerprint it was made from, the budget, the version of autoseg, the family of networks.

    Args:
        gmacs_per_s: the speed of the device that times are estimated for, in 10⁹ multiply-accumulates a second.
        compute: the type of its convolutions, which memory is estimated for.
        recipe: how the network learns, by name.
    """

    fingerprint: str
    memory_gb: float
    device: DeviceKind
    autoseg_version: str
    family: FamilyName
    gmacs_per_s: float | None
    compute: Compute | None
    recipe: Recipe
