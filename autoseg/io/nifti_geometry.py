"""Where the voxels of a NIfTI file lie, by one rule for images, label maps and predictions.

A header says it up to three times: in the sform (a matrix), the qform (a rotation) and pixdim (sizes of voxels). As nibabel and
ITK-SNAP do, the sform counts where its code is above 0, else the qform where its code is, else pixdim alone. Sizes that agree
with pixdim but for rounding are those of pixdim, which most programs write as they were meant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from autoseg.errors import GeometryError

ROUNDING = 1e-3  # relative; sform and pixdim are float32, and programs round either to a few digits
RIGHT_ANGLES = 2e-4  # cosine between two axes that ITK takes for rounding (its tolerance of directions)
MOST_SHEAR = 0.1  # cosine, 5.7 degrees; beyond it the nearest right angles would move voxels by more than they are wide
_MM = {1: 1000.0, 3: 0.001}  # of the codes of xyzt_units for metres and micrometres (nifti1.h); everything else is mm


@dataclass(frozen=True, eq=False)
class NiftiTransforms:
    """The transforms that a header holds.

    Args:
        pixdim: the eight numbers; the first is the sign of the qform's third axis.
        qform_code, sform_code: above 0 where the transform is meant.
        quaternion: (b, c, d), and `offset` (x, y, z): of the qform.
        sform: 3×4.
        units: xyzt_units.
    """

    pixdim: tuple[float, ...]
    qform_code: int
    sform_code: int
    quaternion: tuple[float, float, float]
    offset: tuple[float, float, float]
    sform: np.ndarray
    units: int


@dataclass(frozen=True, eq=False)
class Place:
    """The transform that counts.

    Args:
        affine: 4×4, from voxels (x, y, z) to LPS mm, its axes at right angles but for rounding.
        remarks: what the header says twice and differently, or not at all.
    """

    affine: np.ndarray
    remarks: tuple[str, ...]


def settle(said: NiftiTransforms) -> Place | None:
    """The transform that counts; None where the header holds none, so that only pixdim is left.

    Raises:
        GeometryError: axes that are far from right angles.
    """
    sizes = np.abs(np.array(said.pixdim[1:4], dtype=np.float64))
    sizes = np.where(np.isfinite(sizes), sizes, 0.0)
    matrix, remarks = None, []
    if said.sform_code > 0:
        matrix = said.sform.astype(np.float64)
        if not np.isfinite(matrix).all() or np.linalg.matrix_rank(matrix[:, :3]) < 3:
            remarks.append("the sform is no transform: the qform or the voxel sizes count")
            matrix = None
    if matrix is None and said.qform_code > 0 and sizes.all() and np.isfinite([*said.quaternion, *said.offset]).all():
        matrix = _qform(said, sizes)
    if matrix is None:
        return None
    directions, lengths = matrix[:, :3], np.linalg.norm(matrix[:, :3], axis=0)
    agree = np.abs(lengths - sizes) <= ROUNDING * lengths
    if not agree.all() and sizes.any():
        remarks.append("voxel sizes (pixdim) and sform differ: the sform counts")
    directions = directions / lengths
    lengths = np.where(agree, sizes, lengths)
    directions, tilt = _at_right_angles(directions)
    if tilt:
        remarks.append("the axes are not at right angles: the nearest ones that are count")
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = directions * lengths, matrix[:, 3]
    affine[:3] *= _MM.get(said.units & 7, 1.0)
    affine[:2] *= -1  # NIfTI counts towards right and front, LPS towards left and back
    return Place(affine, tuple(remarks))


def _qform(said: NiftiTransforms, sizes: np.ndarray) -> np.ndarray:
    """3×4 matrix of the rotation (nifti1.h, method 2)."""
    b, c, d = said.quaternion
    a = math.sqrt(max(0.0, 1 - b * b - c * c - d * d))
    if a < 1e-4:  # a half turn, whose quaternion is only rounded to length 1
        b, c, d = np.array([b, c, d]) / math.sqrt(b * b + c * c + d * d)
        a = 0.0
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    rotation[:, 2] *= -1 if said.pixdim[0] < 0 else 1
    return np.column_stack([rotation * sizes, said.offset])


def _at_right_angles(directions: np.ndarray) -> tuple[np.ndarray, float]:
    """Directions as columns, turned to the nearest ones at right angles where they are not, and by how much they were not.

    Raises:
        GeometryError: by too much.
    """
    cosine = float(np.abs(directions.T @ directions - np.eye(3)).max())
    if cosine <= RIGHT_ANGLES:
        return directions, 0.0
    if cosine > MOST_SHEAR:
        raise GeometryError(
            "the axes of the image are far from right angles",
            found=f"{90 - math.degrees(math.acos(min(1.0, cosine))):.1f} degrees off",
            allowed=f"{90 - math.degrees(math.acos(MOST_SHEAR)):.1f} degrees at most",
            fix="resample it to a grid of right angles, for example in 3D Slicer: Resample Image",
        )
    u, _, v = np.linalg.svd(directions)
    return u @ v, cosine
