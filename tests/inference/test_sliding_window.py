"""Sliding windows: every voxel is covered, an identity network gives its input back, mirrors undo themselves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal.windows import gaussian
from torch import Tensor

from autoseg.inference.sliding_window import (
    Mirroring,
    Network,
    count_windows,
    fitted_window,
    gaussian_weight,
    predict_volume,
    window_starts,
)
from autoseg.plan.limits import LARGEST_SINGLE_WINDOW


def identity(batch: Tensor) -> Tensor:
    return batch


def predict(
    volume: Tensor,
    network: Network,
    window: tuple[int, ...],
    n_outputs: int,
    *,
    overlap: float = 0.5,
    batch_size: int = 1,
    axes: Sequence[int] = (),
    partners: Sequence[int] | None = None,
    swap_input: Network | None = None,
    **options: Any,
) -> Tensor:
    """`predict_volume` with the usual overlap, one window after another."""
    return predict_volume(
        volume,
        network,
        window=(window[0], window[1], window[2]),
        n_outputs=n_outputs,
        overlap=overlap,
        batch_size=batch_size,
        mirroring=Mirroring(axes, partners, swap_input),
        **options,
    )


def test_starts_by_hand() -> None:
    assert window_starts(10, 4, 0.5) == [0, 2, 4, 6]
    assert window_starts(10, 4, 0.0) == [0, 3, 6]
    assert window_starts(9, 4, 0.5) == [0, 2, 3, 5]
    assert window_starts(4, 4, 0.5) == [0]
    assert window_starts(3, 4, 0.5) == [0]


def test_windows_of_a_volume_are_counted() -> None:
    assert count_windows((10, 4, 9), (4, 4, 4), 0.5) == 4 * 1 * 4


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 200), st.integers(1, 50), st.floats(0, 0.95))
def test_windows_cover_the_axis_and_overlap(size: int, window: int, overlap: float) -> None:
    starts = window_starts(size, window, overlap)
    assert starts[0] == 0
    assert starts[-1] == max(0, size - window)
    gaps = np.diff(starts)
    assert (gaps > 0).all()
    assert (gaps <= math.ceil(window * (1 - overlap))).all()


def test_weight_is_a_gaussian_of_an_eighth_of_the_edge() -> None:
    window = (1, 6, 9)
    z, y, x = (gaussian(n, n / 8) for n in window)
    expected = (z[:, None, None] * y[:, None] * x).clip(1e-4)
    np.testing.assert_allclose(gaussian_weight(window).numpy(), expected, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.integers(1, 5)] * 3),
    st.floats(0, 0.9),
    st.integers(1, 7),
    st.sets(st.sampled_from([0, 1, 2])),
)
def test_identity_network_returns_its_input(
    shape: tuple[int, int, int], window: tuple[int, int, int], overlap: float, batch_size: int, mirror: set[int]
) -> None:
    volume = torch.randn(2, *shape, generator=torch.Generator().manual_seed(sum(shape)))
    result = predict(volume, identity, window, 2, overlap=overlap, batch_size=batch_size, axes=sorted(mirror))
    assert result.shape == volume.shape
    assert result.dtype == torch.float32
    assert result.is_contiguous()
    torch.testing.assert_close(result, volume, rtol=1e-5, atol=1e-5)


def test_batches_are_full_and_on_the_device() -> None:
    shapes = []

    def network(batch: Tensor) -> Tensor:
        assert batch.device == torch.device("cpu")
        shapes.append(tuple(batch.shape))
        return batch

    predict(torch.zeros(1, 4, 4, 10), network, (4, 4, 4), 1, batch_size=3, axes=(1, 2), device=torch.device("cpu"))
    assert shapes == [(3, 1, 4, 4, 4)] * 4 + [(1, 1, 4, 4, 4)] * 4  # four windows, four mirrors of each batch


def test_a_small_volume_is_padded_with_zeros_on_both_sides() -> None:
    rows = []

    def network(batch: Tensor) -> Tensor:
        rows.append(batch[0, 0, 0, 0].tolist())
        return batch

    predict(torch.tensor([[[[1.0, 2.0]]]]), network, (1, 1, 5), 1)
    assert rows == [[0, 1, 2, 0, 0]]


def test_logits_in_half_precision_are_summed_in_float32() -> None:
    result = predict(torch.rand(1, 3, 9, 9), lambda b: b.bfloat16(), (3, 4, 4), 1, batch_size=2, axes=(2,))
    assert result.dtype == torch.float32


def test_middle_of_a_window_counts_more() -> None:
    """The network says where in its window a voxel lies; each voxel must be told by the window it is most central in."""
    ramp = torch.linspace(-1, 1, 8).expand(1, 1, 1, 1, 8)
    result = predict(torch.zeros(1, 1, 1, 12), lambda b: ramp.expand(len(b), 1, 1, 1, 8), (1, 1, 8), 1)
    assert float(result[0, 0, 0, 0]) == -1
    assert float(result[0, 0, 0, 11]) == 1
    assert abs(float(result[0, 0, 0, 3])) < 0.2
    torch.testing.assert_close(result, -result.flip(3))


@pytest.mark.parametrize("axes", [axes for n in range(4) for axes in itertools.combinations(range(3), n)])
def test_mirroring_an_equivariant_network_changes_nothing(axes: tuple[int, ...]) -> None:
    volume = torch.randn(1, 5, 7, 6)

    def network(batch: Tensor) -> Tensor:
        return torch.cat([batch.square(), torch.nn.functional.avg_pool3d(batch, 3, 1, 1)], dim=1)

    plain = predict(volume, network, (4, 4, 4), 2, batch_size=2)
    mirrored = predict(volume, network, (4, 4, 4), 2, batch_size=2, axes=axes)
    torch.testing.assert_close(mirrored, plain, rtol=1e-5, atol=1e-6)


def test_mirrors_are_averaged() -> None:
    volume = torch.randn(1, 1, 2, 4)
    ramp = torch.arange(4.0)
    result = predict(volume, lambda b: b * ramp, (1, 2, 4), 1, axes=(2,))
    torch.testing.assert_close(result, volume * (ramp + ramp.flip(0)) / 2)


def test_left_and_right_swap_under_an_x_mirror_only() -> None:
    """A network that knows left (class 1) from right (class 2) by the place in the window alone."""
    side = torch.linspace(1, -1, 6).expand(4, 4, 6)

    def network(batch: Tensor) -> Tensor:
        return torch.stack([torch.zeros_like(side), side, -side]).expand(len(batch), 3, 4, 4, 6)

    volume = torch.zeros(1, 4, 4, 6)
    plain = predict(volume, network, (4, 4, 6), 3)
    for axes in ((2,), (0, 2), (0, 1, 2), (1,)):
        torch.testing.assert_close(predict(volume, network, (4, 4, 6), 3, axes=axes, partners=(0, 2, 1)), plain)
    confused = predict(volume, network, (4, 4, 6), 3, axes=(2,))
    assert float(confused.abs().max()) == pytest.approx(0, abs=1e-6)


def test_an_x_mirror_swaps_sides_of_the_input() -> None:
    """A network that repeats the class indices in its only channel: under an x mirror these change sides themselves."""
    volume = torch.tensor([0.0, 1, 1, 0, 2, 0]).expand(1, 2, 2, 6)

    def network(batch: Tensor) -> Tensor:
        return torch.cat([(batch == k).float() for k in range(3)], dim=1)

    def swap(batch: Tensor) -> Tensor:
        return torch.tensor([0.0, 2, 1])[batch.long()]

    plain = predict(volume, network, (2, 2, 6), 3)
    for axes in ((2,), (0,), (0, 1, 2)):
        result = predict(volume, network, (2, 2, 6), 3, axes=axes, partners=(0, 2, 1), swap_input=swap)
        torch.testing.assert_close(result, plain)


def test_a_case_hardly_larger_than_the_window_is_taken_whole() -> None:
    assert fitted_window((38, 40, 30), (36, 48, 32), (4, 8, 8)) == (40, 48, 32)
    assert fitted_window((80, 40, 30), (36, 48, 32), (4, 8, 8)) == (36, 48, 32)
    assert fitted_window((10, 10, 10), (36, 48, 32), (4, 8, 8)) == (36, 48, 32)
    assert fitted_window((9, 20, 20), (1, 16, 16), (1, 4, 4)) == (1, 16, 16)


@settings(max_examples=50, deadline=None)
@given(st.tuples(*[st.integers(1, 60)] * 3), st.tuples(*[st.integers(1, 8)] * 3), st.tuples(*[st.sampled_from([1, 2, 4])] * 3))
def test_a_fitted_window_suits_the_network_and_the_memory(
    shape: tuple[int, int, int], steps: tuple[int, int, int], divisors: tuple[int, int, int]
) -> None:
    window = tuple(s * d for s, d in zip(steps, divisors))
    fitted = fitted_window(shape, window, divisors)
    assert all(f % d == 0 and f >= w for f, w, d in zip(fitted, window, divisors))
    assert math.prod(fitted) <= LARGEST_SINGLE_WINDOW * math.prod(window)
    assert fitted == window or all(f >= n for f, n in zip(fitted, shape))


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(*[st.integers(1, 13)] * 3),
    st.tuples(*[st.integers(1, 3)] * 3),
    st.tuples(*[st.sampled_from([1, 2, 3])] * 3),
    st.floats(0, 0.9),
    st.sets(st.sampled_from([0, 1, 2])),
)
def test_a_coarse_output_lies_on_the_volume_edge_to_edge(
    shape: tuple[int, int, int], sizes: tuple[int, int, int], strides: tuple[int, int, int], overlap: float, mirror: set[int]
) -> None:
    """A network that averages blocks of voxels, of a volume padded with zeros behind."""
    window = tuple(n * s for n, s in zip(sizes, strides))
    volume = torch.randn(1, *shape, generator=torch.Generator().manual_seed(sum(shape)))

    def network(batch: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool3d(batch, strides)

    result = predict(volume, network, window, 1, overlap=overlap, batch_size=3, axes=sorted(mirror), strides=strides)
    behind = [(-n) % s for n, s in zip(shape, strides)]
    padded = torch.nn.functional.pad(volume, [e for b in reversed(behind) for e in (0, b)])
    torch.testing.assert_close(result, network(padded), rtol=1e-5, atol=1e-5)
