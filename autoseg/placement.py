"""How a case lies on the plan's grid, and the way home."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoseg.geometry import AxisMap, Box, Grid


@dataclass(frozen=True)
class Placement:
    """The three steps from a file's grid to the prepared one, each of which can be undone.

    Args:
        source: grid of the file.
        axes: brings its array to the canonical orientation.
        crop: the part that is kept, in the canonical array.
        target: grid of the prepared case, over the extent of `crop`.
    """

    source: Grid
    axes: AxisMap
    crop: Box
    target: Grid


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a network sees of a case: `image` (C, Z, Y, X) float16 and `label` (Z, Y, X) class indices, or None."""

    image: np.ndarray
    label: np.ndarray | None
    placement: Placement
