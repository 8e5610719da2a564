"""Simulated errors of the previous stage: each kind by hand, then properties of all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoseg.training.augment.previous_stage import (
    LARGEST_LOSS,
    OPERATIONS,
    RADIUS,
    Corruption,
    apply_corruptions,
    draw_corruptions,
)


def line(text: str) -> np.ndarray:
    return np.array([[[int(c) for c in text]]], dtype=np.uint8)


@pytest.mark.parametrize(
    ("labels_row", "corruption", "expected"),
    [
        ("0001000", Corruption(1, "dilate", 2, None), "0111110"),
        ("0001020", Corruption(1, "dilate", 2, None), "0111110"),  # overwrites the other structure
        ("0111110", Corruption(1, "erode", 1, None), "0011100"),
        ("0111110", Corruption(1, "erode", 3, None), "0000000"),
        ("0100111", Corruption(1, "open", 1, None), "0000111"),
        ("0222110", Corruption(2, "erode", 1, None), "0020110"),
        ("1000000", Corruption(1, None, 1, 0.0), "0000000"),
        ("1010011", Corruption(1, None, 1, 0.99), "1000011"),  # the last of the two that are small enough
        ("1110000", Corruption(1, None, 1, 0.5), "1110000"),  # more than 15 % of the patch
        ("0020000", Corruption(1, "dilate", 2, 0.5), "0020000"),
    ],
)
def test_corruptions_by_hand(labels_row: str, corruption: Corruption, expected: str) -> None:
    labels = line(labels_row)
    assert apply_corruptions(labels, (corruption,)).tolist() == line(expected).tolist()
    assert labels.tolist() == line(labels_row).tolist()


@pytest.mark.parametrize("rim", [0, 3])
def test_closing_fills_a_hole_and_nothing_else(rim: int) -> None:
    block = np.pad(np.ones((5, 6, 7), dtype=np.uint8), rim)
    holed = block.copy()
    holed[rim + 2, rim + 3, rim + 3] = 0
    assert np.array_equal(apply_corruptions(holed, (Corruption(1, "close", 1, None),)), block)


def test_balls_are_round() -> None:
    labels = np.zeros((1, 9, 9), dtype=np.uint8)
    labels[0, 4, 4] = 1
    grown = apply_corruptions(labels, (Corruption(1, "dilate", 3, None),))[0]
    y, x = np.indices((9, 9))
    assert np.array_equal(grown == 1, (y - 4) ** 2 + (x - 4) ** 2 <= 9)


@given(st.integers(0, 10_000))
def test_corruptions_add_no_class(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, (3, 5, 6)).astype(np.uint8)
    corruptions = draw_corruptions(rng, 4)
    assert all(RADIUS[0] <= c.radius <= RADIUS[1] and c.operation in (None, *OPERATIONS) for c in corruptions)
    assert len({c.class_index for c in corruptions}) == len(corruptions)
    result = apply_corruptions(labels, corruptions)
    assert (result.shape, result.dtype) == (labels.shape, labels.dtype)
    assert set(np.unique(result)) <= set(range(4))


def test_corruption_frequencies() -> None:
    drawn = [draw_corruptions(np.random.default_rng(i), 11) for i in range(1000)]
    changed = np.mean([any(c.operation for c in corruptions) for corruptions in drawn])
    losing = np.mean([any(c.lost is not None for c in corruptions) for corruptions in drawn])
    assert changed == pytest.approx(0.4, abs=0.05)
    assert losing == pytest.approx(0.2, abs=0.05)
    n_changed = np.mean([sum(c.operation is not None for c in corruptions) for corruptions in drawn])
    assert n_changed == pytest.approx(0.4 * 5, abs=0.3)
    assert LARGEST_LOSS == 0.15
