"""Measurements of a case: by hand on small arrays, and against numpy on all voxels."""

from __future__ import annotations

import time

import numpy as np
import pytest

from autoseg.fingerprint.case import TAIL_VOXELS, CaseFingerprint, Tails, measure_case
from autoseg.imaging.geometry import Grid
from autoseg.imaging.image import Image, LabelMap
from autoseg.imaging.labels import LabelSet

LABELS = LabelSet(("left", "right", "tumour"), (1, 2, 3), ignore=9)


def measured(data: np.ndarray, label: np.ndarray, grid: Grid | None = None) -> CaseFingerprint:
    grid = grid or Grid.from_spacing(label.shape, (1, 1, 1))
    volumes = data if data.ndim == 4 else data[None]
    image = Image(volumes.astype(np.float32), grid, tuple(f"c{i}" for i in range(len(volumes))))
    result = measure_case("a", image, LabelMap(label.astype(np.uint8), grid, LABELS), LABELS)
    assert result
    return result[0]


def test_lateral_positions_by_hand() -> None:
    label = np.zeros((2, 3, 8))
    label[0, 0, 0], label[1, 2, 1] = 2, 2
    label[0, :, 7] = 1
    label[0, 0, 3] = 255  # not annotated
    case = measured(np.ones(label.shape), label)
    assert case.voxels == (3, 2, 0)
    assert case.lateral_positions == (7.5 / 8, 1.0 / 8, None)  # voxel centres; x grows towards the left


def test_lateral_positions_are_relative_to_the_whole_image() -> None:
    image = np.zeros((4, 4, 10))
    image[1:3, 1:3, 6:9] = 5
    label = np.zeros(image.shape)
    label[1, 1, 8] = 1
    case = measured(image, label)
    assert case.shape_after_crop == (2, 2, 3)
    assert case.lateral_positions[0] == 8.5 / 10


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("flipped", [False, True])
def test_lateral_positions_do_not_depend_on_the_orientation(order: tuple[int, ...], flipped: bool) -> None:
    rng = np.random.default_rng(0)
    label = (rng.random((4, 5, 6)) < 0.3).astype(np.uint8)
    canonical = Grid.from_spacing(label.shape, (1, 2, 3))
    affine = canonical.affine.copy()
    affine[:3, :3] = canonical.affine[:3, list(order)]
    moved = label.transpose(order)
    if flipped:
        axis = order.index(2)
        moved = np.flip(moved, axis)
        affine[:3, 3] += affine[:3, axis] * (moved.shape[axis] - 1)
        affine[:3, axis] *= -1
    case = measured(np.ones(moved.shape), np.ascontiguousarray(moved), Grid(moved.shape, affine))
    assert case.shape == label.shape
    assert case.lateral_positions[0] == pytest.approx((np.nonzero(label)[2].mean() + 0.5) / 6)


def test_tails_against_all_voxels() -> None:
    rng = np.random.default_rng(1)
    image = rng.normal(100, 10, (40, 50, 60))
    spikes = rng.random(image.shape) < 0.002
    image[spikes] += 400
    label = np.zeros(image.shape)
    label[:5] = 1
    (tails,) = measured(image, label).tails
    levels = np.percentile(image, (0.5, 99.5))
    assert tails.tail_ratio == pytest.approx(image.clip(*levels).std() / image.std(), abs=0.05)
    assert tails.tail_ratio == tails.tail_ratio_nonzero < 0.6
    assert tails.cut_share == pytest.approx(spikes[:5].mean(), abs=1e-9)  # they lie in the structure as everywhere


def test_tails_of_ordinary_images() -> None:
    """A scale of its own, an offset or a wide range is no outlier."""
    rng = np.random.default_rng(2)
    for values in (rng.normal(0, 1, 30_000), rng.normal(1e6, 2e5, 30_000), rng.uniform(0, 1, 30_000), rng.exponential(1, 30_000)):
        (tails,) = measured(values.reshape(30, 25, 40), np.ones((30, 25, 40))).tails
        assert 0.95 < tails.tail_ratio <= 1
    (constant,) = measured(np.full((3, 4, 5), 7.0), np.ones((3, 4, 5))).tails
    assert constant == Tails(1.0, 1.0, 0.0)


def test_zeros_hide_outliers_from_the_tail_ratio() -> None:
    rng = np.random.default_rng(3)
    image = np.zeros((32, 32, 32))
    body = rng.normal(1000, 50, (32, 32, 8))
    body[rng.random(body.shape) < 0.003] = 2000
    image[..., 12:20] = body
    image[0, 0, 0] = image[-1, -1, -1] = 1  # so that the crop is the image
    (tails,) = measured(image, image > 1500).tails
    assert tails.tail_ratio > 0.95
    assert tails.tail_ratio_nonzero < 0.8


def test_structures_that_are_outliers() -> None:
    rng = np.random.default_rng(4)
    image, label = rng.normal(0, 1, (32, 32, 32)), np.zeros((32, 32, 32))
    label[5:9, 5:9, 5:9], label[20:] = 3, 1
    image[label == 3] += 60
    (tails,) = measured(image, label).tails
    assert tails.tail_ratio < 0.8
    assert tails.cut_share > 0.9
    image[label == 3], image[0, :8, :8] = 0.0, 60
    (tails,) = measured(image, label).tails
    assert tails.tail_ratio < 0.8
    assert tails.cut_share < 0.05


def test_tails_of_each_channel_without_structures() -> None:
    image = np.random.default_rng(5).normal(10, 1, (2, 8, 8, 8))
    image[1, 4, 4, 4] = 1e4
    case = measured(image, np.zeros((8, 8, 8)))
    assert (case.intensities, case.lateral_positions) == ((), (None,) * 3)
    assert [t.cut_share for t in case.tails] == [0.0, 0.0]
    assert case.tails[0].tail_ratio > 0.9 > 0.1 > case.tails[1].tail_ratio


def test_tails_of_a_large_volume_take_milliseconds() -> None:
    from autoseg.fingerprint.case import _tails

    rng = np.random.default_rng(6)
    volume = rng.random((256, 256, 256), dtype=np.float32)
    nonzero = np.ones(volume.shape, bool)
    none, counts = np.empty(0, np.uint8), np.zeros(3, int)
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        tails = _tails(volume, nonzero, np.empty(0, np.float32), none, counts)
        seconds.append(time.perf_counter() - began)
    assert tails.tail_ratio == pytest.approx(1, abs=0.02)
    assert min(seconds) < 0.1  # 3 ms on an idle machine; all voxels would take half a second
    assert volume.size > 500 * TAIL_VOXELS
