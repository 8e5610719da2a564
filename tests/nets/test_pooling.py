"""Coarse views of maps, against plain torch."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from autoseg.nets import heatmaps
from autoseg.nets.pooling import cell_probabilities, interpolate_cells, pool_cells


def plain_shares(logits: Tensor, factor: Sequence[int]) -> Tensor:
    """A softmax over all voxels and a zero, then sums over cells."""
    size = logits.shape[2:]
    flat = logits.flatten(2)
    p = torch.cat([flat, torch.zeros_like(flat[..., :1])], dim=2).softmax(2)[..., :-1].unflatten(2, size)
    padded = F.pad(p, [e for n, f in zip(reversed(size), reversed(factor)) for e in (0, -n % f)])
    for axis, f in enumerate(factor, 2):
        padded = padded.unflatten(axis, (-1, f)).sum(axis + 1)
    return padded


SIZES = [((8, 12), (4, 2)), ((7, 9), (4, 2)), ((4, 6, 8), (2, 2, 4)), ((5, 6, 9), (2, 1, 4))]


@pytest.mark.parametrize(("size", "factor"), SIZES)
@pytest.mark.parametrize("at_once", [10, 2**22])
def test_cell_probabilities_are_sums_of_a_softmax(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, ...], factor: tuple[int, ...], at_once: int
) -> None:
    monkeypatch.setattr(heatmaps, "MAP_ELEMENTS_AT_ONCE", at_once)
    torch.manual_seed(0)
    logits = 3 * torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    cells = cell_probabilities(logits, factor)
    torch.testing.assert_close(cells, plain_shares(logits.detach(), factor))
    assert not cells.requires_grad


def test_cell_probabilities_of_extreme_logits_are_finite() -> None:
    logits = torch.full((1, 2, 4, 4), -1e4).bfloat16()
    logits[0, 1, 1, 2] = 1e4
    cells = cell_probabilities(logits, (2, 2))
    assert cells.dtype == torch.float32
    assert cells[0, 0].tolist() == [[0, 0], [0, 0]]
    assert cells[0, 1].tolist() == [[0, 1], [0, 0]]


def test_the_last_cell_may_be_smaller() -> None:
    maps = torch.arange(5.0).view(1, 1, 1, 5)
    assert pool_cells(maps, (1, 2)).flatten().tolist() == [0.5, 2.5, 4]
    assert pool_cells(maps, (1, 2), summed=True).flatten().tolist() == [1, 5, 4]


@pytest.mark.parametrize(("size", "factor"), SIZES)
def test_interpolation_between_cells_is_linear(size: tuple[int, ...], factor: tuple[int, ...]) -> None:
    """As torch's interpolation, of which the part that fits is taken."""
    torch.manual_seed(0)
    coarse = torch.randn(2, 3, *(-(-n // f) for n, f in zip(size, factor)), dtype=torch.float64, requires_grad=True)
    fine = interpolate_cells(coarse, factor, size)
    whole = [n * f for n, f in zip(coarse.shape[2:], factor)]
    expected = F.interpolate(coarse, whole, mode="bilinear" if len(size) == 2 else "trilinear")[(..., *map(slice, size))]
    torch.testing.assert_close(fine, expected)
    assert torch.autograd.gradcheck(lambda x: interpolate_cells(x, factor, size), coarse)
