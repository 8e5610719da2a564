"""The size of a case on the plan's grid, checked before memory is taken: a wrong unit of spacing multiplies it a millionfold."""

from __future__ import annotations

from math import prod

from autoseg.errors import GeometryError
from autoseg.imaging.geometry import Grid, Triple
from autoseg.plan import SpacePlan
from autoseg.system.machine import free_ram_gb

MAX_ENLARGEMENT = 64  # times the voxels of an image on the plan's grid: four times finer along three axes
SPACING_FIX = "check the spacing: its unit must be mm, and its order z, y, x in arrays"
_VALUE_BYTES = 4  # of a voxel, before it is stored as float16
_CHECKED_BYTES = 1 << 28  # smaller cases are prepared without asking how much memory is free


def check_prepared_size(cropped: Grid, shape: Triple, space: SpacePlan, n_channels: int) -> None:
    """Refuse a case that would have many times its voxels on the plan's grid, or not fit into the free memory for that.

    Args:
        cropped: grid of what is kept of the image, in canonical orientation.
        shape: of the prepared case.

    Raises:
        GeometryError: its voxels are too large for the plan.
    """
    voxels, own = prod(shape), prod(cropped.shape)
    n_bytes = voxels * _VALUE_BYTES * n_channels
    free_gb = free_ram_gb() if voxels > own and n_bytes >= _CHECKED_BYTES else None
    too_large = free_gb is not None and n_bytes / 1e9 > free_gb
    if voxels > MAX_ENLARGEMENT * own or too_large:
        raise GeometryError(
            f"the voxels are so large that the image would have {voxels / own:,.0f} times its voxels on the plan's grid"
            + (f", {n_bytes / 1e9:.3g} GB" if too_large else ""),
            found=spacing_text(resampled_axes(cropped, space)),
            allowed=f"about {spacing_text(space.spacing_mm)}",
            fix=SPACING_FIX,
        )


def resampled_axes(grid: Grid, space: SpacePlan) -> tuple[float, ...]:
    """Spacing along the axes that a plan resamples: within the slices of a 2D one."""
    return tuple(step for i, step in enumerate(grid.spacing) if i != space.slice_axis or len(space.spacing_mm) == 3)


def spacing_text(spacing: tuple[float, ...]) -> str:
    """'(3, 1.5, 1.5) mm'."""
    return f"({', '.join(f'{step:.4g}' for step in spacing)}) mm"
