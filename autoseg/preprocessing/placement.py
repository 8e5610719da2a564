"""The position of a case on the plan's grid, and the way back to its own."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from autoseg.imaging.geometry import AxisMap, Box, Grid


@dataclass(frozen=True)
class Placement:
    """The three steps from a file's grid to the prepared one; each can be undone.

    Args:
        source: grid of the file.
        axes: brings its array to the canonical orientation.
        crop: the box that is kept of the canonical array.
        target: grid of the prepared case, over the extent of `crop`.
    """

    source: Grid
    axes: AxisMap
    crop: Box
    target: Grid

    def to_voxels(self, points_mm: np.ndarray) -> np.ndarray:
        """Convert (N, 3) world points (x, y, z) mm to fractional voxels (z, y, x) of the prepared grid, inside it or not."""
        return self.target.world_to_index(points_mm)

    def to_world(self, voxels: np.ndarray) -> np.ndarray:
        """Convert (N, 3) fractional voxels (z, y, x) of the prepared grid to world points (x, y, z) mm."""
        return self.target.index_to_world(voxels)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A case as a network sees it.

    Args:
        image: (C, Z, Y, X) float16.
        label: (Z, Y, X) class indices, or None.
        points: (N, 3) landmarks in fractional voxels (z, y, x) of the prepared grid, also outside it;
            NaN unless present.
        state: (N,) values of `landmarks.State`.
    """

    image: np.ndarray
    label: np.ndarray | None
    placement: Placement
    points: np.ndarray = field(default_factory=lambda: np.empty((0, 3)))
    state: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))


def canonical_crop(array: np.ndarray, axes: AxisMap, crop: Box) -> np.ndarray:
    """View of the crop of a source-shaped array in canonical orientation, for writing to the source array."""
    return axes.apply(array)[crop.slices]
