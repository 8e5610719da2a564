"""Preparing a case and coming home again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation
from scipy.special import softmax

from autoseg.errors import DataError, GeometryError, LabelError
from autoseg.imaging.alignment import check_alignment
from autoseg.imaging.geometry import Grid
from autoseg.imaging.image import Image, LabelMap
from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import NO_LANDMARKS, Landmarks, LandmarkSet, State
from autoseg.io import read_image, read_label_map
from autoseg.plan import ChannelPlan, DataPlan, SpacePlan
from autoseg.preprocessing.case import preprocess_case
from autoseg.preprocessing.normalize import MASKED
from autoseg.preprocessing.restore import restore_labels, restore_probabilities

LABELS = LabelSet(("a", "b"), (1, 2))


def _data(*schemes: str) -> DataPlan:
    return DataPlan(tuple(ChannelPlan(f"c{i}", s, 0, 1, -1, 1) for i, s in enumerate(schemes)), LABELS, NO_LANDMARKS)


def _space(*spacing: float, crop: str = "nonzero", order: int = 3) -> SpacePlan:
    return SpacePlan("LPS", spacing, 0 if len(spacing) == 2 else None, crop, order, 1)


def _image(data: np.ndarray, grid: Grid | None = None) -> Image:
    data = np.asarray(data, dtype=np.float32)
    grid = grid or Grid.from_spacing(data.shape[1:], (1, 1, 1))
    return Image(data, grid, tuple(f"c{i}" for i in range(len(data))))


def _label(data: np.ndarray, grid: Grid) -> LabelMap:
    return LabelMap(data.astype(np.uint8), grid, LABELS)


def _one_hot(indices: np.ndarray) -> np.ndarray:
    return np.stack([indices == k for k in range(3)]).astype(np.float32) * 10


def _turned(shape: tuple[int, int, int], order: tuple[int, ...], signs: tuple[int, ...]) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (row, sign) in enumerate(zip(order, signs)):
        affine[row, axis] = sign
    affine[:3, 3] = (3, -5, 8)
    return Grid(shape, affine)


def test_crop_and_normalise_by_hand() -> None:
    data = np.zeros((1, 3, 4, 5))
    data[0, 1, 1:3, 2:4] = [[1, 3], [1, 3]]
    label = np.zeros((3, 4, 5))
    label[1, 1, 2] = 2
    image = _image(data)
    prepared = preprocess_case(image, _label(label, image.grid), _data("zscore"), _space(1, 1, 1))
    assert prepared.image.dtype == np.float16
    assert prepared.image.tolist() == [[[[-1, 1], [-1, 1]]]]
    assert prepared.label is not None
    assert prepared.label.tolist() == [[[2, 0], [0, 0]]]
    assert (prepared.placement.crop.start, prepared.placement.crop.stop) == ((1, 1, 2), (2, 3, 4))
    assert prepared.placement.target.affine[:3, 3].tolist() == [2, 1, 1]


def test_crop_is_the_union_of_channels_and_normalisation_uses_it() -> None:
    data = np.zeros((2, 1, 1, 6))
    data[0, 0, 0, 1:3] = 2, 4
    data[1, 0, 0, 2:4] = 5, 7
    prepared = preprocess_case(_image(data), None, _data("zscore_nonzero", "none"), _space(1, 1, 1))
    assert prepared.placement.crop.start == (0, 0, 1)
    assert prepared.image.shape == (2, 1, 1, 3)
    values = np.array([2, 4, 0])  # the third voxel is nonzero in the other channel, so it counts
    np.testing.assert_allclose(prepared.image[0, 0, 0], (values - 2) / values.std(), rtol=1e-3)
    assert prepared.label is None


def test_no_crop_and_all_zero_image_keep_everything() -> None:
    data = np.zeros((1, 2, 3, 4))
    assert preprocess_case(_image(data), None, _data("zscore"), _space(1, 1, 1)).image.shape == (1, 2, 3, 4)
    data[0, 1, 1, 1] = 1
    masked = preprocess_case(_image(data), None, _data("zscore_nonzero"), _space(1, 1, 1, crop="none"))
    assert masked.image.shape == (1, 2, 3, 4)


def test_robust_scheme_uses_the_mask_of_all_channels() -> None:
    data = np.random.default_rng(0).normal(9, 1, (2, 4, 5, 6)).astype(np.float32)
    data[0, 0], data[1, 1] = 0, 0
    plain, robust = (preprocess_case(_image(data), None, _data(n, "none"), _space(1, 1, 1)) for n in MASKED)
    np.testing.assert_allclose(plain.image, robust.image, atol=0.1)  # one voxel at either end counts less
    assert plain.image[0, 0].all()  # 0 in this channel, but not in the other


def test_resampling_keeps_extent_and_lays_label_on_image() -> None:
    grid = Grid.from_spacing((10, 12, 14), (3, 1, 1))
    data = np.random.default_rng(0).uniform(1, 2, (1, 10, 12, 14))
    prepared = preprocess_case(_image(data, grid), _label(np.ones((10, 12, 14)), grid), _data("none"), _space(1.5, 2, 1))
    assert prepared.image.shape == (1, 20, 6, 14)
    assert prepared.label is not None
    assert prepared.label.shape == (20, 6, 14)
    assert prepared.label.all()
    assert prepared.placement.target.extent == pytest.approx(grid.extent)
    assert prepared.placement.target.spacing == pytest.approx((1.5, 2, 1))


def test_coarse_axis_takes_nearest_slices() -> None:
    grid = Grid.from_spacing((3, 8, 8), (5, 1, 1))
    data = np.repeat([1.0, 2.0, 4.0], 64).reshape(1, 3, 8, 8)
    prepared = preprocess_case(_image(data, grid), None, _data("none"), _space(2.5, 1, 1))
    assert prepared.image[0, :, 0, 0].tolist() == [1, 1, 2, 2, 4, 4]


def test_two_spacings_leave_slices_alone() -> None:
    grid = Grid.from_spacing((3, 8, 8), (5, 1, 1))
    prepared = preprocess_case(_image(np.ones((1, 3, 8, 8)), grid), None, _data("none"), _space(2, 0.5))
    assert prepared.image.shape == (1, 3, 4, 16)
    assert prepared.placement.target.spacing == pytest.approx((5, 2, 0.5))


def test_canonical_orientation_agrees_with_itk() -> None:
    data = np.random.default_rng(1).uniform(1, 2, (3, 4, 5)).astype(np.float32)
    image = sitk.GetImageFromArray(data)
    image.SetSpacing((1, 2, 3))
    image.SetOrigin((7, 8, 9))
    image.SetDirection((0, 0, -1, 1, 0, 0, 0, -1, 0))
    affine = np.eye(4)
    affine[:3, :3] = (np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing())[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    wanted = sitk.DICOMOrient(image, "LPS")
    prepared = preprocess_case(_image(data[None], Grid(data.shape, affine)), None, _data("none"), _space(2, 1, 3))
    np.testing.assert_array_equal(prepared.image[0], sitk.GetArrayFromImage(wanted).astype(np.float16))
    assert prepared.placement.target.affine[:3, 3] == pytest.approx(wanted.GetOrigin())


def test_channel_count_and_shapes_must_fit() -> None:
    with pytest.raises(DataError, match="number of channels differs from the plan; found: 1; allowed: 2"):
        preprocess_case(_image(np.ones((1, 2, 2, 2))), None, _data("none", "none"), _space(1, 1, 1))
    other = _label(np.ones((2, 2, 3)), Grid.from_spacing((2, 2, 3), (1, 1, 1)))
    with pytest.raises(GeometryError, match="differ in shape"):
        preprocess_case(_image(np.ones((1, 2, 2, 2))), other, _data("none"), _space(1, 1, 1))


def test_logits_of_another_shape_are_refused() -> None:
    placement = preprocess_case(_image(np.ones((1, 2, 2, 2))), None, _data("none"), _space(1, 1, 1)).placement
    for restore in (restore_labels, restore_probabilities):
        with pytest.raises(GeometryError, match="logits do not fit the prepared case"):
            restore(np.zeros((3, 2, 2, 3)), placement)


def test_probabilities_sum_to_one_and_agree_with_labels() -> None:
    grid = _turned((6, 7, 8), (1, 0, 2), (-1, 1, -1))
    data = np.zeros((1, 6, 7, 8))
    data[0, 1:5, 2:6, 1:7] = 1
    placement = preprocess_case(_image(data, grid), None, _data("none"), _space(0.5, 0.8, 1)).placement
    logits = np.random.default_rng(2).standard_normal((3, *placement.target.shape)).astype(np.float16)
    probabilities = restore_probabilities(logits, placement)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-6)
    assert (probabilities[:, data[0] == 0].T == [1, 0, 0]).all()
    np.testing.assert_array_equal(probabilities.argmax(axis=0), restore_labels(logits, placement))


def test_probabilities_are_softmax_where_nothing_is_resampled() -> None:
    placement = preprocess_case(_image(np.ones((1, 2, 3, 4))), None, _data("none"), _space(1, 1, 1)).placement
    logits = np.random.default_rng(3).normal(0, 30, (4, 2, 3, 4)).astype(np.float32)
    np.testing.assert_allclose(restore_probabilities(logits, placement), softmax(logits, axis=0), atol=1e-6)


turns = st.tuples(st.permutations((0, 1, 2)), st.tuples(*[st.sampled_from((-1, 1))] * 3))


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.integers(1, 7)] * 3), turns, st.integers(0, 99))
def test_restoring_undoes_preprocessing_exactly(shape: tuple[int, int, int], turn: tuple, seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid = _turned(shape, tuple(turn[0]), turn[1])
    data = rng.integers(0, 2, (1, *shape))
    label = rng.integers(0, 3, shape) * (data[0] != 0)
    prepared = preprocess_case(_image(data, grid), _label(label, grid), _data("zscore"), _space(1, 1, 1))
    assert prepared.label is not None
    home = restore_labels(_one_hot(prepared.label), prepared.placement)
    np.testing.assert_array_equal(home, label)
    assert home.flags.c_contiguous


@settings(max_examples=15, deadline=None)
@given(turns, st.floats(0.4, 1.5), st.floats(0.4, 1.5), st.integers(0, 99))
def test_a_ball_comes_home_from_another_resolution(turn: tuple, z: float, y: float, seed: int) -> None:
    grid = _turned((20, 22, 24), tuple(turn[0]), turn[1])
    centre = np.random.default_rng(seed).uniform(8, 12, 3)
    ball = ((np.indices(grid.shape).T - centre) ** 2).sum(axis=-1).T < 36
    prepared = preprocess_case(_image(np.ones((1, *grid.shape)), grid), _label(ball, grid), _data("none"), _space(z, y, 1))
    assert prepared.label is not None
    home = restore_labels(_one_hot(prepared.label), prepared.placement) == 1
    assert 2 * (home & ball).sum() / (home.sum() + ball.sum()) > 0.93


@pytest.mark.real
def test_real_label_map_comes_home_bit_exactly(real_data: Callable[[str], Path]) -> None:
    folder = real_data("Task04_Hippocampus")
    for path in sorted((folder / "imagesTr").glob("hippocampus*.nii.gz"))[:3]:
        image = read_image([path], ["MRI"])
        label = read_label_map(folder / "labelsTr" / path.name, LABELS)
        assert check_alignment(image, label) is None
        data = DataPlan((ChannelPlan("MRI", "zscore", 0, 1, 0, 1),), LABELS, NO_LANDMARKS)
        prepared = preprocess_case(image, label, data, _space(1, 1, 1))
        assert prepared.label is not None
        np.testing.assert_array_equal(restore_labels(_one_hot(prepared.label), prepared.placement), label.data)


NAMED = LandmarkSet(("a", "b", "c"))


def _with_landmarks(data: DataPlan) -> DataPlan:
    return replace(data, landmarks=NAMED)


def _found(points: np.ndarray, state: tuple[State, ...] = (State.PRESENT,) * 3) -> Landmarks:
    there = np.array(state)[:, None] == State.PRESENT
    return Landmarks(NAMED.names, np.where(there, points, np.nan), np.array(state))


@settings(max_examples=40, deadline=None)
@given(
    turns,
    st.tuples(*[st.floats(-0.4, 0.4)] * 3),
    st.tuples(*[st.floats(0.8, 1.6)] * 3),
    st.tuples(*[st.floats(0.8, 1.6)] * 3),
    st.integers(0, 99),
)
def test_voxels_of_points_are_where_the_image_shows_them(
    turn: tuple, tilt: tuple, spacing: tuple, target: tuple, seed: int
) -> None:
    """On oblique, flipped and cropped grids an image shows x, y, z of the world: at the prepared points those of the points."""
    shape, core = (16, 17, 18), (slice(None), slice(2, 15), slice(3, 16), slice(1, 17))
    affine = _turned(shape, tuple(turn[0]), turn[1]).affine.copy()
    affine[:3, :3] = Rotation.from_euler("xyz", tilt).as_matrix() @ affine[:3, :3] * spacing
    affine[:3, 3] = -affine[:3, :3] @ np.array(shape) / 2  # numbers of float16 are exact enough around 0
    grid = Grid(shape, affine)
    data = np.zeros((3, *shape))
    data[core] = grid.index_to_world(np.indices(shape).reshape(3, -1).T).T.reshape(data.shape)[core]
    points = grid.index_to_world(np.random.default_rng(seed).uniform(6, 12, (3, 3)))
    plan = _with_landmarks(_data("none", "none", "none"))
    prepared = preprocess_case(_image(data, grid), None, plan, _space(*target, order=1), _found(points))
    assert sorted(prepared.placement.crop.shape) == [13, 13, 16]
    seen = [ndimage.map_coordinates(c.astype(np.float64), prepared.points.T, order=1) for c in prepared.image]
    np.testing.assert_allclose(np.transpose(seen), points, atol=0.02)
    assert prepared.state.tolist() == [State.PRESENT] * 3


def test_points_outside_the_crop_stay_and_absent_ones_are_nan() -> None:
    data = np.zeros((1, 4, 4, 4))
    data[0, 2, 2, 2] = 1
    found = _found(np.array([[0.0, 1, 3]] * 3), (State.PRESENT, State.ABSENT, State.UNLABELLED))
    prepared = preprocess_case(_image(data), None, _with_landmarks(_data("none")), _space(1, 1, 1), found)
    assert prepared.image.shape == (1, 1, 1, 1)
    assert prepared.points[0].tolist() == [1, -1, -2]
    assert np.isnan(prepared.points[1:]).all()
    assert prepared.state.tolist() == [State.PRESENT, State.ABSENT, State.UNLABELLED]
    unknown = preprocess_case(_image(data), None, _with_landmarks(_data("none")), _space(1, 1, 1))
    assert (unknown.state.tolist(), np.isnan(unknown.points).all()) == ([State.UNLABELLED] * 3, True)
    without = preprocess_case(_image(data), None, _data("none"), _space(1, 1, 1))
    assert (without.points.shape, without.state.shape) == ((0, 3), (0,))


def test_other_landmarks_than_planned_are_refused() -> None:
    with pytest.raises(LabelError, match="landmarks differ from the plan; found: a, b, c; allowed: "):
        preprocess_case(_image(np.ones((1, 2, 2, 2))), None, _data("none"), _space(1, 1, 1), _found(np.zeros((3, 3))))
