"""Rotation, scaling and mirroring as one affine map from patch voxels to case voxels.

The map is drawn before any voxel is read, so that only the box it needs is read. Image and label map follow the very same map,
and each is interpolated once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from autoseg.imaging.geometry import Box, Triple
from autoseg.imaging.landmarks import LandmarkSet, State
from autoseg.imaging.mirror_partners import LEFT_RIGHT_AXIS

ROTATION_DEGREES = 20.0  # how far heads and bodies tilt in a scanner; nnU-Net turns by up to 30
SCALE = (0.8, 1.25)  # nnU-Net: 0.7 to 1.4
PROBABILITY = 0.7  # of rotation and scaling; the other patches are plain crops, sharper and cheaper
ANISOTROPY = 3.0  # beyond it only the fine plane rotates and scales (nnU-Net's rule for a coarse axis)


@dataclass(frozen=True, eq=False)
class Spatial:
    """An affine map: patch index `i` shows case index `centre + matrix @ (i - (shape - 1) / 2)`, all (z, y, x).

    Args:
        shape: of the patch.
        mirror: axes flipped in the patch (their sign is not in `matrix`).
    """

    shape: Triple
    centre: np.ndarray
    matrix: np.ndarray
    mirror: tuple[int, ...]

    @property
    def is_crop(self) -> bool:
        """True where voxels need no interpolation."""
        return bool(np.array_equal(self.matrix, np.eye(3)))


def draw_spatial(
    rng: np.random.Generator,
    shape: Triple,
    centre: np.ndarray,
    *,
    spacing: Sequence[float],
    mirror_axes: Sequence[int],
    augment: bool,
) -> Spatial:
    """Draws the map for a patch of `shape` around `centre` (case voxels).

    Args:
        spacing: mm along (z, y, x); a rotation is a rotation in mm, not in voxels.
        augment: False gives the plain crop.
    """
    mirror = tuple(a for a in mirror_axes if augment and rng.random() < 0.5)
    matrix = np.eye(3)
    if augment and rng.random() < PROBABILITY:
        thick = [a for a in range(3) if shape[a] > 1]  # not of one voxel: a 2D image may have any slice spacing
        free = [a for a in thick if spacing[a] <= ANISOTROPY * min(spacing[b] for b in thick)]
        rotation = np.eye(3)
        for i, a in enumerate(free):
            for b in free[i + 1 :]:
                rotation = rotation @ _plane_rotation(a, b, np.deg2rad(rng.uniform(-ROTATION_DEGREES, ROTATION_DEGREES)))
        scale = np.exp(rng.uniform(np.log(SCALE[0]), np.log(SCALE[1])))
        factors = np.array([scale if a in free else 1.0 for a in range(3)])
        mm = np.array(spacing, dtype=np.float64)
        matrix = (rotation * factors) * mm / mm[:, None]  # voxels to mm, rotate and scale, mm to voxels
    half = (np.array(shape) - 1) / 2
    unchanged = (matrix == np.eye(3)).all(axis=1)  # along such an axis a patch lies on whole voxels: no interpolation
    centre = np.where(unchanged, np.round(centre - half) + half, centre)
    return Spatial(shape, centre.astype(np.float64), matrix, mirror)


def source_box(spatial: Spatial) -> Box:
    """The box of case voxels that the patch needs; may reach outside the case."""
    half = (np.array(spatial.shape) - 1) / 2
    reach = np.abs(spatial.matrix) @ half
    start = np.floor(spatial.centre - reach + 1e-6).astype(int)
    stop = np.ceil(spatial.centre + reach - 1e-6).astype(int) + 1
    return Box(tuple(start.tolist()), tuple(stop.tolist()))


def apply_spatial(
    spatial: Spatial, box: Box, image: np.ndarray, labels: Sequence[np.ndarray], mirrored_class: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Interpolates the voxels of a patch from those of its box.

    Args:
        image: (C, *box.shape) float; interpolated linearly, 0 outside.
        labels: arrays (*box.shape) of class indices; the nearest voxel is taken.
        mirrored_class: for each class index its partner when x is mirrored (left and right swap).

    Returns:
        (C, *shape) float32 and arrays (*shape) of the labels' type, contiguous.
    """
    if spatial.is_crop:
        data, classes = image.astype(np.float32), list(labels)
    else:
        half = (np.array(spatial.shape) - 1) / 2
        offset = spatial.centre - spatial.matrix @ half - np.array(box.start)
        data = np.empty((len(image), *spatial.shape), dtype=np.float32)
        for source, target in zip(image.astype(np.float32), data):
            ndimage.affine_transform(
                source, spatial.matrix, offset, spatial.shape, output=target, order=1, mode="grid-constant", prefilter=False
            )
        classes = [
            ndimage.affine_transform(label, spatial.matrix, offset, spatial.shape, order=0, mode="grid-constant")
            for label in labels
        ]
    if spatial.mirror:
        # copied: along an axis of one voxel a flipped view counts as contiguous, but torch takes no negative stride
        data = np.flip(data, tuple(a + 1 for a in spatial.mirror)).copy()
        classes = [np.flip(c, spatial.mirror).copy() for c in classes]
        if LEFT_RIGHT_AXIS in spatial.mirror:
            classes = [mirrored_class[c] for c in classes]
    return np.ascontiguousarray(data), [np.ascontiguousarray(c) for c in classes]


def apply_to_points(
    spatial: Spatial, points: np.ndarray, state: np.ndarray, landmarks: LandmarkSet
) -> tuple[np.ndarray, np.ndarray]:
    """Maps landmarks from case voxels to patch voxels, as `apply_spatial` does what they lie on.

    Args:
        points: (N, 3) fractional case voxels (z, y, x); NaN stays NaN.
        state: (N,) of `landmarks.State`.

    Returns:
        (N, 3) fractional patch voxels, inside the patch or not, and (N,) states: where x is mirrored, partners exchange theirs,
        and one-sided landmarks are unlabelled.
    """
    half = (np.array(spatial.shape) - 1) / 2
    moved = (points - spatial.centre) @ np.linalg.inv(spatial.matrix).T + half
    for axis in spatial.mirror:
        moved[:, axis] = spatial.shape[axis] - 1 - moved[:, axis]
    if LEFT_RIGHT_AXIS in spatial.mirror:
        swapped = list(landmarks.mirror_partners)
        moved, state = moved[swapped], np.where(landmarks.mirrorable, state[swapped], State.UNLABELLED)
    return moved, state


def _plane_rotation(a: int, b: int, angle: float) -> np.ndarray:
    matrix = np.eye(3)
    matrix[a, a] = matrix[b, b] = np.cos(angle)
    matrix[a, b], matrix[b, a] = -np.sin(angle), np.sin(angle)
    return matrix
