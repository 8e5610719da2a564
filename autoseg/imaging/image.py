"""Images and label maps: arrays with the grid that their voxels lie on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoseg.errors import GeometryError
from autoseg.imaging.geometry import Grid
from autoseg.imaging.labels import LabelSet


@dataclass(frozen=True, eq=False)
class Image:
    """Intensities of one or more channels on a grid.

    Args:
        data: (C, Z, Y, X) float32.
        channels: names of the C channels.

    Raises:
        GeometryError: data and grid differ in shape, or the number of names in the number of
            channels.
    """

    data: np.ndarray
    grid: Grid
    channels: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_shape(self.data, (len(self.channels), *self.grid.shape))


@dataclass(frozen=True, eq=False)
class LabelMap:
    """Class indices on a grid.

    Args:
        data: (Z, Y, X) unsigned integers, see `labels`.

    Raises:
        GeometryError: data and grid differ in shape.
    """

    data: np.ndarray
    grid: Grid
    labels: LabelSet

    def __post_init__(self) -> None:
        _check_shape(self.data, self.grid.shape)


def _check_shape(data: np.ndarray, shape: tuple[int, ...]) -> None:
    if data.shape != shape:
        raise GeometryError("array and grid do not agree", found=data.shape, allowed=shape)
