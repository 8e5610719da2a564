"""What is measured of one case: sizes, spacing, intensities, how much outliers weigh, and where structures and landmarks lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.fingerprint.landmarks import CasePoints, place_points
from autoseg.imaging.geometry import AxisMap, Box, Grid, Triple
from autoseg.imaging.image import Image, LabelMap
from autoseg.imaging.intensities import clip_levels, fences, strided
from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import Landmarks

SCHEMA_VERSION = 3  # of what is measured, and so of fingerprint.json; facts of another version are taken again
TAIL_VOXELS = 2**15  # that `Tails` are measured on: 160 of them lie beyond each percentile


NEAR_LANDMARKS = 1 / 16
"""Of the longest edge of the image: so far along each axis from a landmark lies what its intensities are. A convention: 4 cm
in the head of a man."""


@dataclass(frozen=True)
class Moments:
    """Intensities of one channel in the structures of one case, or near its landmarks."""

    mean: float
    variance: float
    min: float
    max: float


@dataclass(frozen=True)
class Tails:
    """How much the outliers of one channel of one case weigh, and whether they are what is looked for.

    Args:
        spread: standard deviation inside the crop after clipping to its percentiles 0.5 and 99.5, as a share of that before:
            1 without tails, 0.98 for a normal distribution, small where a few voxels dominate.
        spread_nonzero: the same of the voxels that are not 0 in some channel.
        cut: the largest share of a structure's voxels that are outliers by `normalize.fences`, and would be cut.
    """

    spread: float
    spread_nonzero: float
    cut: float


@dataclass(frozen=True)
class CaseFingerprint:
    """One case, axes in canonical (z, y, x) order; spacing in mm.

    Args:
        digest: sha256 over the image and label files and the case's landmarks.
        shape_after_crop: of the box around everything that is not 0 in some channel.
        voxels: of each structure, in the order of the label set; empty without a label map.
        places: of each structure, the mean of its voxels from right (0) to left (1) across the image; None where it is absent;
            empty without a label map.
        intensities: one per channel: in the structures or, where there are none, near the landmarks; none without either.
        tails: one per channel.
        remark: what is odd about the case but does not prevent its use, or empty.
        states, points: of each landmark of the dataset, as `CasePoints` has them; empty in a dataset without landmarks.
        beyond_crop: landmarks in the image but outside the box around everything that is not 0.

    nnU-Net's fingerprints hold less: there `voxels`, `places`, `intensities` and `tails` are empty.
    """

    name: str
    digest: str
    spacing: tuple[float, float, float]
    shape: Triple
    shape_after_crop: Triple
    voxels: tuple[int, ...]
    places: tuple[float | None, ...]
    intensities: tuple[Moments, ...]
    tails: tuple[Tails, ...]
    remark: str
    states: tuple[int, ...] = ()
    points: tuple[tuple[float, float, float] | None, ...] = ()
    beyond_crop: int = 0

    @property
    def landmarks(self) -> CasePoints:
        """Where the landmarks are; none in a dataset without."""
        return CasePoints(self.name, self.spacing, self.shape, self.states, self.points)

    @property
    def has_label_map(self) -> bool:
        return bool(self.voxels)


def measure_case(
    name: str,
    digest: str,
    image: Image,
    label_map: LabelMap | None,
    labels: LabelSet,
    remark: str,
    landmarks: Landmarks | None = None,
) -> tuple[CaseFingerprint, list[np.ndarray]] | None:
    """The facts of a case, and for each channel its sorted intensities in the structures or, without structures, near the
    landmarks; no channel where there are none of these either.

    None for an image that holds nothing but zeros.
    """
    nonzero = np.any(image.data, axis=0)
    box = Box.around(nonzero)
    if box is None:
        return None
    axes = image.grid.canonical_axes()
    grid = image.grid.reoriented(axes)
    voxels = np.zeros(0, dtype=np.int64)
    places: tuple[float | None, ...] = ()
    inside = np.zeros(box.shape, dtype=bool)
    classes = np.zeros(0, dtype=np.int64)
    if label_map is not None:
        values = label_map.data[box.slices]
        inside = (values > 0) & (values != labels.ignore_index)
        classes = values[inside]
        voxels = np.bincount(classes, minlength=labels.n_classes)[1:]
        places = _places(classes, voxels, inside, box, axes, grid.shape[2])
    parts = voxels
    if landmarks is not None and not classes.size:  # then what lies around the landmarks counts as one structure
        inside = _near(landmarks, image.grid, box)
        classes = np.ones(np.count_nonzero(inside), dtype=np.int64)
        parts = np.array([classes.size])
    channels = [channel[box.slices][inside] for channel in image.data]
    placed = None if landmarks is None else place_points(name, landmarks, image.grid)
    facts = CaseFingerprint(
        name=name,
        digest=digest,
        spacing=grid.spacing,
        shape=grid.shape,
        shape_after_crop=tuple(box.shape[a] for a in axes.order),  # type: ignore[arg-type]
        voxels=tuple(int(n) for n in voxels),
        places=places,
        intensities=tuple(_moments(v) for v in channels if v.size),
        tails=tuple(
            _tails(channel[box.slices], nonzero[box.slices], classes, parts, own) for channel, own in zip(image.data, channels)
        ),
        remark=remark,
        states=() if placed is None else placed.state,
        points=() if placed is None else placed.points,
        beyond_crop=0 if landmarks is None else _beyond(landmarks, image.grid, box),
    )
    return facts, [np.sort(v) for v in channels if v.size]


def _near(landmarks: Landmarks, grid: Grid, box: Box) -> np.ndarray:
    """Mask of the box: cubes around the landmarks that are present; nothing where none is, or none in the box."""
    mask = np.zeros(box.shape, dtype=bool)
    reach = NEAR_LANDMARKS * max(n * s for n, s in zip(grid.shape, grid.spacing)) / np.array(grid.spacing)
    for index in grid.world_to_index(landmarks.points_mm[landmarks.present]) - box.start:
        low = np.clip(np.ceil(index - reach), 0, box.shape).astype(int)
        high = np.clip(np.floor(index + reach) + 1, 0, box.shape).astype(int)
        mask[tuple(map(slice, low, high))] = True
    return mask


def _beyond(landmarks: Landmarks, grid: Grid, box: Box) -> int:
    """Landmarks in the image, but not in the box."""
    index = grid.world_to_index(landmarks.points_mm[landmarks.present])

    def within(start: Sequence[int], stop: Sequence[int]) -> np.ndarray:
        low, high = np.array(start) - 0.5, np.array(stop) - 0.5
        held: np.ndarray = np.all((index >= low) & (index <= high), axis=1)
        return held

    return int(np.count_nonzero(within((0, 0, 0), grid.shape) & ~within(box.start, box.stop)))


def _moments(values: np.ndarray) -> Moments:
    return Moments(
        mean=float(values.mean(dtype=np.float64)),
        variance=float(values.var(dtype=np.float64)),
        min=float(values.min()),
        max=float(values.max()),
    )


def _places(
    classes: np.ndarray, voxels: np.ndarray, inside: np.ndarray, box: Box, axes: AxisMap, width: int
) -> tuple[float | None, ...]:
    """Mean place along canonical x, from edge (0) to edge (1) of the image.

    Args:
        classes: class index of each voxel of the mask `inside`, which lies at `box`.
        voxels: of each structure.
        width: voxels of the whole image along x.
    """
    axis = axes.order[2]
    along = np.arange(box.start[axis], box.stop[axis])
    if axes.flip[2]:
        along = width - 1 - along
    here = np.broadcast_to(along.reshape([-1 if a == axis else 1 for a in range(3)]), inside.shape)[inside]
    sums = np.bincount(classes, weights=here, minlength=len(voxels) + 1)[1:]
    return tuple(float((s / n + 0.5) / width) if n else None for s, n in zip(sums, voxels))


def _tails(volume: np.ndarray, nonzero: np.ndarray, classes: np.ndarray, voxels: np.ndarray, own: np.ndarray) -> Tails:
    """Of the crop of a channel; `own` are its intensities in the structures, of the classes `classes`."""
    sample = strided(volume, TAIL_VOXELS)
    body = sample[strided(nonzero, TAIL_VOXELS)]
    low, high = clip_levels(sample)
    low_body, high_body = clip_levels(body) if body.size else (low, high)
    bottom, top = zip(fences(low, high), fences(low_body, high_body))
    beyond = (own < max(bottom)) | (own > min(top))
    lost = np.bincount(classes[beyond], minlength=len(voxels) + 1)[1:]
    return Tails(
        spread=_spread(sample, low, high),
        spread_nonzero=_spread(body, low_body, high_body),
        cut=max((float(a / n) for a, n in zip(lost, voxels) if n), default=0.0),
    )


def _spread(values: np.ndarray, low: np.float32, high: np.float32) -> float:
    before = float(values.std(dtype=np.float64)) if values.size else 0.0
    return float(values.clip(low, high).std(dtype=np.float64)) / before if before > 0 else 1.0


def quantiles(ordered: np.ndarray, count: int) -> np.ndarray:
    """`count` values that stand for equal shares of a sorted sample: the middle of each share."""
    middle = (2 * np.arange(count, dtype=np.int64) + 1) * ordered.size // (2 * count)
    return ordered[middle]
