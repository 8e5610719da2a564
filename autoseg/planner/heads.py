"""What a configuration does for landmarks: how wide their targets are, what is learnt, and a branch if there is room for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autoseg.facts import CaseFacts
from autoseg.footprint import map_size, multiply_accumulates
from autoseg.landmark_facts import LandmarkFacts
from autoseg.plan import LandmarkPlan, SpacePlan
from autoseg.planner.architecture import Architecture
from autoseg.planner.landmarks import LOSS, LOSS_REASON, MOST_WORK, NO_SCN, ScnChoice, plan_scn, scn_macs, target_sigma
from autoseg.planner.memory import overdraft
from autoseg.planner.processor import Budget
from autoseg.planner.wording import number, percent


def plan_landmarks(
    chosen: Architecture, budget: Budget, facts: LandmarkFacts, cases: Sequence[CaseFacts], space: SpacePlan
) -> tuple[Architecture, LandmarkPlan, dict[str, str]]:
    """The architecture with the branch if there is one, the plan's `landmarks`, and reasons by dotted key."""
    stride = chosen.network.strides[0]
    spacing = tuple(s * step for s, step in zip(space.spacing_mm, stride))
    size = map_size(chosen.network, chosen.topology.patch_size)
    sigma = target_sigma(facts, spacing)
    work = multiply_accumulates(chosen.network, chosen.topology.patch_size, chosen.sample.seen_channels, chosen.sample.n_classes)
    thickest = max(case.spacing[space.slice_axis or 0] for case in cases)
    points = [case.landmarks for case in cases]
    scn = plan_scn(facts, points, space.in_volume(size, 1), space.in_volume(spacing, thickest), work, slice_axis=space.slice_axis)
    with_scn = replace(chosen, sample=replace(chosen.sample, scn=scn.scn))
    if scn.scn:
        off = _too_much(with_scn, budget, scn_macs(scn.scn, len(facts.landmarks), size) / work)
        scn, with_scn = (ScnChoice(None, f"{NO_SCN}{off}"), chosen) if off else (scn, with_scn)
    return (
        with_scn,
        LandmarkPlan(sigma.sigma_mm, LOSS, scn.scn),
        {
            "landmarks.sigma_mm": f"of the network's maps: {sigma.reason}",
            "landmarks.loss": LOSS_REASON,
            "landmarks.scn": scn.reason,
            **{f"landmarks.scn.{key}": reason for key, reason in scn.reasons.items()},
        },
    )


def _too_much(chosen: Architecture, budget: Budget, share: float) -> str:
    """Why there is no room for the branch, or nothing.

    Args:
        share: its work over that of the network.
    """
    needed = chosen.sample.training_gb(chosen.topology, chosen.batch_size)
    if needed > overdraft(chosen.sample) * budget.memory_gb:
        return f"with one a training would take {number(round(needed, 2))} GB"
    return f"even a narrow one would take {percent(share)} of the network's work" if share > MOST_WORK else ""
