"""The resolution for landmarks without label maps: the finest at which a patch shows all landmarks of a case."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, prod

import numpy as np

from autoseg.fingerprint.case import CaseFingerprint
from autoseg.fingerprint.landmarks import LandmarkStatistics, extent_needed
from autoseg.planner.architecture import Architecture, plan_architecture
from autoseg.planner.inputs import PlanInputs
from autoseg.planner.landmark_rules import MARGIN, MOST_CASES, Context, plan_context
from autoseg.planner.spacing import coarser, median_shape
from autoseg.planner.wording import number

STEP = 1.05  # the spacing grows by 5 % at a time
MOST_COARSER = 2.0
"""Times the median spacing, along some axis, that one stage may have. Positions are decoded to a fraction of a voxel, so that
such a grid costs little; on a still coarser one a second stage refines them. A convention, not measured."""


@dataclass(frozen=True)
class LandmarkGrid:
    """A grid and a network for it; axes in canonical order, two of them for slices.

    Args:
        spacing: mm.
        shape: voxels that the patch should show: the median case, or more where landmarks of large cases ask for it.
        context: whether a patch shows all landmarks of a case.
        whole: whether it shows the whole of it, so that training and prediction see the same.
        times: the spacing over that of the cases, along the axis where it is coarsest by comparison.
    """

    spacing: tuple[float, ...]
    shape: tuple[float, ...]
    architecture: Architecture
    context: Context
    whole: bool
    times: float

    @property
    def too_coarse(self) -> bool:
        """True where a second stage should refine the landmarks that are predicted on this grid."""
        return self.times > MOST_COARSER


def find_landmark_grid(inputs: PlanInputs, statistics: LandmarkStatistics) -> tuple[LandmarkGrid, str]:
    """The finest of ever coarser grids on which the patch that the budget allows shows the whole case, and the reason.

    The median spacing is the first. Where none shows the whole case up to twice that spacing, it is the finest on which a patch
    shows all landmarks.

    Raises:
        ResourceError: the smallest patch needs more memory than the budget has.
    """
    fitting: LandmarkGrid | None = None
    for grid in _landmark_grids(inputs, statistics):
        if grid.whole and (fitting is None or not grid.too_coarse):
            return grid, _reason(inputs.spacing_reason, grid.times, "the whole case")
        if grid.context.fits and fitting is None:
            fitting = grid
        if fitting is not None and grid.too_coarse:
            break
    assert fitting is not None  # some grid is so coarse that the smallest patch shows the whole case
    return fitting, _reason(inputs.spacing_reason, fitting.times, "all landmarks")


def _reason(spacing_reason: str, times: float, shown: str) -> str:
    if times == 1:
        return spacing_reason
    return (
        f"{spacing_reason}; the patch shows {shown} from {number(times)} times that spacing on, and positions are decoded to a "
        "fraction of a voxel"
    )


def _landmark_grids(inputs: PlanInputs, statistics: LandmarkStatistics) -> Iterator[LandmarkGrid]:
    """Ever coarser grids, from the median spacing to the first that shows the whole case."""
    finest = spacing = inputs.full_grid(inputs.flat_axis).spacing
    while True:
        times = max(s / f for s, f in zip(spacing, finest))
        grid = _landmark_grid(inputs, statistics, spacing, times)
        yield grid
        if grid.whole:
            return
        spacing = coarser(spacing, STEP)


def _landmark_grid(inputs: PlanInputs, statistics: LandmarkStatistics, spacing: tuple[float, ...], times: float) -> LandmarkGrid:
    cases = inputs.fingerprint.cases
    axes = [axis for axis in range(3) if axis != inputs.flat_axis]
    volume_spacing = [max(case.spacing[a] for case in cases) for a in range(3)]  # across slices nothing is resampled
    for a, s in zip(axes, spacing):
        volume_spacing[a] = s
    median = median_shape(cases, volume_spacing)
    needed = _needed(cases, median, volume_spacing)
    shape = tuple(needed[a] for a in axes)
    dataset_voxels = prod(median[a] for a in axes) * len(cases)
    architecture = plan_architecture(inputs.cost, inputs.budget, spacing, shape, dataset_voxels)
    patch = [1, 1, 1]
    for a, n in zip(axes, architecture.topology.patch_size):
        patch[a] = n
    points = [case.landmarks for case in cases]
    context = plan_context(statistics, points, (patch[0], patch[1], patch[2]), volume_spacing)
    whole = all(n >= m for n, m in zip(architecture.topology.patch_size, shape))
    return LandmarkGrid(spacing, shape, architecture, context, whole, times)


def _needed(cases: Sequence[CaseFingerprint], median: Sequence[float], spacing: Sequence[float]) -> tuple[float, ...]:
    """The median case, larger where the landmarks of the nine in ten cases that ask for least do not fit into it."""
    needed = extent_needed([case.landmarks for case in cases], MARGIN) / np.array(spacing)
    order = np.argsort((needed / np.array(median)).max(1), kind="stable")
    least = needed[order[: ceil(MOST_CASES * len(cases) - 1e-9)]].max(0)
    return tuple(max(m, float(ceil(n - 1e-9))) for m, n in zip(median, least))
