"""Measurements of one case: sizes, spacing, intensities, the weight of outliers, and where
structures and landmarks lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.fingerprint.landmarks import CasePoints, case_points
from autoseg.imaging.geometry import AxisMap, Box, Grid, Triple
from autoseg.imaging.image import Image, LabelMap
from autoseg.imaging.intensities import clip_levels, fences, strided
from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import Landmarks

SCHEMA_VERSION = 5  # of what is measured, and so of fingerprint.json; what another version has measured is measured again
TAIL_VOXELS = 2**15  # that `Tails` are measured on: 160 of them lie beyond each percentile
NEAR_LANDMARKS = 1 / 16
"""Half the edge of the cube around a landmark whose voxels count as its intensities, as a share of
the longest edge of the image. A convention: 4 cm in the head of a man.
"""


@dataclass(frozen=True)
class Moments:
    """Mean, variance and range of one channel's intensities in the structures of one case, or near
    its landmarks.
    """

    mean: float
    variance: float
    min: float
    max: float


@dataclass(frozen=True)
class Tails:
    """Weight of the outliers of one channel of one case, and how much of the structures they are.

    Args:
        tail_ratio: standard deviation inside the crop after clipping to its percentiles 0.5 and
            99.5, as a share of that without clipping: 1 without tails, 0.98 for a normal
            distribution, small where a few voxels dominate.
        tail_ratio_nonzero: this ratio over the voxels that are not 0 in some channel.
        cut_share: the largest share of a structure's voxels that are outliers by
            `intensities.fences`, and would be cut.
    """

    tail_ratio: float
    tail_ratio_nonzero: float
    cut_share: float


@dataclass(frozen=True)
class CaseFingerprint:
    """Measurements of one case, axes in canonical (z, y, x) order; spacing in mm.

    Args:
        digest: sha256 over the image and label files and the case's landmarks.
        shape_after_crop: of the box around everything that is not 0 in some channel.
        voxels: of each structure, in the order of the label set; empty without a label map.
        lateral_positions: of each structure, the mean of its voxels from right (0) to left (1)
            across the image; None where it is absent; empty without a label map.
        intensities: one per channel: in the structures or, where there are none, near the
            landmarks; none without either.
        tails: one per channel.
        remark: what is odd about the case but does not prevent its use, or empty.
        states, points: of each landmark of the dataset, as `CasePoints` has them; empty in a
            dataset without landmarks.
        n_outside_crop: landmarks in the image but outside the box around everything that is not 0.

    nnU-Net's fingerprints hold less: there `voxels`, `lateral_positions`, `intensities` and `tails`
    are empty.
    """

    name: str
    digest: str
    spacing: tuple[float, float, float]
    shape: Triple
    shape_after_crop: Triple
    voxels: tuple[int, ...]
    lateral_positions: tuple[float | None, ...]
    intensities: tuple[Moments, ...]
    tails: tuple[Tails, ...]
    remark: str
    states: tuple[int, ...] = ()
    points: tuple[tuple[float, float, float] | None, ...] = ()
    n_outside_crop: int = 0

    @property
    def landmarks(self) -> CasePoints:
        """The landmarks of the case; none in a dataset without."""
        return CasePoints(self.name, self.spacing, self.shape, self.states, self.points)

    @property
    def has_label_map(self) -> bool:
        return bool(self.voxels)


def measure_case(
    name: str,
    image: Image,
    label_map: LabelMap | None,
    labels: LabelSet,
    *,
    digest: str = "",
    remark: str = "",
    landmarks: Landmarks | None = None,
) -> tuple[CaseFingerprint, list[np.ndarray]]:
    """Measures a case, whose image is not blank.

    Returns:
        The measurements, and for each channel its sorted intensities in the structures or, without
        structures, near the landmarks; no channel where there are none of these either.
    """
    nonzero = np.any(image.data, axis=0)
    box = Box.around(nonzero) or Box((0, 0, 0), nonzero.shape)
    axes = image.grid.canonical_axes()
    grid = image.grid.reoriented(axes)
    voxels = np.zeros(0, dtype=np.int64)
    lateral_positions: tuple[float | None, ...] = ()
    foreground = np.zeros(box.shape, dtype=bool)
    classes = np.zeros(0, dtype=np.int64)
    if label_map is not None:
        indices = label_map.data[box.slices]
        foreground = (indices > 0) & (indices != labels.ignore_index)
        classes = indices[foreground]
        voxels = np.bincount(classes, minlength=labels.n_classes)[1:]
        x = _canonical_x(box, axes, grid.shape[2])[foreground]
        lateral_positions = _lateral_positions(x, classes, voxels, grid.shape[2])
    structure_voxels = voxels
    if landmarks is not None and not classes.size:  # then what lies around the landmarks counts as one structure
        foreground = _near_landmarks(landmarks, image.grid, box)
        classes = np.ones(np.count_nonzero(foreground), dtype=np.int64)
        structure_voxels = np.array([classes.size])
    channels = [channel[box.slices][foreground] for channel in image.data]
    points = None if landmarks is None else case_points(name, landmarks, image.grid)
    fingerprint = CaseFingerprint(
        name=name,
        digest=digest,
        spacing=grid.spacing,
        shape=grid.shape,
        shape_after_crop=tuple(box.shape[a] for a in axes.order),  # type: ignore[arg-type]
        voxels=tuple(int(n) for n in voxels),
        lateral_positions=lateral_positions,
        intensities=tuple(_moments(v) for v in channels if v.size),
        tails=tuple(
            _tails(channel[box.slices], nonzero[box.slices], intensities, classes, structure_voxels)
            for channel, intensities in zip(image.data, channels)
        ),
        remark=remark,
        states=() if points is None else points.state,
        points=() if points is None else points.points,
        n_outside_crop=0 if landmarks is None else _count_outside_crop(landmarks, image.grid, box),
    )
    return fingerprint, [np.sort(v) for v in channels if v.size]


def _near_landmarks(landmarks: Landmarks, grid: Grid, box: Box) -> np.ndarray:
    """Mask of the box: cubes around the landmarks that are present; empty where none is, or none in
    the box.
    """
    mask = np.zeros(box.shape, dtype=bool)
    reach = NEAR_LANDMARKS * max(n * s for n, s in zip(grid.shape, grid.spacing)) / np.array(grid.spacing)
    for index in grid.world_to_index(landmarks.points_mm[landmarks.present]) - box.start:
        low = np.clip(np.ceil(index - reach), 0, box.shape).astype(int)
        high = np.clip(np.floor(index + reach) + 1, 0, box.shape).astype(int)
        mask[tuple(map(slice, low, high))] = True
    return mask


def _count_outside_crop(landmarks: Landmarks, grid: Grid, box: Box) -> int:
    """Number of landmarks in the image, but not in the box."""
    index = grid.world_to_index(landmarks.points_mm[landmarks.present])

    def within(start: Sequence[int], stop: Sequence[int]) -> np.ndarray:
        low, high = np.array(start) - 0.5, np.array(stop) - 0.5
        inside: np.ndarray = np.all((index >= low) & (index <= high), axis=1)
        return inside

    return int(np.count_nonzero(within((0, 0, 0), grid.shape) & ~within(box.start, box.stop)))


def _moments(values: np.ndarray) -> Moments:
    return Moments(
        mean=float(values.mean(dtype=np.float64)),
        variance=float(values.var(dtype=np.float64)),
        min=float(values.min()),
        max=float(values.max()),
    )


def _canonical_x(box: Box, axes: AxisMap, width: int) -> np.ndarray:
    """Index of each voxel of the box along canonical x, counted from the right of the whole image;
    broadcasts to the box.

    Args:
        width: voxels of the whole image along canonical x.
    """
    axis = axes.order[2]
    x = np.arange(box.start[axis], box.stop[axis])
    if axes.flip[2]:
        x = width - 1 - x
    return np.broadcast_to(x.reshape([-1 if a == axis else 1 for a in range(3)]), box.shape)


def _lateral_positions(x: np.ndarray, classes: np.ndarray, voxels: np.ndarray, width: int) -> tuple[float | None, ...]:
    """Mean position of each structure from edge (0) to edge (1) of the image along canonical x;
    None where it is absent.

    Args:
        x: index along canonical x of each voxel that belongs to a structure.
        classes: class index of each of these voxels.
        voxels: number of them in each structure.
        width: voxels of the whole image along canonical x.
    """
    sums = np.bincount(classes, weights=x, minlength=len(voxels) + 1)[1:]
    return tuple(float((s / n + 0.5) / width) if n else None for s, n in zip(sums, voxels))


def _tails(volume: np.ndarray, nonzero: np.ndarray, intensities: np.ndarray, classes: np.ndarray, voxels: np.ndarray) -> Tails:
    """Tails of one channel.

    Args:
        volume: the crop of the channel.
        nonzero: mask of the crop: voxels that are not 0 in some channel.
        intensities: of the channel, in the voxels of all structures.
        classes: class index of each of these voxels.
        voxels: number of them in each structure.
    """
    sample = strided(volume, TAIL_VOXELS)
    body = sample[strided(nonzero, TAIL_VOXELS)]
    low, high = clip_levels(sample)
    low_body, high_body = clip_levels(body) if body.size else (low, high)
    bottom, top = zip(fences(low, high), fences(low_body, high_body))
    outliers = (intensities < max(bottom)) | (intensities > min(top))
    cut = np.bincount(classes[outliers], minlength=len(voxels) + 1)[1:]
    return Tails(
        tail_ratio=_tail_ratio(sample, low, high),
        tail_ratio_nonzero=_tail_ratio(body, low_body, high_body),
        cut_share=max((float(a / n) for a, n in zip(cut, voxels) if n), default=0.0),
    )


def _tail_ratio(values: np.ndarray, low: np.float32, high: np.float32) -> float:
    """Standard deviation after clipping, as a share of that before; 1 where nothing varies."""
    sd = float(values.std(dtype=np.float64)) if values.size else 0.0
    return float(values.clip(low, high).std(dtype=np.float64)) / sd if sd > 0 else 1.0


def quantiles(ordered: np.ndarray, count: int) -> np.ndarray:
    """`count` values that stand for equal shares of a sorted sample: the middle of each share."""
    middle = (2 * np.arange(count, dtype=np.int64) + 1) * ordered.size // (2 * count)
    return ordered[middle]
