"""Grids by hand, against SimpleITK, and as properties over oblique grids."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from autoseg.errors import GeometryError
from autoseg.imaging.geometry import AxisMap, Box, Grid, resampled_shape

few = settings(max_examples=25, deadline=None)
LOOKING_THE_CANONICAL_WAY = AxisMap((0, 1, 2), (False, False, False))


def grid_of(itk: sitk.Image) -> Grid:
    """ITK's own idea of where voxels are, asked voxel by voxel."""
    size = itk.GetSize()
    origin = np.array(itk.TransformIndexToPhysicalPoint((0, 0, 0)))
    affine = np.eye(4)
    affine[:3, 3] = origin
    for axis, step in enumerate(((0, 0, 1), (0, 1, 0), (1, 0, 0))):
        affine[:3, axis] = np.array(itk.TransformIndexToPhysicalPoint(step)) - origin
    return Grid(size[::-1], affine)


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """Any rotation, mirrored or not, anisotropic, anywhere."""
    shape = draw(st.tuples(*[st.integers(1, 7)] * 3))
    spacing = draw(st.tuples(*[st.floats(0.05, 12)] * 3))
    angles = draw(st.tuples(*[st.floats(-180, 180)] * 3))
    mirror = draw(st.sampled_from([1.0, -1.0]))
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * np.array(spacing) * (mirror, 1, 1)
    affine[:3, 3] = draw(st.tuples(*[st.floats(-300, 300)] * 3))
    return Grid(shape, affine)


@st.composite
def axis_maps(draw: st.DrawFn) -> AxisMap:
    order = draw(st.permutations([0, 1, 2]))
    return AxisMap(tuple(order), draw(st.tuples(*[st.booleans()] * 3)))


def centres(grid: Grid) -> np.ndarray:
    """World points of all voxels, (Z, Y, X, 3)."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    return grid.index_to_world(index.reshape(-1, 3)).reshape(*grid.shape, 3)


def test_box() -> None:
    box = Box((1, 0, 2), (3, 4, 7))
    assert box.shape == (2, 4, 5)
    assert np.zeros((9, 9, 9))[box.slices].shape == (2, 4, 5)


def test_box_around_is_tight() -> None:
    mask = np.zeros((5, 6, 7), bool)
    assert Box.around(mask) is None
    mask[1, 2, 3] = mask[3, 2, 5] = True
    assert Box.around(mask) == Box((1, 2, 3), (4, 3, 6))


@few
@given(st.lists(st.tuples(*[st.integers(0, 5)] * 3), min_size=1, max_size=4))
def test_box_around_is_the_smallest_box(points: list[tuple[int, int, int]]) -> None:
    mask = np.zeros((6, 6, 6), bool)
    mask[tuple(np.array(points).T)] = True
    box = Box.around(mask)
    assert box is not None
    assert mask[box.slices].sum() == mask.sum()
    assert box.start == tuple(np.min(points, axis=0))
    assert box.stop == tuple(np.max(points, axis=0) + 1)


def test_canonical_grid_by_hand() -> None:
    grid = Grid.from_spacing((4, 5, 6), (3.0, 2.0, 0.5), origin=(10, 20, 30))
    assert grid.spacing == (3.0, 2.0, 0.5)
    assert grid.extent == (12.0, 10.0, 3.0)
    assert grid.voxel_volume == pytest.approx(3.0)
    np.testing.assert_allclose(grid.index_to_world(np.array([[1, 2, 4], [0, 0, 0]])), [[12, 24, 33], [10, 20, 30]])
    np.testing.assert_allclose(grid.world_to_index(np.array([[12.0, 24.0, 33.0]])), [[1, 2, 4]])
    assert grid.canonical_axes() == LOOKING_THE_CANONICAL_WAY


def test_equality_and_hash() -> None:
    a, b = Grid.from_spacing((2, 3, 4), (1, 1, 1)), Grid.from_spacing((2, 3, 4), (1, 1, 1))
    assert a == b
    assert hash(a) == hash(b)
    assert a != Grid.from_spacing((2, 3, 5), (1, 1, 1))
    assert a != Grid.from_spacing((2, 3, 4), (1, 1, 1), origin=(0, 0, 1))
    assert a != "a grid"


def test_the_affine_is_a_copy_that_cannot_be_written() -> None:
    affine = np.eye(4)
    grid = Grid((2, 2, 2), affine)
    affine[0, 3] = 7
    assert grid.affine[0, 3] == 0
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 3] = 1


@pytest.mark.parametrize("shape", [(0, 2, 2), (2, 2), (2, 2, 2, 2), ()])
def test_shape_must_be_three_positive_numbers(shape: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError, match="three axes of at least one voxel; found"):
        Grid(shape, np.eye(4))  # type: ignore[arg-type]


@pytest.mark.parametrize("affine", [np.eye(3), np.diag([1, 1, np.nan, 1]), np.diag([1, np.inf, 1, 1])])
def test_affine_must_be_four_by_four_and_finite(affine: np.ndarray) -> None:
    with pytest.raises(GeometryError, match="must be 4×4 and finite"):
        Grid((2, 2, 2), affine)


@pytest.mark.parametrize(
    "affine", [np.diag([0.0, 1, 1, 1]), np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])]
)
def test_axes_must_be_independent(affine: np.ndarray) -> None:
    with pytest.raises(GeometryError, match=r"independent and longer than zero; found: spacing .*; fix: correct spacing"):
        Grid((2, 2, 2), affine)


def test_very_small_voxels_are_no_error() -> None:
    assert Grid.from_spacing((2, 2, 2), (1e-4, 1e-4, 1e-4)).voxel_volume == pytest.approx(1e-12)  # electron microscopy


def test_a_mirrored_axis_by_hand() -> None:
    """A RAS volume: x and y run against LPS, so both are flipped; the far corner becomes the first
    voxel.
    """
    affine = np.array([[0, 0, -1, 5], [0, -1, 0, 7], [1.0, 0, 0, 0], [0, 0, 0, 1]])
    grid = Grid((2, 3, 4), affine)
    axes = grid.canonical_axes()
    assert axes == AxisMap((0, 1, 2), (False, True, True))
    assert grid.reoriented(axes) == Grid.from_spacing((2, 3, 4), (1, 1, 1), origin=(5 - 3, 7 - 2, 0))


def test_sagittal_slices_by_hand() -> None:
    """The slice axis runs along x: a swap brings it last."""
    affine = np.zeros((4, 4))
    affine[0, 0], affine[2, 1], affine[1, 2], affine[3, 3] = 5.0, -0.5, 0.7, 1
    grid = Grid((10, 30, 20), affine)
    axes = grid.canonical_axes()
    assert axes == AxisMap((1, 2, 0), (True, False, False))
    home = grid.reoriented(axes)
    assert home.shape == (30, 20, 10)
    assert home.spacing == (0.5, 0.7, 5.0)
    array = np.random.default_rng(0).random((2, 10, 30, 20))
    np.testing.assert_array_equal(axes.apply(array), array.transpose(0, 2, 3, 1)[:, ::-1])


def test_axis_map_apply_is_a_view() -> None:
    array = np.zeros((2, 3, 4))
    assert np.shares_memory(AxisMap((2, 0, 1), (True, False, True)).apply(array), array)


@few
@given(grids(), st.lists(st.tuples(*[st.floats(-20, 20)] * 3), min_size=1, max_size=5))
def test_index_world_index(grid: Grid, index: list[tuple[float, float, float]]) -> None:
    np.testing.assert_allclose(grid.world_to_index(grid.index_to_world(np.array(index))), index, atol=1e-8)


@few
@given(axis_maps(), st.tuples(*[st.integers(1, 4)] * 3))
def test_axis_map_inverse(axes: AxisMap, shape: tuple[int, int, int]) -> None:
    array = np.arange(2 * np.prod(shape)).reshape(2, *shape)
    np.testing.assert_array_equal(axes.inverse.apply(axes.apply(array)), array)
    np.testing.assert_array_equal(axes.apply(axes.inverse.apply(array)), array)
    assert axes.inverse.inverse == axes


@few
@given(grids(), axis_maps())
def test_reorienting_moves_no_voxel(grid: Grid, axes: AxisMap) -> None:
    there = grid.reoriented(axes)
    moved = axes.apply(np.moveaxis(centres(grid), -1, 0))
    np.testing.assert_allclose(np.moveaxis(centres(there), -1, 0), moved, atol=1e-8)
    back = there.reoriented(axes.inverse)
    assert back.shape == grid.shape
    np.testing.assert_allclose(back.affine, grid.affine, atol=1e-9)


@few
@given(grids())
def test_canonical_is_a_fixed_point_and_points_along_world(grid: Grid) -> None:
    home = grid.reoriented(grid.canonical_axes())
    assert home.canonical_axes() == LOOKING_THE_CANONICAL_WAY
    cosines = home.affine[:3, :3] / np.array(home.spacing)
    assert np.all(np.diag(cosines[::-1]) >= 0)
    assert home.voxel_volume == pytest.approx(grid.voxel_volume)


@few
@given(st.permutations([0, 1, 2]), st.tuples(*[st.booleans()] * 3), st.tuples(*[st.floats(-20, 20)] * 3))
def test_canonical_axes_agree_with_itk_orient(order: list[int], flip: tuple[bool, ...], angles: tuple[float, ...]) -> None:
    """Against ITK's DICOMOrient to LPS, for volumes up to 20 degrees off the axes, where 'closest'
    leaves no doubt.
    """
    turn = Rotation.from_euler("xyz", np.array(angles) / 2, degrees=True).as_matrix()
    direction = (turn @ np.eye(3)[:, order]) * [(-1.0 if f else 1.0) for f in flip]
    image = sitk.GetImageFromArray(np.arange(24, dtype=np.int32).reshape(2, 3, 4))
    image.SetSpacing((0.5, 1.5, 4.0))
    image.SetOrigin((10.0, -20.0, 30.0))
    image.SetDirection(direction.ravel().tolist())
    oriented = sitk.DICOMOrient(image, "LPS")
    grid = grid_of(image)
    axes = grid.canonical_axes()
    np.testing.assert_array_equal(axes.apply(sitk.GetArrayFromImage(image)), sitk.GetArrayFromImage(oriented))
    np.testing.assert_allclose(grid.reoriented(axes).affine, grid_of(oriented).affine, atol=1e-9)


def test_crop_by_hand_and_padding() -> None:
    grid = Grid.from_spacing((4, 5, 6), (3, 2, 1))
    assert grid.crop(Box((1, 1, 2), (3, 5, 6))) == Grid.from_spacing((2, 4, 4), (3, 2, 1), origin=(2, 2, 3))
    assert grid.crop(Box((-1, 0, -2), (5, 5, 6))) == Grid.from_spacing((6, 5, 8), (3, 2, 1), origin=(-2, 0, -3))


@few
@given(grids(), st.data())
def test_crop_moves_no_voxel(grid: Grid, data: st.DataObject) -> None:
    start = tuple(data.draw(st.integers(0, n - 1)) for n in grid.shape)
    stop = tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(start, grid.shape))
    box = Box(start, stop)
    cropped = grid.crop(box)
    np.testing.assert_allclose(centres(cropped), centres(grid)[box.slices], atol=1e-9)
    whole = cropped.crop(Box(tuple(-a for a in start), tuple(n - a for a, n in zip(start, grid.shape))))
    assert whole.shape == grid.shape
    np.testing.assert_allclose(whole.affine, grid.affine, atol=1e-9)


def test_with_shape_by_hand() -> None:
    """Two voxels of 1 mm become one of 2 mm, whose centre is where they met."""
    half = Grid.from_spacing((2, 4, 8), (1, 1, 1)).with_shape((1, 2, 4))
    assert half == Grid.from_spacing((1, 2, 4), (2, 2, 2), origin=(0.5, 0.5, 0.5))


@few
@given(grids(), st.tuples(*[st.integers(1, 9)] * 3))
def test_with_shape_keeps_extent_and_outer_corners(grid: Grid, shape: tuple[int, int, int]) -> None:
    other = grid.with_shape(shape)
    np.testing.assert_allclose(other.extent, grid.extent)
    ends = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    np.testing.assert_allclose(
        other.index_to_world(ends * np.array(shape) - 0.5), grid.index_to_world(ends * np.array(grid.shape) - 0.5), atol=1e-8
    )
    back = other.with_shape(grid.shape)
    np.testing.assert_allclose(back.affine, grid.affine, atol=1e-8)


def test_corner_distance() -> None:
    a = Grid.from_spacing((11, 11, 11), (1, 1, 1))
    assert a.corner_distance(a) == 0
    assert a.corner_distance(Grid.from_spacing((11, 11, 11), (1, 1, 1), origin=(3, 4, 0))) == pytest.approx(5)
    assert a.corner_distance(Grid.from_spacing((11, 11, 11), (1, 1, 1.2))) == pytest.approx(2)  # only the far side is off


def test_resampled_shape() -> None:
    assert resampled_shape((10, 20, 30), (3.0, 1.0, 1.0), (1.0, 2.0, 1.5)) == (30, 10, 20)
    assert resampled_shape((1, 1, 1), (0.1, 0.1, 0.1), (5, 5, 5)) == (1, 1, 1)
    # half voxels go to the even number, as numpy (and so nnU-Net's shape) has it
    assert resampled_shape((5, 3, 1), (1, 1, 1), (2, 2, 2)) == tuple(np.round(np.array([5, 3, 1]) / 2).astype(int).clip(1))


@few
@given(st.tuples(*[st.integers(1, 500)] * 3), st.tuples(*[st.floats(0.1, 10)] * 3), st.tuples(*[st.floats(0.1, 10)] * 3))
def test_resampled_extent_is_right_to_half_a_voxel(shape: tuple, spacing: tuple, target: tuple) -> None:
    new = resampled_shape(shape, spacing, target)
    for n, s, m, t in zip(shape, spacing, new, target):
        assert m == 1 or abs(n * s - m * t) <= t / 2 + 1e-9
    assert resampled_shape(shape, spacing, spacing) == shape
