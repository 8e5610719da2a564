from __future__ import annotations

import numpy as np
import pytest

from autoseg.errors import GeometryError
from autoseg.imaging.geometry import Grid
from autoseg.imaging.image import Image, LabelMap
from autoseg.imaging.labels import LabelSet

GRID = Grid.from_spacing((2, 3, 4), (1, 1, 1))
LABELS = LabelSet(("a",), (1,))


def test_data_that_fits_its_grid() -> None:
    assert Image(np.zeros((2, 2, 3, 4), np.float32), GRID, ("T1", "T2")).channels == ("T1", "T2")
    assert LabelMap(np.zeros((2, 3, 4), np.uint8), GRID, LABELS).labels is LABELS


@pytest.mark.parametrize("shape", [(1, 2, 3, 4), (2, 2, 3, 5), (2, 3, 4)])
def test_image_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError, match=r"array and grid do not agree; found: \(.*\); allowed: \(2, 2, 3, 4\)"):
        Image(np.zeros(shape, np.float32), GRID, ("T1", "T2"))


@pytest.mark.parametrize("shape", [(1, 2, 3, 4), (4, 3, 2)])
def test_label_map_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError, match=r"array and grid do not agree; found: \(.*\); allowed: \(2, 3, 4\)"):
        LabelMap(np.zeros(shape, np.uint8), GRID, LABELS)
