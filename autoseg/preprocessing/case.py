"""A case on the plan's grid.

Order of steps as in nnU-Net: orient, crop, normalise, resample. Normalising first keeps the mask of nonzero voxels exact.
"""

from __future__ import annotations

import numpy as np

from autoseg.errors import DataError, LabelError
from autoseg.imaging.alignment import shape_mismatch
from autoseg.imaging.geometry import Box, Grid, Triple, resampled_shape
from autoseg.imaging.image import Image, LabelMap
from autoseg.imaging.landmarks import Landmarks, State
from autoseg.imaging.resample import axis_orders, resample_image, resample_labels
from autoseg.plan import DataPlan, SpacePlan
from autoseg.preprocessing.normalize import MASKED, check_colour, normalize
from autoseg.preprocessing.placement import Placement, Prepared
from autoseg.preprocessing.prepared_size import check_prepared_size


def preprocess_case(
    image: Image, label: LabelMap | None, data: DataPlan, space: SpacePlan, landmarks: Landmarks | None = None
) -> Prepared:
    """Bring one case to canonical orientation, then crop, normalise and resample it.

    For 2D the slices stay as they are, each is resampled in its plane.

    Args:
        label: on the same voxels as the image, see `imaging.alignment.check_alignment`.
        landmarks: of the case, those of `data` in the same order; None if none is annotated. The crop
            may exclude landmarks, which keep their coordinates.

    Raises:
        DataError: another number of channels than planned; intensities that the normalisation cannot take.
        GeometryError: image and label map differ in shape; voxels so large that the case would be many times the image.
        LabelError: other landmarks than planned.
    """
    names = data.landmarks.names
    if landmarks is not None and landmarks.names != names:
        raise LabelError("landmarks differ from the plan", found=", ".join(landmarks.names), allowed=", ".join(names))
    if len(image.data) != len(data.channels):
        raise DataError("the number of channels differs from the plan", found=len(image.data), allowed=len(data.channels))
    if label is not None and label.grid.shape != image.grid.shape:
        raise shape_mismatch(image, label)
    check_colour(image.data, data.channels)
    axes = image.grid.canonical_axes()
    canonical = image.grid.reoriented(axes)
    voxels = axes.apply(image.data)
    crop, mask = _crop(voxels, data, space)
    voxels = voxels[(slice(None), *crop.slices)]
    cropped = canonical.crop(crop)
    shape = resampled_shape(crop.shape, cropped.spacing, _target_spacing(cropped, space))
    check_prepared_size(cropped, shape, space, len(data.channels))
    normalised = np.stack([normalize(v, c, mask) for v, c in zip(voxels, data.channels)])
    if shape != crop.shape:
        normalised = resample_image(normalised, shape, _orders(cropped, space, space.image_order))
    placement = Placement(image.grid, axes, crop, cropped.with_shape(shape))
    indices = None if label is None else preprocess_labels(label, placement, space)
    points, state = np.full((len(names), 3), np.nan), np.full(len(names), State.UNLABELLED, dtype=np.int64)
    if landmarks is not None:
        state[:] = landmarks.state
        points[landmarks.present] = placement.to_voxels(landmarks.points_mm[landmarks.present])
    return Prepared(normalised.astype(np.float16), indices, placement, points, state)


def preprocess_labels(label: LabelMap, placement: Placement, space: SpacePlan) -> np.ndarray:
    """(Z, Y, X) class indices on the prepared grid, of a label map on the voxels that `placement` starts from."""
    indices = np.ascontiguousarray(placement.axes.apply(label.data)[placement.crop.slices])
    if placement.target.shape == placement.crop.shape:
        return indices
    cropped = placement.source.reoriented(placement.axes).crop(placement.crop)
    return resample_labels(indices, placement.target.shape, _orders(cropped, space, space.label_order))


def _crop(voxels: np.ndarray, data: DataPlan, space: SpacePlan) -> tuple[Box, np.ndarray | None]:
    """Box to keep of (C, Z, Y, X), and the nonzero mask inside it where a channel's normalisation needs one."""
    everything = Box((0, 0, 0), voxels.shape[1:])
    masked = any(c.normalization in MASKED for c in data.channels)
    if space.crop != "nonzero" and not masked:
        return everything, None
    nonzero = voxels[0] != 0
    for channel in voxels[1:]:
        nonzero |= channel != 0
    box = (Box.around(nonzero) if space.crop == "nonzero" else None) or everything
    return box, nonzero[box.slices] if masked else None


def _target_spacing(cropped: Grid, space: SpacePlan) -> tuple[float, float, float]:
    """Spacing (z, y, x) mm of the prepared case; in 2D the distance of slices stays."""
    return space.in_volume(space.spacing_mm, cropped.spacing[space.slice_axis or 0])


def _orders(cropped: Grid, space: SpacePlan, order: int) -> Triple:
    """Interpolation order along (z, y, x). Across slices nothing is resampled, so their distance does not count in 2D."""
    return (order,) * 3 if len(space.spacing_mm) == 2 else axis_orders(cropped.spacing, _target_spacing(cropped, space), order)
