"""Largest component: by hand, against scipy, and what holds for any mask."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from autoseg.imaging.components import keep_largest

MASKS = arrays(bool, array_shapes(min_dims=3, max_dims=3, max_side=7), elements=st.booleans())


def test_the_larger_of_two_is_kept():
    mask = np.array([[[1, 1, 0, 1, 1, 1]]], dtype=bool)
    np.testing.assert_array_equal(keep_largest(mask), [[[0, 0, 0, 1, 1, 1]]])


def test_diagonal_neighbours_are_connected():
    mask = np.zeros((3, 3, 3), dtype=bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 2] = True
    np.testing.assert_array_equal(keep_largest(mask), mask)


def test_of_equal_components_the_first_in_array_order_is_kept():
    mask = np.zeros((4, 4, 4), dtype=bool)
    mask[0, 0, 3] = mask[3, 0, 0] = mask[3, 3, 3] = True
    kept = keep_largest(mask)
    assert np.argwhere(kept).tolist() == [[0, 0, 3]]
    assert np.argwhere(keep_largest(mask[::-1, ::-1])).tolist() == [[0, 0, 3]]


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 101, 101), (3, 3, 3), (7, 1, 1), (51, 51, 51)])
def test_densest_isolated_voxels(shape):
    mask = np.zeros(shape, dtype=bool)
    mask[::2, ::2, ::2] = True
    assert np.argwhere(keep_largest(mask)).tolist() == [[0, 0, 0]]


def test_empty_and_full_masks():
    empty = np.zeros((2, 3, 4), dtype=bool)
    np.testing.assert_array_equal(keep_largest(empty), empty)
    np.testing.assert_array_equal(keep_largest(~empty), ~empty)


def test_the_argument_is_unchanged():
    mask = np.array([[[1, 0, 1, 1]]], dtype=bool)
    before = mask.copy()
    keep_largest(mask)[:] = True
    np.testing.assert_array_equal(mask, before)


@settings(max_examples=25, deadline=None)
@given(MASKS)
def test_agrees_with_scipy(mask):
    components, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    kept = keep_largest(mask)
    if count == 0:
        assert not kept.any()
        return
    # scipy numbers components in array order and argmax takes the first of equal sizes
    sizes = np.bincount(components.ravel())[1:]
    np.testing.assert_array_equal(kept, components == np.argmax(sizes) + 1)


@settings(max_examples=25, deadline=None)
@given(MASKS)
def test_keeping_twice_changes_nothing(mask):
    kept = keep_largest(mask)
    assert not (kept & ~mask).any()
    np.testing.assert_array_equal(keep_largest(kept), kept)
