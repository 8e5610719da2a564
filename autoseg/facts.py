"""What is measured of one case: sizes, spacing, intensities, how much outliers weigh, and where its structures lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoseg.geometry import AxisMap, Box, Triple
from autoseg.image import Image, LabelMap
from autoseg.labels import LabelSet
from autoseg.normalize import clip_levels, fences, strided

SCHEMA_VERSION = 2  # of what is measured, and so of fingerprint.json; facts of another version are taken again
TAIL_VOXELS = 2**15  # that `Tails` are measured on: 160 of them lie beyond each percentile


@dataclass(frozen=True)
class Moments:
    """Intensities of one channel in the structures of one case."""

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
class CaseFacts:
    """One case, axes in canonical (z, y, x) order; spacing in mm.

    Args:
        digest: sha256 over the image and label files.
        shape_after_crop: of the box around everything that is not 0 in some channel.
        voxels: of each structure, in the order of the label set.
        places: of each structure, the mean of its voxels from right (0) to left (1) across the image; None where it is absent.
        intensities: one per channel; none for a case without structures.
        tails: one per channel.
        remark: what is odd about the case but does not prevent its use, or empty.

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


def measure(
    name: str, digest: str, image: Image, label_map: LabelMap, labels: LabelSet, remark: str
) -> tuple[CaseFacts, list[np.ndarray]] | None:
    """The facts of a case, and for each channel its sorted intensities in the structures; no channel without structures.

    None for an image that holds nothing but zeros.
    """
    nonzero = np.any(image.data, axis=0)
    box = Box.around(nonzero)
    if box is None:
        return None
    values = label_map.data[box.slices]
    inside = (values > 0) & (values != labels.ignore_index)
    classes = values[inside]
    voxels = np.bincount(classes, minlength=labels.n_classes)[1:]
    axes = image.grid.canonical_axes()
    grid = image.grid.reoriented(axes)
    channels = [channel[box.slices][inside] for channel in image.data]
    facts = CaseFacts(
        name=name,
        digest=digest,
        spacing=grid.spacing,
        shape=grid.shape,
        shape_after_crop=tuple(box.shape[a] for a in axes.order),  # type: ignore[arg-type]
        voxels=tuple(int(n) for n in voxels),
        places=_places(classes, voxels, inside, box, axes, grid.shape[2]),
        intensities=tuple(_moments(v) for v in channels if v.size),
        tails=tuple(
            _tails(channel[box.slices], nonzero[box.slices], classes, voxels, own) for channel, own in zip(image.data, channels)
        ),
        remark=remark,
    )
    return facts, [np.sort(v) for v in channels if v.size]


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
