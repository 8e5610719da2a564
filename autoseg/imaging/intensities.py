"""Robust intensity levels of a volume, from an even sample of its voxels."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np

from autoseg.errors import DataError

TAIL = 0.5  # percent of the voxels at either end that robust normalization takes for outliers
SAMPLE = 2**20  # voxels at most that percentiles are taken of: 5000 of them lie beyond each


def strided(volume: np.ndarray, limit: int = SAMPLE) -> np.ndarray:
    """Subsample a volume: a view of every n-th voxel along each of the last three axes, at most
    `limit` voxels a volume.

    The longest axis is thinned out first, so that few slices stay, and the choice depends on the
    shape alone.
    """
    steps, counts = [1, 1, 1], list(volume.shape[-3:])
    while prod(counts) > limit:
        axis = counts.index(max(counts))
        steps[axis] += 1
        counts[axis] = -(-volume.shape[axis - 3] // steps[axis])
    z, y, x = (slice(None, None, step) for step in steps)
    return volume[..., z, y, x]


def check_not_blank(image: np.ndarray, source: Path | str | None = None) -> None:
    """Refuse an image (C, Z, Y, X) each of whose channels has one value everywhere: nothing can be learnt or predicted from it.

    Args:
        source: names the image in the message.

    Raises:
        DataError: the image is blank.
    """
    for channel in image:
        first = channel.flat[0]
        if np.any(strided(channel) != first) or np.any(channel != first):
            return
    raise DataError(
        "the image is blank",
        file=source,
        found=f"{', '.join(f'{channel.flat[0]:g}' for channel in image)} everywhere",
        fix="export it again, or take the case out",
    )


def clip_levels(values: np.ndarray) -> tuple[np.float32, np.float32]:
    """Percentiles 0.5 and 99.5 of some voxels: each is one of the values, the nearest by rank,
    without interpolation.
    """
    last = values.size - 1
    ranks = round(last * TAIL / 100), round(last * (100 - TAIL) / 100)
    parted = np.partition(values, ranks, axis=None)
    return np.float32(parted[ranks[0]]), np.float32(parted[ranks[1]])


def fences(low: np.float32, high: np.float32) -> tuple[np.float32, np.float32]:
    """Levels beyond which a value is an outlier: as far beyond the percentiles 0.5 and 99.5 as
    these lie apart.

    A small bright structure is often brighter than 99.5 % of the image. It stays as it is, since it
    is hardly brighter than the rest by the whole range of the image; a spike that would dominate
    mean and standard deviation is.
    """
    return low - (high - low), high + (high - low)
