from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from autoseg.errors import GeometryError
from autoseg.imaging.alignment import check_alignment, reordered
from autoseg.imaging.geometry import AxisMap, Grid, Triple
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


ORDERS = [(order, flip) for order in itertools.permutations(range(3)) for flip in itertools.product((False, True), repeat=3)]


@pytest.mark.parametrize(("order", "flip"), ORDERS)
def test_voxels_in_another_order_are_the_same_voxels(order: Triple, flip: tuple[bool, bool, bool]) -> None:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", (5, -8, 12), degrees=True).as_matrix() * (3.0, 1.0, 0.5)
    affine[:3, 3] = (7, -3, 2)
    grid, labels = Grid((3, 4, 5), affine), LabelSet(("a",), (1,))
    data = np.random.default_rng(0).integers(0, 2, (3, 4, 5)).astype(np.uint8)
    axes = AxisMap(order, flip)
    stored = LabelMap(np.ascontiguousarray(axes.apply(data)), grid.reoriented(axes), labels)
    found = reordered(stored, grid)
    np.testing.assert_array_equal(found.data, data)
    assert found.grid.corner_distance(grid) < 1e-9
    image = Image(np.ones((1, 3, 4, 5), np.float32), grid, ("MR",))
    assert check_alignment(image, found) is None


def test_other_voxels_stay_as_they_are() -> None:
    grid, labels = Grid.from_spacing((3, 4, 5), (3, 1, 1)), LabelSet(("a",), (1,))
    flipped = grid.reoriented(AxisMap((0, 1, 2), (False, True, False)))
    shifted = Grid(flipped.shape, flipped.affine + np.array([[0, 0, 0, 2.0]] + [[0.0] * 4] * 3))
    label_map = LabelMap(np.zeros((3, 4, 5), np.uint8), shifted, labels)
    assert reordered(label_map, grid) is label_map


def test_a_label_map_far_away_is_refused() -> None:
    far = Grid.from_spacing((4, 4, 4), (1, 1, 1)).affine.copy()
    far[1, 3] = 4.0
    with pytest.raises(GeometryError, match=r"in different places, with no voxel in common; found: 4 mm apart; .*4×4×4 mm"):
        check_alignment(*_pair(far))
