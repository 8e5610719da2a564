"""Heatmaps: by hand, against whole maps and scipy, and points that come back from their maps."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from torch import nn

from autoseg.nets.heatmaps import expected_points, find_candidates, find_peaks, gaussian_boxes, gaussian_maps, rescale_points
from autoseg.nets.point_head import initialise_undecided

SHAPES = {2: (13, 10), 3: (13, 10, 11)}


def log_gaussian(points: np.ndarray, sigma: tuple[float, ...], shape: tuple[int, ...]) -> torch.Tensor:
    """(N, *shape) logarithms of Gaussians sampled at the voxels' centres, which are quadratic polynomials."""
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    squares = ((grid - points.reshape(-1, *(1,) * len(shape), len(shape))) / sigma) ** 2
    return torch.from_numpy(-squares.sum(-1) / 2)


def test_a_line_by_hand() -> None:
    """Voxel 2 holds what of the Gaussian lies between 1.5 and 2.5."""
    boxes = gaussian_boxes(torch.tensor([[[2.25]]]), (1.0,), (5,))
    assert boxes.index.tolist() == [[[0, 1, 2, 3, 4]]]
    edges = norm(2.25, 1).cdf(np.arange(6) - 0.5)
    np.testing.assert_allclose(boxes.mass[0, 0], np.diff(edges), rtol=1e-4)


@pytest.mark.parametrize("ndim", [2, 3])
def test_maps_are_products_of_lines(ndim: int) -> None:
    shape, sigma = SHAPES[ndim], (0.6, 1.2, 0.9)[:ndim]
    point = np.array([3.3, 8.9, -0.8][:ndim])
    (gaussian,) = gaussian_maps(torch.from_numpy(point).view(1, 1, ndim), sigma, shape)[0].numpy()
    expected = np.ones(())
    for c, s, n in zip(point, sigma, shape):
        expected = expected[..., None] * np.diff(norm(c, s).cdf(np.arange(n + 1) - 0.5))
    np.testing.assert_allclose(gaussian, expected, atol=2e-4 * expected.max())  # four sigmas away, where boxes end


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([2, 3]), st.integers(0, 2**31), st.floats(0.4, 3))
def test_all_of_a_gaussian_is_inside_or_outside(ndim: int, seed: int, sigma: float) -> None:
    """A patch cut in two: what one half holds, the other lacks."""
    generator = torch.Generator().manual_seed(seed)
    point = 13 + 5 * torch.rand(1, 1, ndim, generator=generator, dtype=torch.float64)
    whole = gaussian_maps(point, (sigma,) * ndim, (32,) * ndim).sum()
    assert float(whole) == pytest.approx(1, abs=ndim * 7e-5)
    shift = torch.tensor([15.0] + [0.0] * (ndim - 1))
    inside = gaussian_maps(point, (sigma,) * ndim, (15, *(32,) * (ndim - 1)))
    right = gaussian_maps(point - shift, (sigma,) * ndim, (17, *(32,) * (ndim - 1)))
    assert float(inside.sum() + right.sum()) == pytest.approx(float(whole), abs=ndim * 7e-5)


def test_a_point_far_outside_leaves_nothing() -> None:
    boxes = gaussian_boxes(torch.tensor([[[-50.0, 3.0], [3.0, 1e6]]]), (1.0, 1.0), (8, 8))
    assert boxes.mass.sum() == 0
    assert int(boxes.index.min()) >= 0
    assert int(boxes.index.max()) < 64


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([2, 3]), st.integers(0, 2**31), st.floats(0.6, 2.5))
def test_log_gaussians_give_their_points_back(ndim: int, seed: int, sigma: float) -> None:
    """Anywhere in the volume, half a voxel beyond the outer centres included, for any width of each axis."""
    rng, shape = np.random.default_rng(seed), SHAPES[ndim]
    points = rng.uniform(-0.5, np.array(shape) - 0.5, (20, ndim))
    peaks = find_peaks(log_gaussian(points, (sigma, 1.0, 1.4)[:ndim], shape))
    assert peaks.points.dtype == np.float64
    np.testing.assert_allclose(peaks.points, points, atol=1e-4)


@pytest.mark.parametrize("sigma", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("ndim", [2, 3])
def test_targets_give_their_points_back(sigma: float, ndim: int) -> None:
    """What a network learns: Gaussians in cubes, hardly a hundredth of a voxel off."""
    shape = SHAPES[ndim]
    points = np.random.default_rng(0).uniform(-0.5, np.array(shape) - 0.5, (300, ndim))
    maps = gaussian_maps(torch.from_numpy(points[None]), (sigma,) * ndim, shape)[0]
    peaks = find_peaks(maps.clamp(min=1e-30).log())
    assert np.abs(peaks.points - points).max() < 0.02


def test_oblique_gaussians_give_their_points_back() -> None:
    precision = np.array([[0.8, 0.3, 0.1], [0.3, 0.5, -0.2], [0.1, -0.2, 0.9]])
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in (9, 8, 7)), indexing="ij"), -1)
    point = np.array([4.3, 3.6, 2.2])
    values = -np.einsum("...i,ij,...j", grid - point, precision, grid - point) / 2
    np.testing.assert_allclose(find_peaks(values[None]).points, [point], atol=1e-6)


def test_probabilities_of_a_peak_by_hand() -> None:
    """Nine voxels in a row, the middle one e³ and the others 1: Z = 1 + e³ + 8."""
    logits = np.zeros((2, 9))
    logits[0, 4], logits[1] = 3, -100
    peaks = find_peaks(logits, radius=2)
    z = 9 + math.exp(3)
    assert peaks.presence == pytest.approx([(z - 1) / z, 0])
    assert peaks.confidence == pytest.approx([(math.exp(3) + 4) / z, 0])
    assert peaks.points[0, 0] == pytest.approx(4)


def test_without_a_maximum_nearby_the_highest_voxel_counts() -> None:
    """A slope without end, and a map too thin for a parabola."""
    assert find_peaks(np.arange(9.0)[None] ** 2 / 10).points.tolist() == [[8]]
    assert find_peaks(np.array([[[0.0, 1.0, 0.0]]])).points.tolist() == [[0, 1]]


@pytest.mark.parametrize("container", [np.float16, np.float32, np.float64])
def test_chunks_memory_maps_and_tensors_give_the_same(container: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = np.random.default_rng(1).normal(size=(7, 6, 5, 4)).astype(container)
    file = np.lib.format.open_memmap(tmp_path / "maps.npy", mode="w+", dtype=container, shape=maps.shape)
    file[:] = maps
    whole = find_peaks(torch.from_numpy(maps))
    monkeypatch.setattr("autoseg.nets.heatmaps.MAP_ELEMENTS_AT_ONCE", 300)  # two maps
    by_chunks = find_peaks(file)
    for name in ("points", "presence", "confidence"):
        np.testing.assert_array_equal(getattr(by_chunks, name), getattr(whole, name))


def test_rescaled_points_keep_edges() -> None:
    """Eight voxels as four: index -0.5 stays, 7.5 becomes 3.5."""
    points = torch.tensor([[[-0.5, 7.5], [0.5, 2.5]]])
    assert rescale_points(points, (8, 8), (4, 16)).tolist() == [[[-0.5, 15.5], [0.0, 5.5]]]


def test_an_untrained_head_is_undecided() -> None:
    head = nn.Conv3d(2, 3, 1)
    nn.init.zeros_(head.weight)
    initialise_undecided(head, 5 * 6 * 7)
    logits = head(torch.randn(1, 2, 5, 6, 7))[0]
    assert find_peaks(logits).presence == pytest.approx([0.5] * 3, abs=1e-6)


def test_expected_points_by_hand() -> None:
    """Probabilities 1/4 and 3/4 at the columns 1 and 3 of one row: mean 2.5, variance 3/4."""
    logits = torch.full((1, 1, 2, 5), -100.0)
    logits[0, 0, 1, 1], logits[0, 0, 1, 3] = 0, math.log(3)
    mean, variance = expected_points(logits)
    torch.testing.assert_close(mean, torch.tensor([[[1.0, 2.5]]]))
    torch.testing.assert_close(variance, torch.tensor([[[0.0, 0.75]]]))


@pytest.mark.parametrize("ndim", [2, 3])
def test_candidates_by_hand(ndim: int) -> None:
    """Three Gaussians with 60, 25 and 5 % of a map, 10 % are "not here"; the flat rest of the map has peaks, too."""
    shape, sigma = (40, 44, 30)[:ndim], (1.0,) * ndim
    points = np.array([[8.25, 30.375, 9.0], [30.0, 10.75, 20.25], [12.0, 8.0, 15.25]])[:, :ndim]
    masses = np.array([0.6, 0.25, 0.05])
    maps = gaussian_maps(torch.from_numpy(points)[None], sigma, shape)[0]
    whole = (maps * torch.from_numpy(masses).reshape(-1, *(1,) * ndim)).sum(0)
    peaks = find_candidates((whole.clamp(min=1e-20) / 0.1).log())
    np.testing.assert_allclose(peaks.points[:3], points, atol=0.05)
    np.testing.assert_allclose(peaks.mass[:3], masses * math.erf(2.5 / 2**0.5) ** ndim, rtol=0.03)
    assert peaks.mass[3:].max(initial=0) < 1e-3
    assert len(peaks.points) <= 6


def test_a_line_of_three_voxels_has_one_candidate() -> None:
    peaks = find_candidates(torch.tensor([[0.0, 3.0, 0.0]]))
    assert peaks.points.tolist() == [[0, 1]]
