"""The resolution at which a patch shows all landmarks of a case, for datasets without label maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, prod

import numpy as np

from autoseg.facts import CaseFacts
from autoseg.landmark_facts import LandmarkFacts, room_needed
from autoseg.planner.architecture import Architecture, plan_architecture
from autoseg.planner.landmarks import MARGIN, MOST_CASES, Context, plan_context
from autoseg.planner.processor import Budget
from autoseg.planner.sample import Sample
from autoseg.planner.spacing import coarser, median_shape
from autoseg.planner.wording import number

STEP = 1.05  # the spacing grows by 5 % at a time
MOST_COARSER_WHOLE = 2.0
MOST_COARSER = 3.0
"""Times the median spacing, along some axis: for a patch that shows the whole case, and for one that shows all landmarks.
Positions are decoded to a fraction of a voxel, so that a coarse grid costs little; on one still coarser a landmark cannot be
made out. A convention, not measured."""


@dataclass(frozen=True)
class View:
    """A grid and a network for it; axes in canonical order, two of them for slices.

    Args:
        spacing: mm.
        shape: voxels that the patch is to show: the median case, or more where landmarks of large cases ask for it.
        context: whether a patch shows all landmarks of a case.
        whole: whether it shows the whole of it, so that training and prediction see the same.
    """

    spacing: tuple[float, ...]
    shape: tuple[float, ...]
    architecture: Architecture
    context: Context
    whole: bool


def plan_view(
    sample: Sample,
    budget: Budget,
    cases: Sequence[CaseFacts],
    facts: LandmarkFacts,
    spacing: tuple[float, float, float],
    spacing_reason: str,
    slice_axis: int | None,
) -> tuple[View, str]:
    """The finest of ever coarser grids on which the patch that the budget allows shows the whole case, and the reason.

    The median spacing is the first. Where none shows the whole case up to twice that spacing, it is the finest on which a patch
    shows all landmarks; where none does up to three times that spacing it is the coarsest, and windows must overlap.

    Args:
        spacing: of the cases, (z, y, x).
        slice_axis: the axis along which cases are single slices, if they are.

    Raises:
        ResourceError: the smallest patch needs more memory than the budget has.
    """
    axes = [axis for axis in range(3) if axis != slice_axis]
    found = list(_views(sample, budget, cases, facts, spacing, axes))
    for view, times in found:
        if view.whole and times <= MOST_COARSER_WHOLE:
            return view, _reason(spacing_reason, times, "the whole case")
    for view, times in found:
        if view.context.fits:
            return view, _reason(spacing_reason, times, "all landmarks")
    view, times = found[-1]
    few = f"the patch shows all landmarks neither there nor at {number(times)} times that spacing, which is as coarse as may be"
    return view, f"{spacing_reason}; {few}"


def _reason(spacing_reason: str, times: float, what: str) -> str:
    if times == 1:
        return spacing_reason
    return (
        f"{spacing_reason}; the patch shows {what} from {number(times)} times that spacing on, and positions are decoded to a "
        "fraction of a voxel"
    )


def _views(
    sample: Sample,
    budget: Budget,
    cases: Sequence[CaseFacts],
    facts: LandmarkFacts,
    spacing: Sequence[float],
    axes: Sequence[int],
) -> Iterator[tuple[View, float]]:
    """Ever coarser ones, each with how many times coarser it is than the spacing; the last may be good for nothing."""
    finest = now = tuple(spacing[a] for a in axes)
    while (times := max(s / f for s, f in zip(now, finest))) <= MOST_COARSER:
        view = _view(sample, budget, cases, facts, now, axes)
        yield view, times
        if view.whole:
            return
        now = coarser(now, STEP)


def _view(
    sample: Sample,
    budget: Budget,
    cases: Sequence[CaseFacts],
    facts: LandmarkFacts,
    spacing: tuple[float, ...],
    axes: Sequence[int],
) -> View:
    steps = [max(case.spacing[a] for case in cases) for a in range(3)]  # across slices nothing is resampled
    for a, s in zip(axes, spacing):
        steps[a] = s
    median = median_shape(cases, steps)
    whole = _needed(cases, median, steps)
    shape = tuple(whole[a] for a in axes)
    voxels = prod(median[a] for a in axes) * len(cases)
    architecture = plan_architecture(sample, budget, spacing, shape, voxels)
    patch = [1, 1, 1]
    for a, n in zip(axes, architecture.topology.patch_size):
        patch[a] = n
    context = plan_context(facts, [case.landmarks for case in cases], (patch[0], patch[1], patch[2]), steps)
    shows = all(n >= m for n, m in zip(architecture.topology.patch_size, shape))
    return View(spacing, shape, architecture, context, shows)


def _needed(cases: Sequence[CaseFacts], median: Sequence[float], spacing: Sequence[float]) -> tuple[float, ...]:
    """The median case, larger where the landmarks of the nine in ten cases that ask for least do not fit into it."""
    needed = room_needed([case.landmarks for case in cases], MARGIN) / np.array(spacing)
    order = np.argsort((needed / np.array(median)).max(1), kind="stable")
    least = needed[order[: ceil(MOST_CASES * len(cases) - 1e-9)]].max(0)
    return tuple(max(m, float(ceil(n - 1e-9))) for m, n in zip(median, least))
