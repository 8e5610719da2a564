"""The plan: every decision about a dataset, with its reason. Dataclasses, validation, JSON in and out; no planning here."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from autoseg.errors import PlanError, UsageError, nearest
from autoseg.files import write_text
from autoseg.labels import LabelSet
from autoseg.records import from_json, to_json

SCHEMA_VERSION = 2
AUTO = "auto"
LEAST_TIME_S = 20.0  # that a training can be given

Normalization = Literal[
    "ct", "zscore", "zscore_robust", "zscore_nonzero", "zscore_nonzero_robust", "rescale_0_1", "rgb_0_1", "none"
]
SamplingKind = Literal["cases", "structures"]
NetworkKind = Literal["plain_unet", "residual_unet"]
Schedule = Literal["cosine", "poly", "one_cycle", "step", "multistep", "exponential", "warm_restarts", "constant"]
Optimizer = Literal["adamw", "adam", "sgd", "rmsprop"]
LossName = Literal["dice_ce", "dice_focal", "dice", "ce", "balanced_ce", "topk_ce", "focal"]
Augmentation = Literal["default", "none"]
PostprocessRule = Literal["largest_foreground", "largest_per_structure"]
DeviceKind = Literal["cpu", "cuda"]
Compute = Literal["float32", "bfloat16", "float16"]
FamilyName = Literal["plain", "residual"]
Recipe = Literal["adamw_cosine", "sgd_poly"]
NORMALIZATIONS: tuple[Normalization, ...] = get_args(Normalization)
POSTPROCESS_RULES: tuple[PostprocessRule, ...] = get_args(PostprocessRule)


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
    """What goes in and what comes out: channels in order, structures in the order of their label values.

    `unseen` names structures that no training case contains; they are never predicted.
    """

    channels: tuple[ChannelPlan, ...]
    labels: LabelSet
    unseen: tuple[str, ...] = ()


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
        """One value an axis of a slice as one value an axis of the volume (z, y, x), with `along_slices` in the gap."""
        if self.slice_axis is None:
            return values[0], values[1], values[2]
        given = iter(values)
        z, y, x = (along_slices if axis == self.slice_axis else next(given) for axis in range(3))
        return z, y, x


@dataclass(frozen=True)
class PatchPlan:
    """Size (voxels) of what the network sees, how many at once, and the share of them that must show a structure.

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
class TrainingPlan:
    """How long and how the network learns.

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
    """What a configuration is expected to take; estimates by arithmetic.

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
        previous: the configuration whose label maps are further input channels, one a structure; null for none.
        footprint: null where it was not estimated.
        why: a sentence for each chosen value, by its dotted key.
    """

    previous: str | None
    space: SpacePlan
    patch: PatchPlan
    network: NetworkPlan
    training: TrainingPlan
    inference: InferencePlan
    postprocess: tuple[PostprocessRule, ...]
    footprint: Footprint | None
    why: dict[str, str]

    @property
    def decisions(self) -> Configuration:
        """Without reasons and estimates: what training and prediction follow."""
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
        """What the network's input must be a multiple of along (z, y, x)."""
        return self.space.in_volume(self.network_divisors, 1)

    @property
    def network_divisors(self) -> tuple[int, ...]:
        """The product of the strides along each axis of the patch."""
        return tuple(math.prod(row[axis] for row in self.network.strides) for axis in range(self.ndim))


@dataclass(frozen=True)
class Origin:
    """Where a plan comes from: the fingerprint it was made of, the budget, the version of autoseg, the family of networks.

    Args:
        gmacs_per_s: the speed of the device that times are reckoned with, in 10⁹ multiply-accumulates a second.
        compute: what convolutions compute in there, which memory is reckoned with.
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


@dataclass(frozen=True)
class Plan:
    """One file describes one dataset: shared data facts and one or more configurations, each complete.

    Args:
        first: the configuration to train first; what `auto` means.
    """

    schema_version: int
    name: str
    task: Literal["segmentation"]
    data: DataPlan
    first: str
    configurations: dict[str, Configuration]
    origin: Origin
    why: dict[str, str]

    def configuration(self, name: str | None) -> tuple[str, Configuration]:
        """The named configuration; None or `auto` is the one to train first.

        Raises:
            UsageError: the plan has none of that name.
        """
        chosen = self.first if name in (None, AUTO) else name
        if chosen not in self.configurations:
            raise UsageError(
                f"the plan has no configuration '{chosen}'{nearest(chosen, self.configurations)}",
                allowed=", ".join((*self.configurations, AUTO)),
            )
        return chosen, self.configurations[chosen]

    def prepared_as(self, name: str) -> str:
        """The first configuration with the same grid: both are trained on the same prepared cases."""
        space = self.configurations[name].space
        return next(other for other, c in self.configurations.items() if c.space == space)

    def input_channels(self, name: str) -> int:
        """Channels that the network of a configuration sees."""
        cascaded = self.configurations[name].previous is not None
        return len(self.data.channels) + (len(self.data.labels.names) if cascaded else 0)


def load_plan(path: Path) -> Plan:
    """Reads and validates a plan.

    Raises:
        UsageError: no such file.
        PlanError: malformed, of another schema version, or contradictory; names the key.
    """
    if not path.is_file():
        raise UsageError("no plan", file=path, fix="autoseg plan_and_preprocess -d DATASET")
    return parse_plan(path.read_text(encoding="utf-8"), path)


def parse_plan(text: str, source: str | Path) -> Plan:
    """`load_plan` from text; `source` names it in messages."""
    plan = from_json(Plan, _upgraded(text, source), source)
    for name, configuration in plan.configurations.items():
        _validate(configuration, f"configurations.{name}", source)
        alone = [other for other, c in plan.configurations.items() if c.previous is None and other != name]
        if configuration.previous is not None and configuration.previous not in alone:
            raise PlanError(
                f"'configurations.{name}.previous' must name another configuration, one that needs none itself"
                f"{nearest(configuration.previous, alone)}",
                file=source,
                found=configuration.previous,
                allowed=", ".join(("null", *alone)),
            )
    for unknown in set(plan.data.unseen) - set(plan.data.labels.names):
        raise PlanError(
            f"'data.unseen' names an unknown structure{nearest(unknown, plan.data.labels.names)}",
            file=source,
            found=unknown,
            allowed=", ".join(plan.data.labels.names),
        )
    if not plan.configurations:
        raise PlanError("a plan needs a configuration", file=source)
    if plan.first not in plan.configurations:
        raise PlanError(
            f"'first' names no configuration{nearest(plan.first, plan.configurations)}",
            file=source,
            found=plan.first,
            allowed=", ".join(plan.configurations),
        )
    return plan


def save_plan(plan: Plan, path: Path) -> None:
    """Writes the plan atomically."""
    write_text(path, to_json(plan))


def _upgraded(text: str, source: str | Path) -> str:
    """The text of a plan of an older schema as one of the present schema."""
    try:
        document = json.loads(text)
        version = document.get("schema_version", SCHEMA_VERSION)
    except (json.JSONDecodeError, AttributeError):
        return text  # from_json says what is wrong
    if version not in (1, SCHEMA_VERSION):
        raise PlanError(
            "the plan has another schema version",
            file=source,
            found=version,
            allowed=f"1 to {SCHEMA_VERSION}",
            fix="plan again, or use the version of autoseg that wrote it (origin.autoseg_version)",
        )
    return json.dumps(_from_version_1(document)) if version == 1 else text


def _from_version_1(document: dict[str, Any]) -> dict[str, Any]:
    """Version 2 added `first`, `previous`, `space.slice_axis`, `training.time_s` and `footprint`.

    What is malformed stays so, for `from_json` to name.
    """
    configurations = document.get("configurations")
    for c in configurations.values() if isinstance(configurations, dict) else ():
        if not isinstance(c, dict):
            continue
        c.setdefault("previous", None)
        c.setdefault("footprint", None)
        if isinstance(space := c.get("space"), dict) and isinstance(spacing := space.get("spacing_mm"), list):
            space.setdefault("slice_axis", 0 if len(spacing) == 2 else None)
        if isinstance(training := c.get("training"), dict):
            training.setdefault("time_s", None)
    if isinstance(configurations, dict) and configurations:
        document.setdefault("first", next(iter(configurations)))
    if isinstance(origin := document.get("origin"), dict):
        origin.setdefault("family", "plain")
        origin.setdefault("gmacs_per_s", None)
        origin.setdefault("compute", None)
        origin.setdefault("recipe", "adamw_cosine")
    return document | {"schema_version": SCHEMA_VERSION}


def _validate(c: Configuration, where: str, source: str | Path) -> None:
    """Everything that a hand edit could break, checked before anything is computed with it."""

    def check(ok: bool, key: str, found: object, allowed: str) -> None:
        if not ok:
            raise PlanError(f"'{where}.{key}' cannot be used", file=source, found=found, allowed=allowed)

    stages, ndim = len(c.network.features), c.ndim
    check(ndim in (2, 3), "patch.patch_size", c.patch.patch_size, "two or three numbers")
    check(len(c.space.spacing_mm) == ndim, "space.spacing_mm", c.space.spacing_mm, f"{ndim} numbers, as patch_size")
    check(min(c.space.spacing_mm) > 0, "space.spacing_mm", c.space.spacing_mm, "positive mm")
    if ndim == 2:
        check(c.space.slice_axis in (0, 1, 2), "space.slice_axis", c.space.slice_axis, "0 (z), 1 (y), 2 (x)")
    else:
        check(c.space.slice_axis is None, "space.slice_axis", c.space.slice_axis, "null, since patch_size has three numbers")
    check(c.space.image_order in (0, 1, 3), "space.image_order", c.space.image_order, "0, 1, 3")
    check(c.space.label_order in (0, 1), "space.label_order", c.space.label_order, "0, 1")
    check(c.patch.batch_size >= 1, "patch.batch_size", c.patch.batch_size, "1 or more")
    check(0 <= c.patch.foreground_fraction <= 1, "patch.foreground_fraction", c.patch.foreground_fraction, "0…1")
    check(stages >= 2 and min(c.network.features) >= 1, "network.features", c.network.features, "two or more positive numbers")
    for key in ("strides", "kernel_sizes"):
        rows = getattr(c.network, key)
        check(
            len(rows) == stages and all(len(r) == ndim and min(r) >= 1 for r in rows), f"network.{key}", rows, f"{stages}×{ndim}"
        )
    check(max(c.network.strides[0]) == 1, "network.strides[0]", c.network.strides[0], "all 1")
    check(
        all(k % 2 for row in c.network.kernel_sizes for k in row), "network.kernel_sizes", c.network.kernel_sizes, "odd numbers"
    )
    for key, count in (("encoder_blocks", stages), ("decoder_blocks", stages - 1)):
        blocks = getattr(c.network, key)
        check(len(blocks) == count and min(blocks) >= 1, f"network.{key}", blocks, f"{count} positive numbers")
    for axis, (size, divisor) in enumerate(zip(c.patch.patch_size, c.network_divisors)):
        check(
            size >= 1 and size % divisor == 0,
            f"patch.patch_size[{axis}]",
            size,
            f"a multiple of {divisor}, the product of its strides",
        )
    t = c.training
    check(t.epochs >= 1 and t.steps_per_epoch >= 1, "training.epochs", f"{t.epochs} × {t.steps_per_epoch}", "1 or more")
    check(t.time_s is None or t.time_s >= LEAST_TIME_S, "training.time_s", t.time_s, f"{LEAST_TIME_S:g} or more, or null")
    check(t.learning_rate > 0, "training.learning_rate", t.learning_rate, "above 0")
    check(t.weight_decay >= 0, "training.weight_decay", t.weight_decay, "0 or more")
    check(0 <= t.warmup_fraction < 1, "training.warmup_fraction", t.warmup_fraction, "0…1")
    check(0 <= t.ema_decay < 1, "training.ema_decay", t.ema_decay, "0…1")
    check(0 <= c.inference.overlap < 1, "inference.overlap", c.inference.overlap, "0…1")
    for key, axes in (("training.mirror_axes", t.mirror_axes), ("inference.mirror_axes", c.inference.mirror_axes)):
        check(set(axes) <= {0, 1, 2}, key, axes, "0 (z), 1 (y), 2 (x)")
