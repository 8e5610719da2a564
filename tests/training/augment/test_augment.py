"""Augmentation: image and label map move together, millimetres stay millimetres, the same parameters give the same patch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from autoseg.imaging.geometry import Box
from autoseg.imaging.landmarks import LandmarkSet
from autoseg.training.augment import (
    Intensity,
    Spatial,
    apply_intensity,
    apply_spatial,
    apply_to_points,
    draw_intensity,
    draw_spatial,
    source_box,
)
from autoseg.training.augment.spatial import PROBABILITY, SCALE

KEEP = np.arange(256, dtype=np.uint8)
SHAPE = (14, 18, 22)
Triple = tuple[int, int, int]


def read(volume: np.ndarray, box: Box) -> np.ndarray:
    """The box of an array of which only the last three axes are spatial, zeros outside; as the store does it."""
    wide = 40
    padded = np.pad(volume, [(0, 0)] * (volume.ndim - 3) + [(wide, wide)] * 3)
    return padded[(..., *(slice(a + wide, b + wide) for a, b in zip(box.start, box.stop)))]


def patch_of(spatial: Spatial, image: np.ndarray, label: np.ndarray, partner: np.ndarray = KEEP) -> tuple[np.ndarray, np.ndarray]:
    box = source_box(spatial)
    data, (classes,) = apply_spatial(spatial, box, read(image, box), [read(label, box)], partner)
    return data, classes


def blobs(seed: int) -> np.ndarray:
    """A binary volume of smooth shapes."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE), 2)
    return (noise > 0).astype(np.uint8)


def turned(seed: int, shape: Triple, spacing: tuple[float, float, float], mirror: tuple[int, ...] = ()) -> Spatial:
    """A draw that rotates and scales."""
    rng = np.random.default_rng(seed)
    while True:
        spatial = draw_spatial(rng, shape, rng.uniform(0, SHAPE), spacing=spacing, mirror_axes=mirror, augment=True)
        if not spatial.is_crop:
            return spatial


@pytest.mark.parametrize("shape", [(4, 6, 8), (5, 7, 3), (1, 6, 5), (20, 30, 40)])
@pytest.mark.parametrize("centre", [(7.0, 9.0, 11.0), (0.2, 17.8, 3.5), (-3.0, 25.0, 40.0)])
def test_without_augmentation_the_patch_is_the_exact_crop(shape: Triple, centre: tuple[float, float, float]) -> None:
    image = np.random.default_rng(0).standard_normal((2, *SHAPE)).astype(np.float16)
    spatial = draw_spatial(
        np.random.default_rng(1), shape, np.array(centre), spacing=(3, 1, 1), mirror_axes=(0, 1, 2), augment=False
    )
    box = source_box(spatial)
    assert spatial.is_crop
    assert box.shape == shape
    assert all(abs((a + b - 1) / 2 - c) <= 0.5 for a, b, c in zip(box.start, box.stop, centre))
    data, classes = patch_of(spatial, image, blobs(0))
    assert np.array_equal(data, read(image, box))
    assert np.array_equal(classes, read(blobs(0), box))
    assert (data.dtype, classes.dtype) == (np.float32, np.uint8)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31),
    st.tuples(*[st.integers(1, 16)] * 3),
    st.sampled_from([(1.0, 1.0, 1.0), (2.0, 1.0, 0.8), (5.0, 1.0, 1.0)]),
)
def test_a_binary_image_stays_its_label_map(seed: int, shape: Triple, spacing: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(seed)
    label = blobs(seed)
    spatial = draw_spatial(rng, shape, rng.uniform(0, SHAPE), spacing=spacing, mirror_axes=(0, 1, 2), augment=True)
    data, classes = patch_of(spatial, label[None].astype(np.float16), label)
    assert data.shape == (1, *shape)
    assert classes.shape == shape
    assert (data.dtype, classes.dtype) == (np.float32, np.uint8)
    assert data.flags.c_contiguous
    assert classes.flags.c_contiguous
    inside, outside = data[0] > 1 - 1e-5, data[0] < 1e-5  # of all voxels between, linear interpolation sees a border
    assert classes[inside].all()
    assert not classes[outside].any()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.tuples(*[st.integers(2, 16)] * 3), st.sampled_from([(1.0, 1.0, 1.0), (2.0, 1.0, 0.8)]))
def test_source_box_holds_every_voxel_that_is_needed(seed: int, shape: Triple, spacing: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(seed)
    image, label = rng.standard_normal((1, *SHAPE)).astype(np.float32), rng.integers(0, 5, SHAPE, dtype=np.uint8)
    spatial = turned(seed, shape, spacing)
    data, classes = patch_of(spatial, image, label)
    everything = Box((-35, -35, -35), (49, 53, 57))
    whole_data, (whole_classes,) = apply_spatial(spatial, everything, read(image, everything), [read(label, everything)], KEEP)
    np.testing.assert_allclose(data, whole_data, atol=1e-4)
    assert np.array_equal(classes, whole_classes)


@pytest.mark.parametrize("seed", range(4))
def test_patch_voxels_follow_the_affine_map(seed: int) -> None:
    """A volume that holds its own x, y and z index."""
    ramps = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in SHAPE), indexing="ij"))
    spatial = replace(turned(seed, (5, 6, 7), (1.5, 1.0, 1.0)), centre=np.array([6.3, 8.1, 10.2]))
    data, _ = patch_of(spatial, ramps, blobs(0))
    index = np.stack(np.meshgrid(*(np.arange(n) for n in spatial.shape), indexing="ij")).reshape(3, -1)
    half = (np.array(spatial.shape) - 1) / 2
    expected = spatial.centre[:, None] + spatial.matrix @ (index - half[:, None])
    np.testing.assert_allclose(data.reshape(3, -1), expected, atol=1e-4)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 1.0, 0.9)])
def test_rotation_keeps_distances_in_mm_up_to_the_scale(spacing: tuple[float, float, float]) -> None:
    for seed in range(10):
        mm = np.diag(spacing) @ turned(seed, (8, 8, 8), spacing).matrix @ np.diag(1 / np.array(spacing))
        scale = np.cbrt(np.linalg.det(mm))
        assert SCALE[0] <= scale <= SCALE[1]
        np.testing.assert_allclose(mm.T @ mm, scale**2 * np.eye(3), atol=1e-9)
        assert np.trace(mm) / scale < 3  # it does turn


def test_a_coarse_axis_is_left_alone() -> None:
    for seed in range(10):
        matrix = turned(seed, (8, 8, 8), (3.5, 1.0, 1.0)).matrix
        assert matrix[0].tolist() == [1, 0, 0]
        assert matrix[:, 0].tolist() == [1, 0, 0]
        assert matrix[1, 2] != 0


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 5.0, 5.0), (9.0, 0.5, 0.5)])
def test_a_slice_turns_in_its_plane(spacing: tuple[float, float, float]) -> None:
    for seed in range(10):
        matrix = turned(seed, (1, 8, 8), spacing).matrix
        assert matrix[0].tolist() == [1, 0, 0]
        assert matrix[1, 2] != 0


def test_mirrors_flip_and_only_x_swaps_sides() -> None:
    label = np.zeros((1, 2, 4), dtype=np.uint8)
    label[0, 0] = 1, 0, 2, 3
    partner = KEEP.copy()
    partner[[1, 2]] = 2, 1
    crop = draw_spatial(
        np.random.default_rng(0), (1, 2, 4), np.array([0, 0.5, 1.5]), spacing=(1, 1, 1), mirror_axes=(), augment=False
    )
    for mirror, expected in {
        (): [[1, 0, 2, 3], [0, 0, 0, 0]],
        (1,): [[0, 0, 0, 0], [1, 0, 2, 3]],
        (2,): [[3, 1, 0, 2], [0, 0, 0, 0]],
        (0, 1, 2): [[0, 0, 0, 0], [3, 1, 0, 2]],
    }.items():
        data, classes = patch_of(replace(crop, mirror=mirror), label[None].astype(np.float32), label, partner)
        assert classes[0].tolist() == expected
        assert np.array_equal(partner[data[0].astype(np.uint8)] if 2 in mirror else data[0], classes)


def test_draws_follow_their_probabilities() -> None:
    rng = np.random.default_rng(0)
    drawn = [
        draw_spatial(rng, (8, 8, 8), np.full(3, 7.0), spacing=(1, 1, 1), mirror_axes=(0, 2), augment=True) for _ in range(400)
    ]
    assert np.mean([not d.is_crop for d in drawn]) == pytest.approx(PROBABILITY, abs=0.08)
    assert not any(1 in d.mirror for d in drawn)
    for axis in (0, 2):
        assert np.mean([axis in d.mirror for d in drawn]) == pytest.approx(0.5, abs=0.08)


STEPS = {
    "noise": Intensity(noise=(0.1, 42)),
    "blur": Intensity(blur=0.8),
    "brightness": Intensity(brightness=1.2),
    "contrast": Intensity(contrast=0.8),
    "zoom": Intensity(zoom=0.6),
    "inverted gamma": Intensity(inverted_gamma=1.4),
    "gamma": Intensity(gamma=0.7),
    "all": Intensity((0.1, 1), 0.6, 0.8, 1.2, 0.5, 0.8, 1.3),
}


def noise_patch(shape: tuple[int, ...] = (1, 6, 8, 10)) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("shape", [(1, 6, 8, 10), (1, 1, 9, 7)])
def test_intensity_follows_from_its_parameters_alone(name: str, shape: tuple[int, ...]) -> None:
    results = []
    for seed in (0, 1):
        np.random.seed(seed)  # noqa: NPY002 - the generator that batchgenerators draws from
        results.append(apply_intensity(noise_patch(shape), (STEPS[name],)))
    assert np.array_equal(*results)
    assert results[0].shape == shape
    assert results[0].dtype == np.float32
    assert not np.array_equal(results[0], noise_patch(shape))


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("value", [0.0, -2.5])
def test_a_constant_patch_stays_finite(name: str, value: float) -> None:
    result = apply_intensity(np.full((1, 4, 5, 6), value, np.float32), (STEPS[name],))
    assert np.isfinite(result).all()
    if "noise" not in name and name not in ("all", "brightness"):
        np.testing.assert_allclose(result, value, atol=1e-6)


def test_no_step_changes_nothing_and_channels_are_independent() -> None:
    image = noise_patch((2, 4, 5, 6))
    result = apply_intensity(image.copy(), (Intensity(), STEPS["all"]))
    assert np.array_equal(result[0], image[0])
    assert not np.array_equal(result[1], image[1])


def test_each_intensity_step_by_hand() -> None:
    image = noise_patch()
    x = image[0]
    expected = {
        "noise": x + 0.1 * np.random.default_rng(42).standard_normal(x.shape, dtype=np.float32),
        "blur": ndimage.gaussian_filter(x, 0.8),
        "brightness": 1.2 * x,
        "contrast": ((x - x.mean()) * 0.8 + x.mean()).clip(x.min(), x.max()),
    }
    for name, changed in expected.items():
        np.testing.assert_allclose(apply_intensity(image.copy(), (STEPS[name],))[0], changed, rtol=1e-4, atol=1e-5, err_msg=name)


def test_contrast_never_leaves_the_range() -> None:
    image = noise_patch()
    result = apply_intensity(image.copy(), (Intensity(contrast=1.25),))
    assert result.min() == image.min()
    assert result.max() == image.max()


def test_gamma_keeps_order_mean_and_spread() -> None:
    image = noise_patch()
    for step in (STEPS["gamma"], STEPS["inverted gamma"]):
        result = apply_intensity(image.copy(), (step,))
        assert result.mean() == pytest.approx(image.mean(), abs=1e-5)
        assert result.std() == pytest.approx(image.std(), rel=1e-4)
        assert np.array_equal(np.argsort(result.ravel(), kind="stable")[::50], np.argsort(image.ravel(), kind="stable")[::50])
    mirrored = -apply_intensity(-image, (Intensity(gamma=1.4),))
    np.testing.assert_allclose(mirrored, apply_intensity(image.copy(), (Intensity(inverted_gamma=1.4),)), rtol=1e-4, atol=1e-5)


def test_zoom_loses_detail_but_shifts_nothing() -> None:
    ramp = np.broadcast_to(np.arange(16, dtype=np.float32), (1, 8, 8, 16)).copy()
    result = apply_intensity(ramp.copy(), (Intensity(zoom=0.5),))
    assert np.abs(result - ramp).max() <= 1
    noise = noise_patch((1, 8, 8, 16))
    assert np.abs(np.diff(apply_intensity(noise.copy(), (Intensity(zoom=0.5),)))).mean() < 0.7 * np.abs(np.diff(noise)).mean()


def test_intensity_is_drawn_as_often_as_in_nnunet() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_intensity(rng, 1)[0] for _ in range(2000)]
    for name, p in {"noise": 0.1, "blur": 0.1, "brightness": 0.15, "contrast": 0.15, "zoom": 0.125, "gamma": 0.3}.items():
        assert np.mean([getattr(d, name) is not None for d in drawn]) == pytest.approx(p, abs=0.03), name
    assert all(0.75 <= d.contrast <= 1.25 for d in drawn if d.contrast is not None)
    assert all(0.7 <= d.gamma <= 1.5 for d in drawn if d.gamma is not None)
    assert len(draw_intensity(rng, 3)) == 3


def test_the_same_generator_draws_the_same() -> None:
    first, second = (draw_intensity(np.random.default_rng(9), 4) for _ in range(2))
    assert first == second


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from([(1.0, 1.0, 1.0), (2.0, 1.0, 0.8)]),
    st.sets(st.sampled_from([0, 1, 2])),
    st.tuples(*[st.floats(0.0, 1.0)] * 3),
)
def test_points_move_with_the_image(
    seed: int, spacing: tuple[float, float, float], mirror: set[int], off: tuple[float, float, float]
) -> None:
    """A blob painted at each point is carried along as a channel of its own: its centre of mass is where the point should be."""
    shape = (30, 34, 38)
    points = np.array([(13.0, 15.0, 21.0), (16.0, 18.0, 16.0)]) + off
    grid = np.stack(np.indices(shape), -1)
    image = np.stack([np.exp(-((grid - p) ** 2).sum(-1) / (2 * 1.6**2)) for p in points]).astype(np.float32)
    rng = np.random.default_rng(seed)
    spatial = draw_spatial(rng, (24, 26, 28), np.array([15.2, 16.7, 18.4]), spacing=spacing, mirror_axes=(), augment=True)
    spatial = replace(spatial, mirror=tuple(sorted(mirror)))
    data, _ = apply_spatial(spatial, source_box(spatial), read(image, source_box(spatial)), [], KEEP)
    moved, _ = apply_to_points(spatial, points, np.array([2, 2]), LandmarkSet(("a", "b")))
    where = np.stack(np.indices(spatial.shape), -1)
    centres = [(where * blob[..., None]).sum((0, 1, 2)) / blob.sum() for blob in data.astype(np.float64)]
    np.testing.assert_allclose(moved, centres, atol=0.1)


def test_an_x_mirror_swaps_points_and_states() -> None:
    crop = draw_spatial(
        np.random.default_rng(0), (4, 6, 8), np.array([10.5, 12.5, 14.5]), spacing=(1, 1, 1), mirror_axes=(), augment=False
    )
    points = np.array([[9.0, 10, 11], [10.25, 12, 15], [np.nan] * 3])
    state, names = np.array([2, 2, 1]), ("left", "middle", "right")
    partner = LandmarkSet(names, (("left", "right"),))
    plain, states = apply_to_points(crop, points, state, partner)
    assert plain.tolist()[:2] == [[0, 0, 0], [1.25, 2, 4]]
    assert states.tolist() == [2, 2, 1]
    mirrored, states = apply_to_points(replace(crop, mirror=(2,)), points, state, partner)
    assert mirrored.tolist()[1:] == [[1.25, 2, 3], [0, 0, 7]]
    assert np.isnan(mirrored[0]).all()
    assert states.tolist() == [1, 2, 2]
    unswapped, states = apply_to_points(replace(crop, mirror=(0, 1)), points, state, partner)
    assert unswapped.tolist()[:2] == [[3, 5, 0], [1.75, 3, 4]]
    assert states.tolist() == [2, 2, 1]
    one_sided = LandmarkSet(names, (), ("left",))
    _, states = apply_to_points(replace(crop, mirror=(2,)), points, state, one_sided)
    assert states.tolist() == [0, 2, 1]
    _, states = apply_to_points(replace(crop, mirror=(1,)), points, state, one_sided)
    assert states.tolist() == [2, 2, 1]
