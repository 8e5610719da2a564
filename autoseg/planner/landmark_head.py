"""The landmarks of a configuration: width of their targets, loss, and a branch if memory and work allow it."""

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
from autoseg.planner.landmark_rules import LOSS, LOSS_REASON, target_sigma
from autoseg.planner.memory import allowed_overrun
from autoseg.planner.scn_rule import MOST_WORK, NO_SCN, ScnChoice, plan_scn, scn_macs
from autoseg.planner.wording import number, percent


def plan_landmarks(
    architecture: Architecture, budget: Budget, statistics: LandmarkStatistics, cases: Sequence[CaseFingerprint], space: SpacePlan
) -> tuple[Architecture, LandmarkPlan, dict[str, str]]:
    """The architecture with the branch if there is one, the plan's `landmarks`, and reasons by dotted key."""
    size = map_size(architecture.network, architecture.topology.patch_size)
    patch, spacing = map_grid(architecture.network, architecture.topology.patch_size, space, cases)
    sigma = target_sigma(statistics, [s for axis, s in enumerate(spacing) if axis != space.slice_axis])
    io = architecture.cost.io
    work = multiply_accumulates(architecture.network, architecture.topology.patch_size, io.without_landmarks)
    points = [case.landmarks for case in cases]
    if io.n_previous_classes and not io.n_classes:  # of landmarks, not of structures
        scn = ScnChoice(None, f"{NO_SCN}the previous stage has seen the whole case")
    else:
        scn = plan_scn(statistics, points, patch, spacing, work, slice_axis=space.slice_axis)
    if scn.scn:
        with_scn = replace(architecture, cost=replace(architecture.cost, io=replace(io, scn=scn.scn)))
        if excess := _excess(with_scn, budget, scn_macs(scn.scn, len(statistics.landmarks), size) / work):
            scn = ScnChoice(None, f"{NO_SCN}{excess}")
        else:
            architecture = with_scn
    return (
        architecture,
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
    """Size (voxels) and spacing (mm) of a patch's landmark maps, along (z, y, x).

    Through slices a map is one voxel, of the thickest slice.
    """
    thickest = max(case.spacing[space.slice_axis or 0] for case in cases)
    spacing = [s * step for s, step in zip(space.spacing_mm, network.strides[0])]
    return space.in_volume(map_size(network, patch_size), 1), space.in_volume(spacing, thickest)


def _excess(architecture: Architecture, budget: Budget, share: float) -> str:
    """The reason for which the branch takes too much memory or work, or nothing.

    Args:
        share: its work over that of the network.
    """
    needed = architecture.cost.training_gb(architecture.topology, architecture.batch_size)
    if needed > allowed_overrun(architecture.cost) * budget.memory_gb:
        return f"with one a training would take {number(round(needed, 2))} GB"
    return f"even a narrow one would take {percent(share)} of the network's work" if share > MOST_WORK else ""
