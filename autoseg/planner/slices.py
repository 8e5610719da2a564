"""The axis across which cases are taken for stacks of 2D slices (nnU-Net)."""

from __future__ import annotations

from collections.abc import Sequence

from autoseg.planner.spacing import AXES
from autoseg.planner.wording import number


def flat_axis(shape: Sequence[float], spacing: Sequence[float]) -> int | None:
    """The axis along which the median case (voxels) is a single slice, the coarsest of several; None for volumes (nnU-Net)."""
    single = [axis for axis in range(3) if shape[axis] <= 1]
    return max(single, key=lambda axis: (spacing[axis], -axis)) if single else None


def slice_reason(axis: int, spacing: Sequence[float], flat: int | None) -> str:
    """The reason for slices across that axis."""
    if flat is not None:
        return f"the median case is a single slice along {AXES[axis]}"
    others = max(s for a, s in enumerate(spacing) if a != axis)
    if spacing[axis] > others:
        return f"{AXES[axis]} has the coarsest spacing, {number(spacing[axis])} mm: the fine axes make up a slice"
    return f"no axis is coarser than the others: {AXES[axis]}, the first of the coarsest ones (nnU-Net)"
