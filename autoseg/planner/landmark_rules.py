"""Rules for landmarks: width of their targets, and whether a patch shows all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoseg.fingerprint.landmarks import CasePoints, LandmarkStatistics, patch_scale_needed
from autoseg.imaging.geometry import Triple
from autoseg.plan import LandmarkLossName
from autoseg.planner.wording import number, numbers, percent

LOSS: LandmarkLossName = "spatial_ce"
LOSS_REASON = "cross entropy over all voxels and 'not here': one peak a landmark, and the probability that it is there"
SIGMA_VOXELS = 1.0
"""Sigma in voxels of the maps. On the mouse skulls (maps of 0.42 mm, 300 steps, one seed) the error is
0.30 mm with 1 voxel, 0.35 mm with 1.5."""

MARGIN = 1.2  # of the patch over the extent of the landmarks: rotation and scaling in training need room
MOST_CASES = 0.9  # share of the cases that must fit


@dataclass(frozen=True)
class TargetSigma:
    """Standard deviation (mm) of the Gaussian that is a landmark's target, along the axes of the spacing, and its reason."""

    sigma_mm: tuple[float, ...]
    reason: str


@dataclass(frozen=True)
class Context:
    """The answer to whether a patch shows all landmarks of a case at once, with its reason.

    Args:
        fits: in nine of ten cases it does.
    """

    fits: bool
    reason: str


def target_sigma(statistics: LandmarkStatistics, spacing: Sequence[float]) -> TargetSigma:
    """Makes targets one voxel wide along each axis.

    Each landmark has a map of its own, so that targets of neighbours may overlap.

    Args:
        spacing: mm, of the maps that the network makes.
    """
    reason = f"a voxel of {numbers(spacing)} mm: narrow for precision, wide enough to be read between voxels"
    if (near_mm := statistics.neighbour_mm_p10) is not None:
        reason += f"; one landmark in ten is less than {number(near_mm)} mm from the next, which has a map of its own"
    return TargetSigma(tuple(SIGMA_VOXELS * s for s in spacing), reason)


def plan_context(statistics: LandmarkStatistics, cases: Sequence[CasePoints], patch: Triple, spacing: Sequence[float]) -> Context:
    """Decides whether a patch shows all landmarks of a case together.

    Args:
        patch, spacing: voxels and mm along (z, y, x); one voxel through the slices of a 2D network.
    """
    patch_mm = [n * s for n, s in zip(patch, spacing)]
    needed = patch_scale_needed(cases, patch_mm, MARGIN)
    share = float((needed <= 1 + 1e-9).mean()) if len(needed) else 1.0
    shown = (
        f"a patch of {numbers(patch_mm)} mm shows all landmarks, which spread over {numbers(statistics.extent_mm)} mm, with "
        f"{percent(MARGIN - 1)} to spare or to the edge of the image in {percent(share)} of the cases"
    )
    if share >= MOST_CASES:
        return Context(True, shown)
    return Context(False, f"{shown}: windows overlap, and each sees some of them")
