"""The recipes by which a network learns and predicts: the same for every dataset, but for mirrored axes and batch Dice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autoseg.plan import InferencePlan, TrainingPlan
from autoseg.planner.budget import Budget
from autoseg.planner.lowres import COVER
from autoseg.planner.wording import billions, percent, seconds

UNUSED = "not used: the dataset has no label maps"
STEPS = 50_000  # without a limit of time
STEPS_PER_EPOCH = 250  # nnU-Net


def plan_training(
    mirror_axes: tuple[int, ...],
    budget: Budget,
    step_gmacs: float,
    *,
    covered: float,
    slices: bool,
    labelled: bool = True,
) -> tuple[TrainingPlan, dict[str, str]]:
    """Chooses how the network learns, with reasons by dotted key.

    Args:
        step_gmacs: 10⁹ multiply-accumulates of a step.
        covered: share of the median case that a patch shows.
        slices: whether patches are two-dimensional.
        labelled: whether there are label maps.
    """
    plan, reasons = RECIPES[budget.recipe]()
    steps, step_s = plan.epochs * plan.steps_per_epoch, step_gmacs / budget.speed
    batch_dice = labelled and (slices or covered < COVER)
    time = f"no limit was given; {steps} steps of about {step_s:.2g} s take about {seconds(steps * step_s)}"
    if budget.time_s is not None:
        time = f"the limit that was given; about {budget.steps(step_s):.0f} steps of {step_s:.2g} s, and the validation"
    loss = "cross entropy teaches every voxel, Dice makes small structures count as much as large ones (nnU-Net)"
    return replace(plan, time_s=budget.time_s, mirror_axes=mirror_axes, batch_dice=batch_dice), {
        "training.time_s": f"{time} at {billions(1e9 * budget.speed)} multiply-accumulates a second",
        **reasons,
        "training.loss": loss if labelled else UNUSED,
        "training.batch_dice": _batch_dice_reason(covered, slices) if labelled else UNUSED,
    }


def n_steps(budget: Budget, step_gmacs: float) -> float:
    """Number of steps of a training: as many as fit into the time, but no more than its recipe takes."""
    plan, _ = RECIPES[budget.recipe]()
    return min(float(plan.epochs * plan.steps_per_epoch), budget.steps(step_gmacs / budget.speed))


def _batch_dice_reason(covered: float, slices: bool) -> str:
    if slices:
        return "on in 2D, where most slices lack some structure (nnU-Net)"
    if covered < COVER:
        return f"on, since a patch shows {percent(covered)} of a case and may lack some structure (nnU-Net)"
    return f"off: a patch shows {percent(covered)} of a case, enough of each structure for a Dice of its own (nnU-Net)"


def _adamw_constant() -> tuple[TrainingPlan, dict[str, str]]:
    """A rate that stays high, strong decay and averaged weights: chosen by measurement (benchmarks/results/recipes.md)."""
    plan, reasons = _adamw_cosine()
    return replace(plan, weight_decay=0.3, schedule="constant"), {
        **reasons,
        "training.weight_decay": "weights before a norm grow without it, so that steps change them less and less and the network "
        "overfits small datasets; 30 times the default of AdamW, the same for every dataset",
        "training.schedule": "the learning rate stays high: if it fell to zero, the network would overfit small datasets; the "
        "averaged weights have settled nevertheless",
    }


def _adamw_cosine() -> tuple[TrainingPlan, dict[str, str]]:
    """A rate that falls to zero over the training."""
    plan = TrainingPlan(
        epochs=STEPS // STEPS_PER_EPOCH,
        steps_per_epoch=STEPS_PER_EPOCH,
        time_s=None,
        optimizer="adamw",
        learning_rate=3e-3,
        weight_decay=1e-2,
        schedule="cosine",
        warmup_fraction=0.02,
        ema_decay=0.999,
        augmentation="default",
        mirror_axes=(),
    )
    return plan, {
        "training.epochs": f"{STEPS} steps, a fifth of nnU-Net's 250000; the same for every dataset",
        "training.steps_per_epoch": "as in nnU-Net: an epoch is a count of steps, not a pass over the cases",
        "training.optimizer": "AdamW adapts the step of each weight, so one learning rate serves all datasets",
        "training.learning_rate": "chosen for short runs, three times the default of AdamW; the same for every dataset",
        "training.weight_decay": "default of AdamW, the same for every dataset",
        "training.schedule": "the learning rate falls to zero, so that the last weights have settled",
        "training.warmup_fraction": f"{100 * plan.warmup_fraction:g} % of the steps, until AdamW has estimated the gradients",
        "training.ema_decay": "predictions use weights averaged over the last tenth of the steps, "
        f"{1 / (1 - plan.ema_decay):.0f} at most",
        "training.augmentation": "on: medical datasets are small",
    }


def _sgd_poly() -> tuple[TrainingPlan, dict[str, str]]:
    """nnU-Net's default trainer (Isensee et al., Nature Methods 2021)."""
    plan = TrainingPlan(
        epochs=1000,
        steps_per_epoch=STEPS_PER_EPOCH,
        time_s=None,
        optimizer="sgd",
        learning_rate=1e-2,
        weight_decay=3e-5,
        schedule="poly",
        warmup_fraction=0.0,
        ema_decay=0.0,
        augmentation="default",
        mirror_axes=(),
    )
    return plan, {
        "training.epochs": "250000 steps (nnU-Net)",
        "training.steps_per_epoch": "an epoch is a count of steps, not a pass over the cases (nnU-Net)",
        "training.optimizer": "SGD with Nesterov momentum 0.99 (nnU-Net)",
        "training.learning_rate": "nnU-Net",
        "training.weight_decay": "of all weights (nnU-Net)",
        "training.schedule": "(1 - t)^0.9, down to zero at the end (nnU-Net)",
        "training.warmup_fraction": "none (nnU-Net)",
        "training.ema_decay": "off: predictions use the last weights (nnU-Net)",
        "training.augmentation": "on: medical datasets are small",
    }


RECIPES = {"adamw_constant": _adamw_constant, "adamw_cosine": _adamw_cosine, "sgd_poly": _sgd_poly}


def plan_inference(mirror_axes: tuple[int, ...], one_sided: Sequence[str] = ()) -> tuple[InferencePlan, dict[str, str]]:
    """Chooses the sliding window, with reasons by dotted key.

    Args:
        mirror_axes: of training.
        one_sided: landmarks without a partner on the other side, which a mirrored image would misplace.
    """
    reason = "the axes that training mirrors"
    if one_sided and mirror_axes:
        mirror_axes, reason = (), f"none: a mirrored image would misplace '{one_sided[0]}', which has no partner"
    return InferencePlan(overlap=0.5, mirror_axes=mirror_axes), {
        "inference.overlap": "half a window, so that every voxel is near the middle of one (nnU-Net)",
        "inference.mirror_axes": reason,
    }
