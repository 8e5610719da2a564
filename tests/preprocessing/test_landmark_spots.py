"""Spots around landmarks, drawn by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from helpers.landmark_phantoms import make_dataset, make_landmark_plan

from autoseg.imaging.geometry import AxisMap, Box, Grid
from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import Landmarks, LandmarkSet, State
from autoseg.plan import LandmarkPlan
from autoseg.preprocessing.landmark_spots import mirrored_previous_classes, paint_landmarks, paint_spots
from autoseg.preprocessing.placement import Placement

NOWHERE = (np.nan,) * 3


def test_spots_by_hand() -> None:
    points = np.array([[0, 1.2, 1], [0, 1, 4], NOWHERE, [0, 9, 9]])
    assert paint_spots(points, (1, 1, 1), (1, 3, 6))[0].tolist() == [
        [0, 0, 0, 0, 2, 0],
        [0, 1, 0, 2, 2, 2],
        [0, 1, 0, 0, 2, 0],
    ]


def test_a_voxel_goes_to_the_nearest_point() -> None:
    points = np.array([[0, 0, 2.0], [0, 0, 5.0]])
    assert paint_spots(points, (0, 0, 3), (1, 1, 9))[0, 0].tolist() == [1, 1, 1, 1, 2, 2, 2, 2, 2]
    assert paint_spots(points[::-1], (0, 0, 3), (1, 1, 9))[0, 0].tolist() == [2, 2, 2, 2, 1, 1, 1, 1, 1]


def test_smallest_spot_is_one_voxel_and_many_spots_are_uint16() -> None:
    spots = paint_spots(np.array([[0.4, 0.6, 1.4]]), (0.1, 0.1, 0.1), (2, 2, 3))
    assert (spots.dtype, np.argwhere(spots).tolist()) == (np.uint8, [[0, 1, 1]])
    many = paint_spots(np.stack([np.zeros(300), np.zeros(300), np.arange(300.0)], axis=1), (0, 0, 0), (1, 1, 300))
    assert (many.dtype, many[0, 0].tolist()) == (np.uint16, list(range(1, 301)))


def test_spots_lie_where_landmarks_do_on_any_grid(tmp_path: Path) -> None:
    plan = make_landmark_plan(make_dataset(tmp_path / "data", 1))
    before = replace(plan.configurations["3d_fullres"], landmarks=LandmarkPlan((3.0, 2.0, 2.0), "spatial_ce", None))
    source = Grid((20, 30, 40), np.array([[0, -1, 0, 7], [0.8, 0, 0.6, -3], [-0.6, 0, 0.8, 5], [0, 0, 0, 1.0]]))
    axes = AxisMap((1, 0, 2), (True, False, True))
    target = source.reoriented(axes).crop(Box((2, 1, 3), (28, 19, 37))).with_shape((13, 18, 34))
    placement = Placement(source, axes, Box((2, 1, 3), (28, 19, 37)), target)
    voxels = np.array([[4.3, 9.1, 20.2], [6.0, 2.0, 5.0], [9.0, 9.0, 9.0]])
    points = target.index_to_world(voxels)
    points[2] = np.nan
    states = np.array([State.PRESENT, State.PRESENT, State.ABSENT])
    spots = paint_landmarks(Landmarks(("a", "b", "c"), points, states), placement, before)
    assert spots.shape == target.shape
    for number, voxel in ((1, voxels[0]), (2, voxels[1])):
        inside = np.argwhere(spots == number)
        assert np.abs(inside.mean(0) - voxel).max() < 0.5
        reach = np.abs(inside - voxel).max(0) * target.spacing
        assert (reach <= np.array([3, 2, 2]) + 1e-6).all()
        assert (reach > np.array([3, 2, 2]) - 1.01 * np.array(target.spacing)).all()
    assert set(np.unique(spots)) == {0, 1, 2}


def test_spots_of_a_2d_stage_stay_in_their_slice(tmp_path: Path) -> None:
    (before,) = make_landmark_plan(make_dataset(tmp_path / "data", 1, pictures=True), pictures=True).configurations.values()
    grid = Grid.from_spacing((5, 32, 40), (1, 1, 1))
    placement = Placement(grid, AxisMap((0, 1, 2), (False,) * 3), Box((0, 0, 0), grid.shape), grid)
    spots = paint_landmarks(Landmarks(("a",), np.array([[20.0, 10, 2]]), np.array([State.PRESENT])), placement, before)
    assert [bool(s.any()) for s in spots] == [False, False, True, False, False]


def test_numbers_that_change_places_with_the_sides() -> None:
    pairs = LandmarkSet(("a", "l", "r"), (("l", "r"),))
    assert mirrored_previous_classes(LabelSet((), ()), pairs) == (0, 1, 3, 2)
    assert mirrored_previous_classes(LabelSet((), ()), replace(pairs, one_sided=("a",))) == (0, 0, 3, 2)
    liver = LabelSet(("liver",), (1,))
    assert mirrored_previous_classes(liver, pairs) == liver.mirror_partners == (0, 1)
