"""The plan: every decision about a dataset, with its reason. Dataclasses, validation, JSON in and out; no planning here."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from autoseg.errors import PlanError, UsageError, nearest
from autoseg.files import write_text
from autoseg.labels import LabelSet
from autoseg.records import from_json, to_json

SCHEMA_VERSION = 1
NORMALIZATIONS = ("ct", "zscore", "zscore_nonzero", "rescale_0_1", "rgb_0_1", "none")
NETWORKS = ("plain_unet", "residual_unet")
SCHEDULES = ("cosine", "poly", "one_cycle", "step", "multistep", "exponential", "warm_restarts", "constant")
OPTIMIZERS = ("adamw", "adam", "sgd", "rmsprop")
LOSSES = ("dice_ce", "dice_focal", "dice", "ce", "balanced_ce", "topk_ce", "focal")
AUGMENTATIONS = ("default", "none")
POSTPROCESS_RULES = ("largest_foreground", "largest_per_structure")


@dataclass(frozen=True)
class ChannelPlan:
    """One input channel: how its intensities are normalised, and the foreground statistics that `ct` needs."""

    name: str
    normalization: str
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
    """The grid that cases are brought to. Spacing in mm along (z, y, x); two numbers (y, x) for 2D."""

    orientation: str
    spacing_mm: tuple[float, ...]
    crop: str
    image_order: int
    label_order: int


@dataclass(frozen=True)
class PatchPlan:
    """Size (voxels) of what the network sees, how many at once, and the share of them that must show a structure."""

    patch_size: tuple[int, ...]
    batch_size: int
    foreground_fraction: float


@dataclass(frozen=True)
class NetworkPlan:
    """A U-Net, one entry per encoder stage, finest first. `strides[i]` leads into stage i."""

    kind: str
    features: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]
    deep_supervision: bool


@dataclass(frozen=True)
class TrainingPlan:
    """How long and how the network learns. `mirror_axes` counts the array's spatial axes: 0 z, 1 y, 2 x. With `batch_dice` the
    Dice of the loss is that of the whole batch, not of each sample."""

    epochs: int
    steps_per_epoch: int
    optimizer: str
    learning_rate: float
    weight_decay: float
    schedule: str
    warmup_fraction: float
    ema_decay: float
    augmentation: str
    mirror_axes: tuple[int, ...]
    loss: str = "dice_ce"
    batch_dice: bool = False


@dataclass(frozen=True)
class InferencePlan:
    """Sliding window: overlap of neighbouring windows (0…1), Gaussian weight, and the axes mirrored and averaged."""

    overlap: float
    mirror_axes: tuple[int, ...]


@dataclass(frozen=True)
class Configuration:
    """One complete way to train on the dataset. `why` holds a sentence for each chosen value, by its dotted key."""

    space: SpacePlan
    patch: PatchPlan
    network: NetworkPlan
    training: TrainingPlan
    inference: InferencePlan
    postprocess: tuple[str, ...]
    why: dict[str, str]

    @property
    def ndim(self) -> int:
        return len(self.patch.patch_size)

    @property
    def window(self) -> tuple[int, int, int]:
        """The patch as a (z, y, x) shape; a 2D patch is one slice."""
        return (1,) * (3 - self.ndim) + self.patch.patch_size  # type: ignore[return-value]

    @property
    def divisors(self) -> tuple[int, int, int]:
        """What the network's input must be a multiple of along (z, y, x)."""
        products = tuple(math.prod(row[axis] for row in self.network.strides) for axis in range(self.ndim))
        return (1,) * (3 - self.ndim) + products  # type: ignore[return-value]


@dataclass(frozen=True)
class Origin:
    """Where a plan comes from: the fingerprint it was made of, the budget, the version of autoseg, the family of networks."""

    fingerprint: str
    memory_gb: float
    device: str
    autoseg_version: str
    family: str = "plain"  # plans of before there was a choice do not name it


@dataclass(frozen=True)
class Plan:
    """One file describes one dataset: shared data facts and one or more configurations, each complete."""

    schema_version: int
    name: str
    task: str
    data: DataPlan
    configurations: dict[str, Configuration]
    origin: Origin
    why: dict[str, str]

    def configuration(self, name: str | None) -> tuple[str, Configuration]:
        """The named configuration, or the first one.

        Raises:
            UsageError: the plan has none of that name.
        """
        chosen = name or next(iter(self.configurations))
        if chosen not in self.configurations:
            raise UsageError(
                f"the plan has no configuration '{chosen}'{nearest(chosen, self.configurations)}",
                allowed=", ".join(self.configurations),
            )
        return chosen, self.configurations[chosen]


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
    try:
        version = json.loads(text).get("schema_version", SCHEMA_VERSION)
    except (json.JSONDecodeError, AttributeError):
        version = SCHEMA_VERSION  # from_json says what is wrong
    if version != SCHEMA_VERSION:
        raise PlanError(
            "the plan has another schema version", file=source, found=version, allowed=SCHEMA_VERSION, fix="plan again"
        )
    plan = from_json(Plan, text, source)
    for name, configuration in plan.configurations.items():
        _validate(configuration, f"configurations.{name}", source)
    for i, channel in enumerate(plan.data.channels):
        _one_of(channel.normalization, NORMALIZATIONS, f"data.channels[{i}].normalization", source)
    for unknown in set(plan.data.unseen) - set(plan.data.labels.names):
        raise PlanError(
            f"'data.unseen' names an unknown structure{nearest(unknown, plan.data.labels.names)}",
            file=source,
            found=unknown,
            allowed=", ".join(plan.data.labels.names),
        )
    if not plan.configurations:
        raise PlanError("a plan needs a configuration", file=source)
    return plan


def save_plan(plan: Plan, path: Path) -> None:
    """Writes the plan atomically."""
    write_text(path, to_json(plan))


def _one_of(value: str, allowed: tuple[str, ...], where: str, source: str | Path) -> None:
    if value not in allowed:
        raise PlanError(f"'{where}' is unknown{nearest(value, allowed)}", file=source, found=value, allowed=", ".join(allowed))


def _validate(c: Configuration, where: str, source: str | Path) -> None:
    """Everything that a hand edit could break, checked before anything is computed with it."""

    def check(ok: bool, key: str, found: object, allowed: str) -> None:
        if not ok:
            raise PlanError(f"'{where}.{key}' cannot be used", file=source, found=found, allowed=allowed)

    stages, ndim = len(c.network.features), c.ndim
    check(ndim in (2, 3), "patch.patch_size", c.patch.patch_size, "two or three numbers")
    check(len(c.space.spacing_mm) == ndim, "space.spacing_mm", c.space.spacing_mm, f"{ndim} numbers, as patch_size")
    check(min(c.space.spacing_mm) > 0, "space.spacing_mm", c.space.spacing_mm, "positive mm")
    check(c.space.orientation == "LPS", "space.orientation", c.space.orientation, "LPS")
    check(c.space.crop in ("nonzero", "none"), "space.crop", c.space.crop, "nonzero, none")
    check(c.space.image_order in (0, 1, 3), "space.image_order", c.space.image_order, "0, 1, 3")
    check(c.space.label_order in (0, 1), "space.label_order", c.space.label_order, "0, 1")
    check(c.patch.batch_size >= 1, "patch.batch_size", c.patch.batch_size, "1 or more")
    check(0 <= c.patch.foreground_fraction <= 1, "patch.foreground_fraction", c.patch.foreground_fraction, "0…1")
    _one_of(c.network.kind, NETWORKS, f"{where}.network.kind", source)
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
    for axis, (size, divisor) in enumerate(zip(c.patch.patch_size, c.divisors[3 - ndim :])):
        check(
            size >= 1 and size % divisor == 0,
            f"patch.patch_size[{axis}]",
            size,
            f"a multiple of {divisor}, the product of its strides",
        )
    t = c.training
    check(t.epochs >= 1 and t.steps_per_epoch >= 1, "training.epochs", f"{t.epochs} × {t.steps_per_epoch}", "1 or more")
    check(t.learning_rate > 0, "training.learning_rate", t.learning_rate, "above 0")
    check(t.weight_decay >= 0, "training.weight_decay", t.weight_decay, "0 or more")
    check(0 <= t.warmup_fraction < 1, "training.warmup_fraction", t.warmup_fraction, "0…1")
    check(0 <= t.ema_decay < 1, "training.ema_decay", t.ema_decay, "0…1")
    _one_of(t.optimizer, OPTIMIZERS, f"{where}.training.optimizer", source)
    _one_of(t.schedule, SCHEDULES, f"{where}.training.schedule", source)
    _one_of(t.loss, LOSSES, f"{where}.training.loss", source)
    _one_of(t.augmentation, AUGMENTATIONS, f"{where}.training.augmentation", source)
    check(0 <= c.inference.overlap < 1, "inference.overlap", c.inference.overlap, "0…1")
    for key, axes in (("training.mirror_axes", t.mirror_axes), ("inference.mirror_axes", c.inference.mirror_axes)):
        check(set(axes) <= {0, 1, 2}, key, axes, "0 (z), 1 (y), 2 (x)")
    for rule in c.postprocess:
        _one_of(rule, POSTPROCESS_RULES, f"{where}.postprocess", source)
