"""Landmarks that an earlier stage found, as a label map that the next stage sees: a spot around each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import Landmarks, LandmarkSet
from autoseg.plan import Configuration
from autoseg.preprocessing.placement import Placement

SPOT_RADIUS = 1.0
"""Sigmas of the earlier stage's targets, so far along each axis a spot reaches around a landmark. That is a voxel of its maps,
and it is mostly off by less: on the mouse skulls by half a voxel (0.22 of 0.4 mm). So the next stage is shown where to look."""


def paint_landmarks(found: Landmarks, placement: Placement, before: Configuration) -> np.ndarray:
    """(Z, Y, X) on the prepared grid: number of the landmark (1, 2, …) in its spot, 0 elsewhere; absent ones have none.

    Args:
        before: the configuration that found them.
    """
    target = placement.target
    points = np.full((len(found.names), 3), np.nan)
    points[found.present] = placement.to_voxels(found.points_mm[found.present])
    return paint_spots(points, [mm / s for mm, s in zip(spot_radii_mm(before), target.spacing)], target.shape)


def spot_radii_mm(before: Configuration) -> tuple[float, float, float]:
    """Along (z, y, x); a stage that sees slices knows nothing of those beside the one that shows a landmark."""
    assert before.landmarks is not None
    return before.space.in_volume([SPOT_RADIUS * mm for mm in before.landmarks.sigma_mm], 0.0)


def paint_spots(points: np.ndarray, radii: Sequence[float], shape: Sequence[int]) -> np.ndarray:
    """Ellipsoids around points; where they meet a voxel goes to the nearest point.

    Args:
        points: (N, 3) fractional voxels, inside the volume or not; NaN for none.
        radii: in voxels, along (z, y, x). The voxel that a point lies in always belongs to its spot, however small that is.
    """
    spots = np.zeros(shape, dtype=np.min_scalar_type(len(points)))
    reach = np.maximum(radii, 1e-6)
    for number, point in enumerate(points, start=1):
        if np.isnan(point).any():
            continue
        first = np.minimum(np.ceil(point - reach), np.rint(point)).clip(0, None).astype(int)
        last = np.maximum(np.floor(point + reach), np.rint(point)).clip(None, np.array(shape) - 1).astype(int)
        if (first > last).any():
            continue
        box = tuple(slice(a, b + 1) for a, b in zip(first, last))
        there = spots[box]
        voxels = np.stack(np.meshgrid(*(np.arange(a, b + 1) for a, b in zip(first, last)), indexing="ij"), axis=-1)
        away = np.linalg.norm((voxels - point) / reach, axis=-1)
        others = np.concatenate([point[None], points])[there]  # of voxels that are free, this point itself
        mine = ((away <= 1) | (voxels == np.rint(point)).all(-1)) & (
            (there == 0) | (away < np.linalg.norm((voxels - others) / reach, axis=-1))
        )
        there[mine] = number
    return spots


def mirrored_previous_classes(labels: LabelSet, landmarks: LandmarkSet) -> tuple[int, ...]:
    """For each number by which a stage tells the next what it found, 0 first, what takes its place when left and right swap.

    That are class indices, or the numbers of spots where there are no structures. Of what has a side but no partner there is no
    spot then.
    """
    if labels.names:
        return labels.mirrored
    known = landmarks.known_mirrored
    return (0, *(1 + other if known[i] else 0 for i, other in enumerate(landmarks.mirrored)))
