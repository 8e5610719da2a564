"""Arrays together with the grid they live on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoseg.errors import GeometryError
from autoseg.imaging.geometry import Grid
from autoseg.imaging.labels import LabelSet

_SPACING_TOLERANCE = 1e-3  # relative; headers round to about six digits, a wrong resampling shows in the first three
_DIRECTION_TOLERANCE = 1.0  # degrees; float32 headers differ by 1e-5 degrees, another orientation by tens
_ORIGIN_TOLERANCE = 0.1  # voxels


@dataclass(frozen=True, eq=False)
class Image:
    """`data` (C, Z, Y, X) float32 on `grid`; `channels` names them.

    Raises:
        GeometryError: data and grid differ in shape, or the number of names in the number of channels.
    """

    data: np.ndarray
    grid: Grid
    channels: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_shape(self.data, (len(self.channels), *self.grid.shape))


@dataclass(frozen=True, eq=False)
class LabelMap:
    """`data` (Z, Y, X) class indices (see `labels`) on `grid`.

    Raises:
        GeometryError: data and grid differ in shape.
    """

    data: np.ndarray
    grid: Grid
    labels: LabelSet

    def __post_init__(self) -> None:
        _check_shape(self.data, self.grid.shape)


def _check_shape(data: np.ndarray, wanted: tuple[int, ...]) -> None:
    if data.shape != wanted:
        raise GeometryError("array and grid do not agree", found=data.shape, allowed=wanted)


def check_pair(image: Image, label: LabelMap) -> str | None:
    """Whether a label map may be paired with an image voxel by voxel.

    Returns:
        A warning if only the origins differ (by more than 0.1 voxel); None if all is well.

    Raises:
        GeometryError: shape, spacing (more than 0.1 %) or orientation (more than 1 degree) differ.
    """
    ours, theirs = image.grid, label.grid
    if ours.shape != theirs.shape:
        raise shape_mismatch(image, label)
    if not np.allclose(ours.spacing, theirs.spacing, rtol=_SPACING_TOLERANCE, atol=0):
        raise GeometryError(
            "image and label map differ in spacing",
            found=f"label {_numbers(theirs.spacing)} mm",
            allowed=f"image {_numbers(ours.spacing)} mm (z, y, x)",
            fix="resample the label map to the image, or correct its header",
        )
    angle = _largest_angle(ours, theirs)
    if angle > _DIRECTION_TOLERANCE:
        raise GeometryError(
            "image and label map differ in orientation",
            found=f"{angle:.1f} degrees between their axes",
            allowed=f"{_DIRECTION_TOLERANCE:g} degree",
            fix="resample the label map to the image, or correct its header",
        )
    gap = ours.affine[:3, 3] - theirs.affine[:3, 3]
    if np.linalg.norm(gap) <= _ORIGIN_TOLERANCE * min(ours.spacing):
        return None
    return f"label header is off by {np.linalg.norm(gap):.3g} mm; voxels are paired by index"


def shape_mismatch(image: Image, label: LabelMap) -> GeometryError:
    return GeometryError(
        "image and label map differ in shape",
        found=f"label {label.grid.shape}",
        allowed=f"image {image.grid.shape} (z, y, x)",
        fix="give each image its own label map, on the same voxels",
    )


def _largest_angle(a: Grid, b: Grid) -> float:
    """Largest angle (degrees) between the same axis of two grids."""
    unit_a, unit_b = (g.affine[:3, :3] / np.array(g.spacing) for g in (a, b))
    sine = np.linalg.norm(np.cross(unit_a, unit_b, axis=0), axis=0)
    return float(np.degrees(np.arctan2(sine, (unit_a * unit_b).sum(axis=0))).max())


def _numbers(values: tuple[float, ...]) -> str:
    return "×".join(f"{v:g}" for v in values)
