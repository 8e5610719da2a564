from __future__ import annotations

import numpy as np
import pytest

from autoseg.errors import GeometryError
from autoseg.imaging.alignment import check_alignment
from autoseg.imaging.geometry import Grid
from autoseg.imaging.image import Image, LabelMap
from autoseg.imaging.labels import LabelSet


def _pair(affine: np.ndarray, shape: tuple[int, int, int] = (4, 4, 4)) -> tuple[Image, LabelMap]:
    image = Image(np.ones((1, 4, 4, 4), np.float32), Grid.from_spacing((4, 4, 4), (1, 1, 1)), ("MR",))
    return image, LabelMap(np.zeros(shape, np.uint8), Grid(shape, affine), LabelSet(("a",), (1,)))


def test_label_maps_on_the_same_voxels() -> None:
    same = Grid.from_spacing((4, 4, 4), (1, 1, 1)).affine
    assert check_alignment(*_pair(same)) is None
    rounded = same.copy()
    rounded[:3, :3] *= 1.0005
    rounded[:3, 3] += 0.01
    assert check_alignment(*_pair(rounded)) is None
    shifted = same.copy()
    shifted[0, 3] = 2.5
    assert check_alignment(*_pair(shifted)) == "label header is off by 2.5 mm; voxels are paired by index"


def test_label_maps_on_other_grids() -> None:
    same = Grid.from_spacing((4, 4, 4), (1, 1, 1)).affine
    with pytest.raises(GeometryError, match="differ in shape"):
        check_alignment(*_pair(same, (4, 4, 5)))
    coarser = same.copy()
    coarser[:3, :3] *= 1.002
    with pytest.raises(GeometryError, match=r"differ in spacing; found: label 1.002×1.002×1.002 mm"):
        check_alignment(*_pair(coarser))
    mirrored = same.copy()
    mirrored[:, 2] *= -1
    with pytest.raises(GeometryError, match=r"differ in orientation; found: 180.0 degrees"):
        check_alignment(*_pair(mirrored))
    tilted = same.copy()
    c, s = np.cos(np.radians(2)), np.sin(np.radians(2))
    tilted[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ same[:3, :3]
    with pytest.raises(GeometryError, match=r"2.0 degrees"):
        check_alignment(*_pair(tilted))
