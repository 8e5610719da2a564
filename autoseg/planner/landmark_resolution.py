"""The resolution at which a patch shows all landmarks of a case, for datasets without label maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, prod

import numpy as np

from autoseg.fingerprint.case import CaseFingerprint
from autoseg.fingerprint.landmarks import LandmarkStatistics, extent_needed
from autoseg.planner.architecture import Architecture, plan_architecture
from autoseg.planner.budget import Budget
from autoseg.planner.cost import NetworkCost
from autoseg.planner.landmark_rules import MARGIN, MOST_CASES, Context, plan_context
from autoseg.planner.spacing import coarser, median_shape
from autoseg.planner.wording import number

STEP = 1.05  # the spacing grows by 5 % at a time
MOST_COARSER = 2.0
"""Times the median spacing, along some axis, that one stage may have. Positions are decoded to a fraction of a voxel, so that
such a grid costs little; what is found on a still coarser one a second stage refines. A convention, not measured."""


@dataclass(frozen=True)
class LandmarkGrid:
    """A grid and a network for it; axes in canonical order, two of them for slices.

    Args:
        spacing: mm.
        shape: voxels that the patch is to show: the median case, or more where landmarks of large cases ask for it.
        context: whether a patch shows all landmarks of a case.
        whole: whether it shows the whole of it, so that training and prediction see the same.
        times: the spacing of the cases.
    """

    spacing: tuple[float, ...]
    shape: tuple[float, ...]
    architecture: Architecture
    context: Context
    whole: bool
    times: float

    @property
    def too_coarse(self) -> bool:
        """Whether a second stage should refine what is found there."""
        return self.times > MOST_COARSER


def plan_view(
    cost: NetworkCost,
    budget: Budget,
    cases: Sequence[CaseFingerprint],
    facts: LandmarkStatistics,
    spacing: tuple[float, float, float],
    spacing_reason: str,
    slice_axis: int | None,
) -> tuple[LandmarkGrid, str]:
    """The finest of ever coarser grids on which the patch that the budget allows shows the whole case, and the reason.

    The median spacing is the first. Where none shows the whole case up to twice that spacing, it is the finest on which a patch
    shows all landmarks.

    Args:
        spacing: of the cases, (z, y, x).
        slice_axis: the axis along which cases are single slices, if they are.

    Raises:
        ResourceError: the smallest patch needs more memory than the budget has.
    """
    axes = [axis for axis in range(3) if axis != slice_axis]
    fitting: LandmarkGrid | None = None
    for view in _views(cost, budget, cases, facts, spacing, axes):
        if view.whole and (fitting is None or not view.too_coarse):
            return view, _reason(spacing_reason, view.times, "the whole case")
        if view.context.fits and fitting is None:
            fitting = view
        if fitting is not None and view.too_coarse:
            break
    assert fitting is not None  # some grid is so coarse that the smallest patch shows the whole case
    return fitting, _reason(spacing_reason, fitting.times, "all landmarks")


def _reason(spacing_reason: str, times: float, what: str) -> str:
    if times == 1:
        return spacing_reason
    return (
        f"{spacing_reason}; the patch shows {what} from {number(times)} times that spacing on, and positions are decoded to a "
        "fraction of a voxel"
    )


def _views(
    cost: NetworkCost,
    budget: Budget,
    cases: Sequence[CaseFingerprint],
    facts: LandmarkStatistics,
    spacing: Sequence[float],
    axes: Sequence[int],
) -> Iterator[LandmarkGrid]:
    """Ever coarser ones, up to one that shows the whole case."""
    finest = now = tuple(spacing[a] for a in axes)
    while True:
        times = max(s / f for s, f in zip(now, finest))
        view = _view(cost, budget, cases, facts, now, times, axes)
        yield view
        if view.whole:
            return
        now = coarser(now, STEP)


def _view(
    cost: NetworkCost,
    budget: Budget,
    cases: Sequence[CaseFingerprint],
    facts: LandmarkStatistics,
    spacing: tuple[float, ...],
    times: float,
    axes: Sequence[int],
) -> LandmarkGrid:
    steps = [max(case.spacing[a] for case in cases) for a in range(3)]  # across slices nothing is resampled
    for a, s in zip(axes, spacing):
        steps[a] = s
    median = median_shape(cases, steps)
    whole = _needed(cases, median, steps)
    shape = tuple(whole[a] for a in axes)
    voxels = prod(median[a] for a in axes) * len(cases)
    architecture = plan_architecture(cost, budget, spacing, shape, voxels)
    patch = [1, 1, 1]
    for a, n in zip(axes, architecture.topology.patch_size):
        patch[a] = n
    context = plan_context(facts, [case.landmarks for case in cases], (patch[0], patch[1], patch[2]), steps)
    shows = all(n >= m for n, m in zip(architecture.topology.patch_size, shape))
    return LandmarkGrid(spacing, shape, architecture, context, shows, times)


def _needed(cases: Sequence[CaseFingerprint], median: Sequence[float], spacing: Sequence[float]) -> tuple[float, ...]:
    """The median case, larger where the landmarks of the nine in ten cases that ask for least do not fit into it."""
    needed = extent_needed([case.landmarks for case in cases], MARGIN) / np.array(spacing)
    order = np.argsort((needed / np.array(median)).max(1), kind="stable")
    least = needed[order[: ceil(MOST_CASES * len(cases) - 1e-9)]].max(0)
    return tuple(max(m, float(ceil(n - 1e-9))) for m, n in zip(median, least))
