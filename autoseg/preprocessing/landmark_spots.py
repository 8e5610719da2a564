"""Landmarks that the previous stage of a cascade found, as a label map with a spot around each for the next stage."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import Landmarks, LandmarkSet
from autoseg.plan import Configuration
from autoseg.preprocessing.placement import Placement

SPOT_RADIUS = 1.0
"""Half-axes of a spot, in sigmas of the previous stage's targets. One sigma is a voxel of that stage's
maps, and its error is mostly smaller: on the mouse skulls half a voxel (0.22 of 0.4 mm). So the spot
shows the next stage where to look."""


def paint_landmarks(landmarks: Landmarks, placement: Placement, previous_stage: Configuration) -> np.ndarray:
    """Paint a label map (Z, Y, X) on the prepared grid: the number of a landmark (1, 2, …) in its spot, 0 elsewhere.

    Landmarks that are not present have no spot.

    Args:
        previous_stage: the configuration that found the landmarks.
    """
    target = placement.target
    points = np.full((len(landmarks.names), 3), np.nan)
    points[landmarks.present] = placement.to_voxels(landmarks.points_mm[landmarks.present])
    radii_mm = spot_radii_mm(previous_stage)
    return paint_spots(points, [mm / s for mm, s in zip(radii_mm, target.spacing)], target.shape)


def spot_radii_mm(previous_stage: Configuration) -> tuple[float, float, float]:
    """Half-axes of a spot along (z, y, x) in mm; 0 across the slices that a 2D stage sees one by one."""
    assert previous_stage.landmarks is not None
    return previous_stage.space.in_volume([SPOT_RADIUS * mm for mm in previous_stage.landmarks.sigma_mm], 0.0)


def paint_spots(points: np.ndarray, radii: Sequence[float], shape: Sequence[int]) -> np.ndarray:
    """Paint ellipsoids around points; a voxel in several of them goes to the nearest point.

    Args:
        points: (N, 3) fractional voxels, inside the volume or not; NaN for none.
        radii: in voxels, along (z, y, x). The voxel that a point lies in always belongs to its spot,
            however small that is.

    Returns:
        (Z, Y, X) numbers of the points, from 1; 0 outside of all spots.
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
        spots_in_box = spots[box]
        voxels = np.stack(np.meshgrid(*(np.arange(a, b + 1) for a, b in zip(first, last)), indexing="ij"), axis=-1)
        distance = np.linalg.norm((voxels - point) / reach, axis=-1)
        owners = np.concatenate([point[None], points])[spots_in_box]  # of voxels without an owner, this point itself
        in_reach = (distance <= 1) | (voxels == np.rint(point)).all(-1)
        nearer = distance < np.linalg.norm((voxels - owners) / reach, axis=-1)
        spots_in_box[in_reach & ((spots_in_box == 0) | nearer)] = number
    return spots


def mirrored_previous_classes(labels: LabelSet, landmarks: LandmarkSet) -> tuple[int, ...]:
    """Replacement of each number in the previous stage's map, 0 first, when left and right swap.

    The numbers are class indices, or landmark numbers in a dataset without structures. Landmarks with a
    side but without a partner map to 0 (no spot).
    """
    if labels.names:
        return labels.mirror_partners
    mirrorable = landmarks.mirrorable
    return (0, *(1 + partner if mirrorable[i] else 0 for i, partner in enumerate(landmarks.mirror_partners)))
