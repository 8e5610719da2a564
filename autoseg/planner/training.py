"""How the network learns and predicts. The same for every dataset, except for the mirrored axes."""

from __future__ import annotations

from autoseg.plan import POSTPROCESS_RULES, InferencePlan, PostprocessRule, TrainingPlan
from autoseg.planner.processor import Budget
from autoseg.planner.wording import billions, seconds

STEPS = 50_000  # without a limit of time
STEPS_PER_EPOCH = 250  # nnU-Net


def plan_training(mirror_axes: tuple[int, ...], budget: Budget, step_gmacs: float) -> tuple[TrainingPlan, dict[str, str]]:
    """The schedule, with reasons by dotted key.

    Args:
        step_gmacs: 10⁹ multiply-accumulates of a step.
    """
    plan = TrainingPlan(
        epochs=STEPS // STEPS_PER_EPOCH,
        steps_per_epoch=STEPS_PER_EPOCH,
        time_s=budget.time_s,
        optimizer="adamw",
        learning_rate=3e-3,
        weight_decay=1e-2,
        schedule="cosine",
        warmup_fraction=0.02,
        ema_decay=0.999,
        augmentation="default",
        mirror_axes=mirror_axes,
    )
    step_s = step_gmacs / budget.speed
    time = f"none was asked for; {STEPS} steps of about {step_s:.2g} s take about {seconds(STEPS * step_s)}"
    if budget.time_s is not None:
        time = f"asked for; about {budget.steps(step_s):.0f} steps of {step_s:.2g} s, and the validation"
    return plan, {
        "training.time_s": f"{time} at {billions(1e9 * budget.speed)} multiply-accumulates a second",
        "training.epochs": f"{STEPS} steps, a fifth of nnU-Net's 250000; the same for every dataset",
        "training.steps_per_epoch": "as in nnU-Net: an epoch is a count of steps, not a pass over the cases",
        "training.optimizer": "AdamW adapts the step of each weight, so one learning rate serves all datasets",
        "training.learning_rate": "default for AdamW, the same for every dataset",
        "training.weight_decay": "default of AdamW, the same for every dataset",
        "training.schedule": "the learning rate ends at zero, so the last weights are settled ones",
        "training.warmup_fraction": f"{100 * plan.warmup_fraction:g} % of the steps, until AdamW knows the size of the gradients",
        "training.ema_decay": f"predictions use weights averaged over about {1 / (1 - plan.ema_decay):.0f} steps",
        "training.augmentation": "on: medical datasets are small",
    }


def plan_inference(mirror_axes: tuple[int, ...]) -> tuple[InferencePlan, dict[str, str]]:
    """The sliding window, with reasons by dotted key."""
    return InferencePlan(overlap=0.5, mirror_axes=mirror_axes), {
        "inference.overlap": "half a window, so that every voxel is near the middle of one (nnU-Net)",
        "inference.mirror_axes": "those that training has mirrored",
    }


def plan_postprocess() -> tuple[tuple[PostprocessRule, ...], dict[str, str]]:
    """The rules that are tried, with their reason."""
    return POSTPROCESS_RULES, {"postprocess": "tried on the validation cases, kept where the Dice rises (nnU-Net)"}
