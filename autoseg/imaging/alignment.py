"""Alignment of images, label maps and predictions: both must lie on the same voxels, in whatever order these are stored."""

from __future__ import annotations

import numpy as np

from autoseg.errors import GeometryError
from autoseg.imaging.geometry import Grid
from autoseg.imaging.image import Image, LabelMap

_SPACING_TOLERANCE = 1e-3  # relative; headers round to about six digits, a wrong resampling shows in the first three
_DIRECTION_TOLERANCE = 1.0  # degrees; float32 headers differ by 1e-5 degrees, another orientation by tens
_ORIGIN_TOLERANCE = 0.1  # voxels


def check_alignment(image: Image, label_map: LabelMap) -> str | None:
    """Check that a label map belongs to an image voxel by voxel.

    Returns:
        A remark if only the origins differ (by more than 0.1 voxel); else None.

    Raises:
        GeometryError: shape, spacing (more than 0.1 %) or orientation (more than 1 degree) differ, or no voxel is in common.
    """
    grid, label_grid = image.grid, label_map.grid
    if grid.shape != label_grid.shape:
        raise shape_mismatch(image, label_map)
    if not np.allclose(grid.spacing, label_grid.spacing, rtol=_SPACING_TOLERANCE, atol=0):
        raise GeometryError(
            "image and label map differ in spacing",
            found=f"label {_times(label_grid.spacing)} mm",
            allowed=f"image {_times(grid.spacing)} mm (z, y, x)",
            fix="resample the label map to the image, or correct its header",
        )
    angle = _largest_angle(grid, label_grid)
    if angle > _DIRECTION_TOLERANCE:
        raise GeometryError(
            "image and label map differ in orientation",
            found=f"{angle:.1f} degrees between their axes",
            allowed=f"{_DIRECTION_TOLERANCE:g} degree",
            fix="resample the label map to the image, or correct its header",
        )
    offset = label_grid.affine[:3, 3] - grid.affine[:3, 3]
    shift = np.linalg.norm(offset)
    if shift <= _ORIGIN_TOLERANCE * min(grid.spacing):
        return None
    voxels = np.abs(np.linalg.solve(grid.affine[:3, :3], offset))
    if (voxels >= grid.shape).any():
        raise GeometryError(
            "image and label map lie in different places, with no voxel in common",
            found=f"{shift:.3g} mm apart",
            allowed=f"an image of {_times(tuple(n * s for n, s in zip(grid.shape, grid.spacing)))} mm (z, y, x)",
            fix="give each image its own label map, or correct the header of one of them",
        )
    return f"label header is off by {shift:.3g} mm; voxels are paired by index"


def in_order_of(array: np.ndarray, grid: Grid, target: Grid) -> np.ndarray | None:
    """The array with its voxels in the order of another grid, where both grids are the same set of voxels; else None.

    Grids of one set of voxels differ by a permutation of axes and by flips, which lose nothing.

    Args:
        array: (…, Z, Y, X) on `grid`.
    """
    axes, target_axes = grid.canonical_axes(), target.canonical_axes()
    if axes == target_axes:
        return None
    canonical, wanted = grid.reoriented(axes), target.reoriented(target_axes)
    if canonical.shape != wanted.shape or canonical.corner_distance(wanted) > _ORIGIN_TOLERANCE * min(wanted.spacing):
        return None
    return np.ascontiguousarray(target_axes.inverse.apply(axes.apply(array)))


def reordered(label_map: LabelMap, grid: Grid) -> LabelMap:
    """The label map in the order of voxels of a grid, where that is the same set of voxels; else as it is."""
    data = in_order_of(label_map.data, label_map.grid, grid)
    return label_map if data is None else LabelMap(data, grid, label_map.labels)


def shape_mismatch(image: Image, label_map: LabelMap) -> GeometryError:
    """Error for a label map of another shape than its image."""
    return GeometryError(
        "image and label map differ in shape",
        found=f"label {label_map.grid.shape}",
        allowed=f"image {image.grid.shape} (z, y, x)",
        fix="give each image its own label map, on the same voxels",
    )


def _largest_angle(a: Grid, b: Grid) -> float:
    """Largest angle (degrees) between the same axis of two grids."""
    unit_a, unit_b = (g.affine[:3, :3] / np.array(g.spacing) for g in (a, b))
    sine = np.linalg.norm(np.cross(unit_a, unit_b, axis=0), axis=0)
    return float(np.degrees(np.arctan2(sine, (unit_a * unit_b).sum(axis=0))).max())


def _times(values: tuple[float, ...]) -> str:
    return "×".join(f"{v:g}" for v in values)
