"""What a configuration does for landmarks: how wide their targets are, what is learnt, and a branch if there is room for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autoseg.fingerprint.case import CaseFingerprint
from autoseg.fingerprint.landmarks import LandmarkStatistics
from autoseg.footprint import map_size, multiply_accumulates
from autoseg.imaging.geometry import Triple
from autoseg.plan import LandmarkPlan, NetworkPlan, SpacePlan
from autoseg.planner.architecture import Architecture
from autoseg.planner.budget import Budget
from autoseg.planner.landmark_rules import LOSS, LOSS_REASON, MOST_WORK, NO_SCN, ScnChoice, plan_scn, scn_macs, target_sigma
from autoseg.planner.memory import overdraft
from autoseg.planner.wording import number, percent


def plan_landmarks(
    chosen: Architecture, budget: Budget, facts: LandmarkStatistics, cases: Sequence[CaseFingerprint], space: SpacePlan
) -> tuple[Architecture, LandmarkPlan, dict[str, str]]:
    """The architecture with the branch if there is one, the plan's `landmarks`, and reasons by dotted key."""
    size = map_size(chosen.network, chosen.topology.patch_size)
    patch, spacing = map_grid(chosen.network, chosen.topology.patch_size, space, cases)
    sigma = target_sigma(facts, [s for axis, s in enumerate(spacing) if axis != space.slice_axis])
    io = chosen.cost.io
    work = multiply_accumulates(chosen.network, chosen.topology.patch_size, io.without_landmarks)
    points = [case.landmarks for case in cases]
    if io.n_previous_classes and not io.n_classes:  # of landmarks, not of structures
        scn = ScnChoice(None, f"{NO_SCN}the stage before has seen the whole")
    else:
        scn = plan_scn(facts, points, patch, spacing, work, slice_axis=space.slice_axis)
    with_scn = replace(chosen, cost=replace(chosen.cost, io=replace(io, scn=scn.scn)))
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


def map_grid(
    network: NetworkPlan, patch_size: Sequence[int], space: SpacePlan, cases: Sequence[CaseFingerprint]
) -> tuple[Triple, tuple[float, float, float]]:
    """Voxels and mm, along (z, y, x), of the maps that a network makes of a patch; through slices one voxel of the thickest."""
    thickest = max(case.spacing[space.slice_axis or 0] for case in cases)
    spacing = [s * step for s, step in zip(space.spacing_mm, network.strides[0])]
    return space.in_volume(map_size(network, patch_size), 1), space.in_volume(spacing, thickest)


def _too_much(chosen: Architecture, budget: Budget, share: float) -> str:
    """Why there is no room for the branch, or nothing.

    Args:
        share: its work over that of the network.
    """
    needed = chosen.cost.training_gb(chosen.topology, chosen.batch_size)
    if needed > overdraft(chosen.cost) * budget.memory_gb:
        return f"with one a training would take {number(round(needed, 2))} GB"
    return f"even a narrow one would take {percent(share)} of the network's work" if share > MOST_WORK else ""
