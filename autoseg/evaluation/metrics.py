"""Scores of a predicted structure against its reference: overlap, surface distance, volume. Pure functions.

Scores of a structure that is not in both label maps:

| state  | reference | prediction | Dice, IoU, NSD | HD95, ASSD | volume error     |
| ------ | --------- | ---------- | -------------- | ---------- | ---------------- |
| both   | yes       | yes        | measured       | measured   | measured         |
| missed | yes       | no         | 0              | None       | -1               |
| extra  | no        | yes        | 0              | None       | None             |
| absent | no        | no         | None           | None       | None             |

None means undefined, and nothing is ever put in its place: an absent structure neither helps nor hurts a mean, and a
distance to nothing is not a number. Voxels with the ignore index in the reference are left out of both masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from autoseg.errors import GeometryError, LabelError
from autoseg.imaging.geometry import Box
from autoseg.imaging.labels import LabelSet

NSD_TOLERANCE_MM = 1.0
"""A voxel of the usual isotropic image, and the strict end of the 1 to 2.5 mm by which human observers differ in
Nikolov et al., J Med Internet Res 2021. NSD is only comparable at equal tolerance: state it with the score."""

STATES = ("both", "missed", "extra", "absent")


@dataclass(frozen=True)
class StructureScore:
    """One structure of one case. `state` is one of `STATES`; the module's table lists the scores that are None in each."""

    structure: str
    state: str
    dice: float | None
    iou: float | None
    hd95_mm: float | None
    assd_mm: float | None
    nsd: float | None
    volume_reference_mm3: float
    volume_prediction_mm3: float

    @property
    def volume_error(self) -> float | None:
        """Signed and relative to the reference: 0.1 is 10 % too much; None where the reference has no voxel."""
        if self.volume_reference_mm3 == 0:
            return None
        return self.volume_prediction_mm3 / self.volume_reference_mm3 - 1


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """Distances (mm) from every surface voxel of one mask to the nearest one of the other, both ways.

    A surface voxel belongs to the mask and shares a face with a voxel that does not, or with the border of the array.
    Distances run between voxel centres. An axis of one voxel has no faces: of a 2D mask this leaves the outline.
    """

    reference_to_prediction: np.ndarray
    prediction_to_reference: np.ndarray

    def hausdorff(self, percentile: float = 95.0) -> float:
        """Larger of the two directed percentiles (linear interpolation), mm; 100 is the Hausdorff distance itself."""
        both = (self.reference_to_prediction, self.prediction_to_reference)
        return float(max(np.percentile(distances, percentile) for distances in both))

    def assd(self) -> float:
        """Average symmetric surface distance, mm: the mean over the voxels of both surfaces (Heimann et al., IEEE TMI 2009)."""
        return float(np.concatenate((self.reference_to_prediction, self.prediction_to_reference)).mean())

    def nsd(self, tolerance_mm: float) -> float:
        """Normalised surface Dice: share of both surfaces within `tolerance_mm` of the other (Nikolov et al. 2021).

        Counted in surface voxels.
        """
        # the distance of neighbours at 0.3 mm is 0.30000000000000004: rounding must not decide
        limit = tolerance_mm * (1 + 1e-9)
        return float((np.concatenate((self.reference_to_prediction, self.prediction_to_reference)) <= limit).mean())


def surface_distances(reference: np.ndarray, prediction: np.ndarray, spacing: tuple[float, float, float]) -> SurfaceDistances:
    """Measure the distances between the surfaces of two (Z, Y, X) boolean masks, neither of them empty.

    `spacing` is (z, y, x) in mm. Works within the joint bounding box, with one distance transform a mask.
    """
    box = Box.around(reference | prediction)
    assert box is not None
    # outside the joint box, and outside the array, there is only background
    margin = [(0, 0) if n == 1 else (1, 1) for n in reference.shape]
    reference_surface = _surface(np.pad(reference[box.slices], margin))
    prediction_surface = _surface(np.pad(prediction[box.slices], margin))
    return SurfaceDistances(
        _distances(reference_surface, prediction_surface, spacing), _distances(prediction_surface, reference_surface, spacing)
    )


def score_structure(
    structure: str,
    reference: np.ndarray,
    prediction: np.ndarray,
    spacing: tuple[float, float, float],
    tolerance_mm: float = NSD_TOLERANCE_MM,
) -> StructureScore:
    """Score one structure from two (Z, Y, X) boolean masks of equal shape; `spacing` (z, y, x) mm."""
    n_reference, n_prediction = int(np.count_nonzero(reference)), int(np.count_nonzero(prediction))
    voxel = float(np.prod(spacing))
    volumes = n_reference * voxel, n_prediction * voxel
    if not n_reference and not n_prediction:
        return StructureScore(structure, "absent", None, None, None, None, None, *volumes)
    if not n_reference or not n_prediction:
        return StructureScore(structure, "missed" if n_reference else "extra", 0.0, 0.0, None, None, 0.0, *volumes)
    common = int(np.count_nonzero(reference & prediction))
    distances = surface_distances(reference, prediction, spacing)
    return StructureScore(
        structure,
        "both",
        2 * common / (n_reference + n_prediction),
        common / (n_reference + n_prediction - common),
        distances.hausdorff(95),
        distances.assd(),
        distances.nsd(tolerance_mm),
        *volumes,
    )


def score_case(
    reference: np.ndarray,
    prediction: np.ndarray,
    labels: LabelSet,
    spacing: tuple[float, float, float],
    tolerance_mm: float = NSD_TOLERANCE_MM,
) -> tuple[StructureScore, ...]:
    """Score every structure of `labels`, in order, from two (Z, Y, X) maps of class indices; `spacing` (z, y, x) mm.

    Raises:
        GeometryError: the two shapes differ.
    """
    _check_shapes(reference, prediction)
    prediction = np.where(reference == labels.ignore_index, 0, prediction)
    last = labels.n_classes - 1
    both_boxes = zip(ndimage.find_objects(reference, last), ndimage.find_objects(prediction, last))
    scores = []
    for index, (name, boxes) in enumerate(zip(labels.names, both_boxes), start=1):
        box = _joint_box([b for b in boxes if b is not None], reference.shape)
        scores.append(score_structure(name, reference[box] == index, prediction[box] == index, spacing, tolerance_mm))
    return tuple(scores)


def dice_per_structure(
    reference: np.ndarray, prediction: np.ndarray, n_classes: int, ignore_index: int
) -> tuple[float | None, ...]:
    """Dice alone, of structures 1…n_classes-1, from two maps of class indices of equal shape.

    Missing structures count as in `score_case`; one pass over the voxels.

    Raises:
        GeometryError: the two shapes differ.
        LabelError: an index that is neither below `n_classes` nor the ignore index.
    """
    _check_shapes(reference, prediction)
    prediction = np.where(prediction == ignore_index, 0, prediction)
    counted = (reference != ignore_index) & ((reference != 0) | (prediction != 0))
    a, b = reference[counted].astype(np.int64), prediction[counted].astype(np.int64)
    highest = max(a.max(initial=0), b.max(initial=0))
    if highest >= n_classes:
        raise LabelError("class index out of range", found=highest, allowed=f"0…{n_classes - 1}, {ignore_index} (ignore)")
    joint = np.bincount(a * n_classes + b, minlength=n_classes**2).reshape(n_classes, n_classes)
    total = (joint.sum(axis=0) + joint.sum(axis=1))[1:]
    return tuple(float(2 * c / t) if t else None for c, t in zip(joint.diagonal()[1:], total))


def _surface(mask: np.ndarray) -> np.ndarray:
    """Mask of the voxels with background across a face. Along every axis but flat ones `mask` ends in background."""
    inner = mask.copy()
    for axis in (a for a in range(3) if mask.shape[a] > 1):
        for step in (-1, 1):
            inner &= np.roll(mask, step, axis=axis)
    return mask & ~inner


def _distances(start: np.ndarray, target: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Distance (mm) from every true voxel of `start` to the nearest one of `target`.

    The transform is asked for the nearest voxel, not for the distance: a sixth of the memory, since only surface voxels
    need theirs computed.
    """
    nearest = ndimage.distance_transform_edt(~target, sampling=spacing, return_distances=False, return_indices=True)
    steps = nearest[:, start] - np.stack(np.nonzero(start))
    return np.linalg.norm(steps * np.array(spacing)[:, None], axis=0)


def _joint_box(boxes: list[tuple[slice, ...]], shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Box around all `boxes`, one voxel larger where the array goes on; an empty one around none.

    With the extra voxel only an axis that is flat in the whole array is flat in the box.
    """
    if not boxes:
        return (slice(0, 0),) * len(shape)
    return tuple(
        slice(max(0, min(s.start for s in spans) - 1), min(n, max(s.stop for s in spans) + 1)) for n, *spans in zip(shape, *boxes)
    )


def _check_shapes(reference: np.ndarray, prediction: np.ndarray) -> None:
    if reference.shape != prediction.shape:
        raise GeometryError(
            "prediction and reference differ in shape",
            found=f"prediction {prediction.shape}",
            allowed=f"{reference.shape} as the reference",
            fix="predict on the image that the reference was drawn on, or resample one onto the other",
        )
