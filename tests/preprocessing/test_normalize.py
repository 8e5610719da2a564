"""Intensity normalisation: by hand, against numpy, and properties."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from autoseg.errors import DataError, PlanError
from autoseg.imaging.intensities import SAMPLE, clip_levels, strided
from autoseg.plan import NORMALIZATIONS, ChannelPlan
from autoseg.preprocessing.normalize import MASKED, check_colour, normalize


def _channel(scheme: str, mean: float = 100, std: float = 50, low: float = -100, high: float = 300) -> ChannelPlan:
    return ChannelPlan("CT", scheme, mean, std, low, high)


def _line(*values: float) -> np.ndarray:
    return np.array([[values]], dtype=np.float32)


def test_ct_by_hand() -> None:
    assert normalize(_line(-1000, 0, 100, 3000), _channel("ct")).tolist() == [[[-4, -2, 0, 4]]]


def test_ct_of_a_dataset_with_one_intensity() -> None:
    assert normalize(_line(5, 7), _channel("ct", mean=7, std=0, low=7, high=7)).tolist() == [[[0, 0]]]


def test_zscore_by_hand() -> None:
    assert normalize(_line(1, 3), _channel("zscore")).tolist() == [[[-1, 1]]]


def test_zscore_of_large_offsets() -> None:
    values = np.random.default_rng(0).normal(1e6, 10, (20, 30, 40)).astype(np.float32)
    expected = (values.astype(np.float64) - values.mean(dtype=np.float64)) / values.std(dtype=np.float64)
    np.testing.assert_allclose(normalize(values, _channel("zscore")), expected, atol=0.02)  # float32 steps of 0.06 at 1e6


def test_zscore_nonzero_leaves_the_outside_at_zero() -> None:
    assert normalize(_line(0, 1, 3, 0), _channel("zscore_nonzero")).tolist() == [[[0, -1, 1, 0]]]


def test_zscore_nonzero_takes_a_mask() -> None:
    mask = np.array([[[True, True, False]]])  # a voxel that is 0 in this channel only belongs to the body too
    assert normalize(_line(0, 2, 9), _channel("zscore_nonzero"), mask).tolist() == [[[-1, 1, 0]]]


def test_robust_statistics_are_those_after_clipping() -> None:
    values = np.random.default_rng(0).normal(50, 5, (20, 30, 40)).astype(np.float32)
    values[3, 4, 5], values[6, 7, 8] = 1e6, -1e6
    low, high = np.percentile(values, (0.5, 99.5), method="nearest")
    core = values.clip(low, high)
    expected = (values - core.mean()) / core.std()
    found = normalize(values, _channel("zscore_robust"))
    ordinary = np.abs(values) < 1e5
    np.testing.assert_allclose(found[ordinary], expected[ordinary], atol=1e-4)  # the ends of the rest are not clipped
    range_ = (high - low) / core.std()
    assert found.max() == pytest.approx(range_ + (high - core.mean()) / core.std(), rel=1e-4)
    assert found.min() == pytest.approx((low - core.mean()) / core.std() - range_, rel=1e-4)
    assert normalize(values, _channel("zscore")).max() > 100 > 10 > found.max()
    padded = np.pad(values, 9)
    masked = normalize(padded, _channel("zscore_nonzero_robust"))
    np.testing.assert_allclose(masked[9:-9, 9:-9, 9:-9], found, atol=1e-4)
    assert np.count_nonzero(masked) == np.count_nonzero(padded)


def test_a_small_bright_structure_outlives_robustness() -> None:
    image = np.random.default_rng(0).normal(300, 30, (20, 40, 50)).astype(np.float32)
    image[5:7, 5:8, 5:9] = 500  # 24 of 40000 voxels, twice as bright as the range of the rest
    image[0, 0, 0] = 1e5
    found = normalize(image, _channel("zscore_robust"))
    rest = np.delete(found.ravel(), np.flatnonzero(image == 500))
    assert found[5, 5, 5] > np.sort(rest)[-2]  # only the spike lies above
    assert found.max() < 12


def test_robust_where_almost_all_is_one_value() -> None:
    """Percentiles say nothing then: everything but the background would be an outlier."""
    image = np.zeros((10, 20, 30), np.float32)
    image[0, 0, :9] = np.arange(1, 10)
    np.testing.assert_array_equal(normalize(image, _channel("zscore_robust")), normalize(image, _channel("zscore")))


def test_few_voxels_have_no_tails() -> None:
    assert normalize(_line(1, 3), _channel("zscore_robust")).tolist() == [[[-1, 1]]]
    assert normalize(_line(0, 1, 3, 0), _channel("zscore_nonzero_robust")).tolist() == [[[0, -1, 1, 0]]]
    assert not normalize(_line(0, 0), _channel("zscore_nonzero_robust")).any()


def test_robust_takes_a_mask() -> None:
    values = np.arange(1000, dtype=np.float32).reshape(10, 10, 10)
    mask = values >= 500
    outside = values.copy()
    outside[~mask] = 1e9
    first, second = (normalize(v, _channel("zscore_nonzero_robust"), mask) for v in (values, outside))
    np.testing.assert_array_equal(first, second)
    assert first[mask].mean() == pytest.approx(0, abs=0.01)


def test_strided_voxels_are_spread_and_bounded() -> None:
    assert strided(np.zeros((3, 4, 5))).shape == (3, 4, 5)
    assert strided(np.zeros((2, 7, 64, 64)), 7 * 16 * 16).shape == (2, 7, 16, 16)  # few slices stay
    volume = np.broadcast_to(np.float32(0), (512, 512, 512))
    assert 2**19 < strided(volume).size <= 2**20
    line = np.broadcast_to(np.arange(10**7), (1, 1, 10**7))
    assert strided(line, 1000)[0, 0, :3].tolist() == [0, 10_000, 20_000]
    mask = np.zeros((40, 50, 60), bool)
    assert strided(mask, 999).shape == strided(np.zeros((40, 50, 60)), 999).shape


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.integers(1, 90)] * 3), st.integers(1, 3000))
def test_strided_never_exceeds_its_limit_nor_falls_far_below(shape: tuple[int, int, int], limit: int) -> None:
    size = strided(np.zeros(shape, np.uint8), limit).size
    assert min(limit, int(np.prod(shape))) / 4 <= size <= limit


def test_percentiles_of_a_sample_serve_for_all() -> None:
    values = np.random.default_rng(1).normal(0, 1, (160, 160, 160)).astype(np.float32)
    assert values.size > SAMPLE
    low, high = clip_levels(strided(values))
    assert (low, high) == pytest.approx(np.percentile(values, (0.5, 99.5)), abs=0.03)
    np.testing.assert_allclose(
        normalize(values, _channel("zscore_nonzero_robust")), normalize(values, _channel("zscore_robust")), atol=0.03
    )


def test_rescale_and_rgb_and_none() -> None:
    assert normalize(_line(-5, 0, 5), _channel("rescale_0_1")).tolist() == [[[0, 0.5, 1]]]
    assert normalize(_line(0, 51, 255), _channel("rgb_0_1")).tolist() == [[[0, np.float32(0.2), 1]]]
    assert normalize(_line(-3, 8), _channel("none")).tolist() == [[[-3, 8]]]


@pytest.mark.parametrize("scheme", [n for n in NORMALIZATIONS if n.startswith(("z", "re"))])
@pytest.mark.parametrize("value", [0.0, 0.1, 4.0, 1e6])
def test_constant_image_becomes_zero(scheme: str, value: float) -> None:
    assert not normalize(np.full((3, 4, 5), value, dtype=np.float32), _channel(scheme)).any()


def test_rgb_out_of_range() -> None:
    with pytest.raises(DataError, match=r"channel 'CT' is not 8-bit colour; found: intensities 0…300; allowed: 0…255"):
        normalize(_line(0, 300), _channel("rgb_0_1"))


@pytest.mark.parametrize("values", [(0, 70000), (-70000, 0), (0, np.nan)])
def test_too_large_for_float16(values: tuple[float, float]) -> None:
    with pytest.raises(DataError, match="too large for normalization 'none'"):
        normalize(_line(*values), _channel("none"))


def test_unknown_scheme() -> None:
    with pytest.raises(PlanError, match="unknown normalization; found: ztest"):
        normalize(_line(0), _channel("ztest"))


def test_masked_schemes_are_schemes() -> None:
    assert set(MASKED) == {name for name in NORMALIZATIONS if "nonzero" in name}


@pytest.mark.parametrize("scheme", NORMALIZATIONS)
def test_input_is_left_alone(scheme: str) -> None:
    data = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    before = data.copy()
    result = normalize(data, _channel(scheme))
    np.testing.assert_array_equal(data, before)
    assert result.dtype == np.float32
    assert result.shape == data.shape


@settings(max_examples=25, deadline=None)
@given(arrays(np.float32, (2, 3, 4), elements=st.floats(0, 255, width=32)), st.sampled_from(NORMALIZATIONS))
def test_every_result_fits_float16(data: np.ndarray, scheme: str) -> None:
    assert np.isfinite(normalize(data, _channel(scheme)).astype(np.float16)).all()


RGB = tuple(ChannelPlan("rgb_to_0_1", "rgb_0_1", 0.0, 1.0, 0.0, 1.0) for _ in range(3))


def test_colour_that_was_divided_already_is_refused() -> None:
    colour = np.arange(12, dtype=np.float32).reshape(3, 1, 2, 2)
    check_colour(colour, RGB)
    check_colour(colour / 255, [replace(channel, normalization="zscore") for channel in RGB])
    check_colour((colour > 5).astype(np.float32), RGB)  # black but for a little
    check_colour(np.concatenate([colour[:2], colour[2:] / 255]), RGB)  # one channel alone may be dark
    with pytest.raises(DataError, match=r"not 8-bit colour; found: fractions, the largest 0\.0431\d*; .*fix: multiply by 255"):
        check_colour(colour / 255, RGB)


@pytest.mark.parametrize("spike", [3e38, -3e38, 1e20, 1e12])
@pytest.mark.parametrize("scheme", ["zscore", "zscore_robust", "zscore_nonzero", "zscore_nonzero_robust"])
def test_one_damaged_voxel_does_not_make_the_others_equal(scheme: str, spike: float) -> None:
    image = np.random.default_rng(0).normal(100, 15, (8, 30, 30)).astype(np.float32)
    expected = normalize(image, _channel(scheme))
    image[3, 4, 5] = spike
    result = normalize(image, _channel(scheme))
    others = np.ones(image.shape, dtype=bool)
    others[3, 4, 5] = False
    np.testing.assert_allclose(result[others], expected[others], atol=0.2)
    assert abs(result[3, 4, 5]) < 20


def test_bright_spots_of_16_bit_images_are_no_damage() -> None:
    image = np.random.default_rng(0).integers(100, 102, (8, 30, 30)).astype(np.float32)
    image[3, 4, 5] = 65535
    expected = (image - image.mean(dtype=np.float64)) / image.std(dtype=np.float64)
    np.testing.assert_allclose(normalize(image, _channel("zscore")), expected, rtol=1e-4, atol=1e-4)
