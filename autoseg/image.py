"""Arrays together with the grid they live on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoseg.errors import GeometryError
from autoseg.geometry import Grid
from autoseg.labels import LabelSet


@dataclass(frozen=True, eq=False)
class Image:
    """`data` (C, Z, Y, X) float32 on `grid`; `channels` names them.

    Raises:
        GeometryError: data and grid differ in shape, or the number of names in the number of channels.
    """

    data: np.ndarray
    grid: Grid
    channels: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_shape(self.data, (len(self.channels), *self.grid.shape))


@dataclass(frozen=True, eq=False)
class LabelMap:
    """`data` (Z, Y, X) class indices (see `labels`) on `grid`.

    Raises:
        GeometryError: data and grid differ in shape.
    """

    data: np.ndarray
    grid: Grid
    labels: LabelSet

    def __post_init__(self) -> None:
        _check_shape(self.data, self.grid.shape)


def _check_shape(data: np.ndarray, wanted: tuple[int, ...]) -> None:
    if data.shape != wanted:
        raise GeometryError("array and grid do not agree", found=data.shape, allowed=wanted)
