"""Resampling: by hand, against scikit-image and scipy, and properties."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage as ndi
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import resize

from autoseg.errors import UsageError
from autoseg.imaging.resample import axis_matrix, axis_orders, resample_argmax, resample_image, resample_labels

shapes = st.tuples(*[st.integers(1, 9)] * 3)


def _resized(volume: np.ndarray, shape: tuple[int, ...], order: int) -> np.ndarray:
    return resize(volume, shape, order, mode="edge", anti_aliasing=False, preserve_range=True)


def test_linear_matrix_by_hand() -> None:
    assert axis_matrix(2, 4, 1).tolist() == [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    assert axis_matrix(4, 2, 1).tolist() == [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]


def test_nearest_matrix_by_hand() -> None:
    assert axis_matrix(2, 4, 0).argmax(axis=1).tolist() == [0, 0, 1, 1]
    assert axis_matrix(4, 2, 0).argmax(axis=1).tolist() == [1, 3]  # a tie goes to the upper voxel
    assert axis_matrix(3, 2, 0).argmax(axis=1).tolist() == [0, 2]


@pytest.mark.parametrize("order", [0, 1, 3])
def test_same_size_is_identity(order: int) -> None:
    np.testing.assert_allclose(axis_matrix(7, 7, order), np.eye(7), atol=1e-7)


def test_matrix_is_cached_and_read_only() -> None:
    matrix = axis_matrix(5, 8, 3)
    assert matrix is axis_matrix(5, 8, 3)
    assert matrix.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        matrix[0, 0] = 1


def test_unknown_order_and_empty_axis() -> None:
    with pytest.raises(UsageError, match="unknown interpolation order; found: 2"):
        axis_matrix(3, 4, 2)
    with pytest.raises(UsageError, match="at least one voxel; found: 3 to 0"):
        axis_matrix(3, 0, 1)


def test_constant_stays_constant_and_ramp_stays_a_ramp() -> None:
    for order in (0, 1, 3):
        np.testing.assert_allclose(axis_matrix(40, 61, order) @ np.full(40, 7.0), 7.0, rtol=1e-6)
    inner = axis_matrix(60, 90, 3) @ np.arange(60.0)
    np.testing.assert_allclose(np.diff(inner)[30:-30], 60 / 90, atol=1e-5)


def test_separate_axis_rule() -> None:
    assert axis_orders((1, 1, 1), (1, 1, 1), 3) == (3, 3, 3)
    assert axis_orders((5, 1, 1), (1, 1, 1), 3) == (0, 3, 3)
    assert axis_orders((3, 1, 1), (1, 1, 1), 3) == (3, 3, 3)  # not more than three times
    assert axis_orders((1, 1, 1), (1, 1, 4), 1) == (1, 1, 0)  # sought in the target second
    assert axis_orders((5, 1, 1), (1, 9, 1), 1) == (0, 1, 1)  # and in the source first
    assert axis_orders((5, 5, 1), (1, 1, 1), 3) == (3, 3, 3)  # no single coarse axis


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("target", [(31, 17, 40), (9, 50, 21), (1, 20, 33)])
def test_image_agrees_with_skimage(order: int, target: tuple[int, int, int]) -> None:
    volume = np.random.default_rng(0).standard_normal((14, 25, 33)).astype(np.float32)
    ours = resample_image(volume[None], target, (order,) * 3)[0]
    np.testing.assert_allclose(ours, _resized(volume, target, order), atol=1e-4)


def test_cubic_agrees_with_scipy_zoom_on_tiny_axes() -> None:
    volume = np.random.default_rng(1).standard_normal((2, 3, 5)).astype(np.float32)
    theirs = ndi.zoom(volume.astype(np.float64), (2, 3, 2), order=3, mode="nearest", grid_mode=True)
    ours = resample_image(volume[None], (4, 9, 10), (3, 3, 3))[0]
    np.testing.assert_allclose(ours, theirs.clip(volume.min(), volume.max()), atol=1e-4)


def test_cubic_does_not_leave_the_range() -> None:
    step = np.zeros((1, 20, 20, 20), dtype=np.float32)
    step[..., 10:] = 1
    result = resample_image(step, (20, 20, 33), (3, 3, 3))
    assert (result.min(), result.max()) == (0, 1)


def test_orders_may_differ_between_axes() -> None:
    volume = np.random.default_rng(2).standard_normal((4, 10, 12)).astype(np.float32)
    ours = resample_image(volume[None], (6, 15, 18), (0, 3, 3))[0]
    slices = [ndi.zoom(s, 1.5, order=3, mode="nearest", grid_mode=True) for s in volume.astype(np.float64)]
    nearest = np.stack([slices[i] for i in (0, 1, 1, 2, 3, 3)])
    np.testing.assert_allclose(ours, nearest.clip(volume.min(), volume.max()), atol=1e-4)


def test_channels_are_independent() -> None:
    data = np.random.default_rng(3).standard_normal((3, 5, 6, 7)).astype(np.float16)
    together = resample_image(data, (8, 4, 9), (1, 1, 1))
    assert together.dtype == np.float32
    for one, c in zip(together, data):
        np.testing.assert_array_equal(one, resample_image(c[None], (8, 4, 9), (1, 1, 1))[0])


def test_labels_by_hand() -> None:
    line = np.array([[[0, 0, 3, 3]]], dtype=np.uint8)
    assert resample_labels(line, (1, 1, 8), (1, 1, 1)).tolist() == [[[0, 0, 0, 0, 3, 3, 3, 3]]]
    assert resample_labels(line, (1, 1, 2), (1, 1, 1)).tolist() == [[[0, 3]]]
    # exactly between 0 and 3: the nearest voxel, counted upwards, decides
    assert resample_labels(np.array([[[0, 3]]], dtype=np.uint8), (1, 1, 1), (1, 1, 1)).tolist() == [[[3]]]
    assert resample_labels(np.array([[[3, 0]]], dtype=np.uint8), (1, 1, 1), (1, 1, 1)).tolist() == [[[0]]]


def test_labels_agree_with_one_resize_per_label() -> None:
    smooth = ndi.gaussian_filter(np.random.default_rng(4).standard_normal((20, 30, 40)), 3)
    indices = np.digitize(smooth, np.quantile(smooth, [0.6, 0.8, 0.95])).astype(np.uint8)
    target = (33, 22, 57)
    shares = np.sort(np.stack([_resized((indices == k).astype(float), target, 1) for k in range(4)]), axis=0)
    winner = np.argmax([_resized((indices == k).astype(float), target, 1) for k in range(4)], axis=0)
    clear = shares[-1] - shares[-2] > 1e-3
    ours = resample_labels(indices, target, (1, 1, 1))
    assert clear.mean() > 0.98
    np.testing.assert_array_equal(ours[clear], winner[clear])


def test_nearest_labels_agree_with_skimage() -> None:
    indices = np.random.default_rng(5).integers(0, 5, (10, 11, 12)).astype(np.uint8)
    ours = resample_labels(indices, (17, 8, 25), (0, 0, 0))
    np.testing.assert_array_equal(ours, _resized(indices, (17, 8, 25), 0).astype(np.uint8))


def test_labels_keep_type_and_ignore_index() -> None:
    indices = np.zeros((4, 4, 4), dtype=np.uint16)
    indices[2:] = 65535
    result = resample_labels(indices, (8, 8, 8), (1, 1, 1))
    assert result.dtype == np.uint16
    assert (result[4:] == 65535).all()
    assert (result[:4] == 0).all()


def test_labels_refuse_cubic() -> None:
    with pytest.raises(UsageError, match="labels cannot be resampled"):
        resample_labels(np.zeros((2, 2, 2), dtype=np.uint8), (4, 4, 4), (3, 3, 3))


def test_argmax_agrees_with_resampled_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = np.random.default_rng(6).standard_normal((5, 9, 14, 11)).astype(np.float16)
    target = (20, 13, 25)
    expected = np.argmax([_resized(c.astype(np.float64), target, 1) for c in logits], axis=0)
    whole = resample_argmax(logits, target)
    np.testing.assert_array_equal(whole, expected)
    monkeypatch.setattr("autoseg.imaging.resample._SLAB_VOXELS", 3 * 13 * 25)  # many slabs instead of one
    np.testing.assert_array_equal(resample_argmax(logits, target), whole)


def test_argmax_type_and_ties() -> None:
    assert resample_argmax(np.zeros((3, 2, 2, 2)), (2, 2, 2)).max() == 0
    assert resample_argmax(np.zeros((254, 1, 1, 1)), (1, 1, 1)).dtype == np.uint8
    assert resample_argmax(np.zeros((255, 1, 1, 1)), (1, 1, 1)).dtype == np.uint16


@settings(max_examples=25, deadline=None)
@given(shapes, shapes, st.sampled_from([0, 1]), st.integers(0, 99))
def test_labels_gain_no_value(shape: tuple[int, int, int], target: tuple[int, int, int], order: int, seed: int) -> None:
    indices = np.random.default_rng(seed).choice([0, 2, 7, 255], shape).astype(np.uint8)
    result = resample_labels(indices, target, (order,) * 3)
    assert result.shape == target
    assert set(np.unique(result)) <= set(np.unique(indices))


@settings(max_examples=25, deadline=None)
@given(shapes, shapes, st.integers(0, 99))
def test_argmax_of_shares_is_argmax(shape: tuple[int, int, int], target: tuple[int, int, int], seed: int) -> None:
    logits = np.random.default_rng(seed).standard_normal((3, *shape)).astype(np.float32)
    resampled = resample_image(logits, target, (1, 1, 1))
    picked = np.take_along_axis(resampled, resample_argmax(logits, target)[None].astype(np.int64), axis=0)[0]
    np.testing.assert_allclose(picked, resampled.max(axis=0), atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([0, 1, 3]))
def test_mirrored_input_gives_mirrored_output(n_in: int, n_out: int, order: int) -> None:
    matrix = axis_matrix(n_in, n_out, order)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)
    if order:
        np.testing.assert_allclose(matrix[::-1, ::-1], matrix, atol=1e-6)
