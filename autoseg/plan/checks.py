"""Checks of everything that an edit by hand could break, before anything is computed with it."""

from __future__ import annotations

from pathlib import Path

from autoseg.errors import PlanError, nearest
from autoseg.plan.model import LEAST_TIME_S, Configuration, DataPlan
from autoseg.plan.plan import Plan
from autoseg.plan.plugin_names import check_names
from autoseg.plan.size_checks import Check, check_sizes
from autoseg.system.names import check_name

MOST_OVERLAP = 0.95  # of neighbouring windows: 8000 windows where there was one, along three axes
MOST_CONFIGURATIONS = 100


def check_plan(plan: Plan, source: str | Path) -> None:
    """Checks the values of a plan, each alone and against the others.

    Args:
        source: the plan's file, for messages.

    Raises:
        PlanError: a value that cannot be, or that contradicts another one; names its key.
    """
    if len(plan.configurations) > MOST_CONFIGURATIONS:
        found = f"{len(plan.configurations)} configurations"
        raise PlanError("the plan has too many configurations", file=source, found=found, allowed=MOST_CONFIGURATIONS)
    _check_data(plan.data, source)
    for name, configuration in plan.configurations.items():
        check_name(name, "a configuration", PlanError, source, "under 'configurations'")
        check_names(configuration, f"configurations.{name}", source)
        _check_configuration(configuration, f"configurations.{name}", source)
        _check_landmarks(configuration, plan, f"configurations.{name}", source)
        first_stages = [other for other, c in plan.configurations.items() if c.previous_stage is None and other != name]
        if configuration.previous_stage is not None and configuration.previous_stage not in first_stages:
            raise PlanError(
                f"'configurations.{name}.previous_stage' must name another configuration, one that needs none itself"
                f"{nearest(configuration.previous_stage, first_stages)}",
                file=source,
                found=configuration.previous_stage,
                allowed=", ".join(("null", *first_stages)),
            )
    _check_ladder(plan, source)
    for unknown in set(plan.data.unseen) - set(plan.data.labels.names):
        raise PlanError(
            f"'data.unseen' names an unknown structure{nearest(unknown, plan.data.labels.names)}",
            file=source,
            found=unknown,
            allowed=", ".join(plan.data.labels.names),
        )
    if not plan.configurations:
        raise PlanError("a plan needs a configuration", file=source)
    if plan.default_configuration not in plan.configurations:
        raise PlanError(
            f"'default_configuration' names no configuration{nearest(plan.default_configuration, plan.configurations)}",
            file=source,
            found=plan.default_configuration,
            allowed=", ".join(plan.configurations),
        )


def _check_data(data: DataPlan, source: str | Path) -> None:
    """Checks that there is something to see and to learn, and the statistics that intensities are scaled by."""
    if not data.channels:
        raise PlanError("'data.channels' cannot be used", file=source, found="[]", allowed="a channel or more")
    if not (data.labels.names or data.landmarks.names):
        raise PlanError("the plan has neither structures nor landmarks", file=source, found="'data.labels' and 'data.landmarks'")
    for i, channel in enumerate(data.channels):
        check = _checker(f"data.channels[{i}]", source)
        if channel.normalization == "ct":
            check(channel.std > 0, "std", channel.std, "above 0, for the normalization 'ct'")
            low, high = channel.percentile_00_5, channel.percentile_99_5
            check(low < high, "percentile_00_5", low, f"below percentile_99_5, {high}, for the normalization 'ct'")


def _check_ladder(plan: Plan, source: str | Path) -> None:
    """Checks that the rungs are configurations of the plan, and their numbers shares."""
    for i, rung in enumerate(plan.ladder):
        if rung.configuration not in plan.configurations:
            raise PlanError(
                f"'ladder[{i}].configuration' names no configuration{nearest(rung.configuration, plan.configurations)}",
                file=source,
                found=rung.configuration,
                allowed=", ".join(plan.configurations),
            )
        check = _checker(f"ladder[{i}]", source)
        check(rung.factor >= 1, "factor", rung.factor, "1 or more")
        check(0 <= rung.ceiling <= 1, "ceiling", rung.ceiling, "0…1")
        check(0 < rung.covered <= 1, "covered", rung.covered, "above 0, 1 at most")
        check(rung.cases > 0, "cases", rung.cases, "above 0")


def _checker(where: str, source: str | Path) -> Check:
    """A function that raises for a value of a configuration that cannot be used: (usable, key, value, allowed)."""

    def check(usable: bool, key: str, value: object, allowed: str) -> None:
        if not usable:
            raise PlanError(f"'{where}.{key}' cannot be used", file=source, found=value, allowed=allowed)

    return check


def _check_configuration(c: Configuration, where: str, source: str | Path) -> None:
    check = _checker(where, source)
    stages, ndim = len(c.network.features), c.ndim
    check_sizes(c, check)
    check(ndim in (2, 3), "patch.patch_size", c.patch.patch_size, "two or three numbers")
    check(len(c.space.spacing_mm) == ndim, "space.spacing_mm", c.space.spacing_mm, f"{ndim} numbers, as patch_size")
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
    check(0 <= c.inference.overlap <= MOST_OVERLAP, "inference.overlap", c.inference.overlap, f"0…{MOST_OVERLAP}")
    for key, axes in (("training.mirror_axes", t.mirror_axes), ("inference.mirror_axes", c.inference.mirror_axes)):
        check(set(axes) <= {0, 1, 2}, key, axes, "0 (z), 1 (y), 2 (x)")
        check(len(set(axes)) == len(axes), key, axes, "each axis once")
        check(c.space.slice_axis not in axes, key, axes, f"not {c.space.slice_axis}, along which a slice has a single pixel")


def _check_landmarks(c: Configuration, plan: Plan, where: str, source: str | Path) -> None:
    """Checks the values that landmarks demand, and those that only they allow."""
    check = _checker(where, source)
    structures, landmarks = plan.data.labels.names, plan.data.landmarks.names
    if structures:
        check(max(c.network.strides[0]) == 1, "network.strides[0]", c.network.strides[0], "all 1, for label maps")
    if c.landmarks is None:
        check(not landmarks, "landmarks", None, f"an object, since data.landmarks has {len(landmarks)}")
        return
    check(bool(landmarks), "landmarks", "an object", "null, since data.landmarks is empty")
    sigma, scn = c.landmarks.sigma_mm, c.landmarks.scn
    check(len(sigma) == c.ndim and min(sigma) > 0, "landmarks.sigma_mm", sigma, f"{c.ndim} positive numbers")
    if scn is not None:
        check(
            len(scn.factor) == c.ndim and min(scn.factor) >= 1, "landmarks.scn.factor", scn.factor, f"{c.ndim} positive numbers"
        )
        check(scn.kernel % 2 == 1 and scn.kernel > 0, "landmarks.scn.kernel", scn.kernel, "an odd number")
        check(scn.layers >= 1, "landmarks.scn.layers", scn.layers, "1 or more")
        check(scn.features >= 1, "landmarks.scn.features", scn.features, "1 or more")
        learns_values = c.landmarks.loss == "mse"
        check(c.landmarks.loss != "dsnt", "landmarks.scn", "a branch", "null with dsnt, whose maps cannot say 'not here'")
        allowed = "product with the loss mse, gate or logit_sum with the others"
        check((scn.combine == "product") == learns_values, "landmarks.scn.combine", scn.combine, allowed)
