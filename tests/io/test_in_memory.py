from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from autoseg.errors import DataError, UsageError
from autoseg.imaging.geometry import Grid
from autoseg.imaging.image import Image
from autoseg.io import read_image, write_image
from autoseg.io.in_memory import image_from_memory

VOLUME = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)


def test_simpleitk_image_is_as_its_file(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(VOLUME)
    image.SetSpacing((0.5, 0.75, 2.0))
    image.SetOrigin((10.0, -20.0, 30.0))
    image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    from_file, from_memory = read_image((tmp_path / "a.nrrd",), ("CT",)), image_from_memory(image, ("CT",))
    assert from_memory.grid == from_file.grid
    assert from_memory.data.dtype == np.float32
    np.testing.assert_array_equal(from_memory.data, from_file.data)


def test_vector_image_has_a_channel_for_each_component() -> None:
    image = sitk.GetImageFromArray(np.stack([VOLUME, VOLUME + 100], axis=-1), isVector=True)
    data = image_from_memory(image, ("T1", "T2")).data
    np.testing.assert_array_equal(data, np.stack([VOLUME, VOLUME + 100]))
    with pytest.raises(DataError, match=r"another number of channels than the model; found: 2; allowed: 1 \(CT\)"):
        image_from_memory(image, ("CT",))


@given(st.tuples(*[st.floats(0.1, 9)] * 3))
def test_array_lies_on_a_canonical_grid_with_its_spacing(spacing: tuple[float, float, float]) -> None:
    image = image_from_memory(VOLUME, ("CT",), spacing)
    assert image.grid == Grid.from_spacing((2, 3, 4), spacing)
    np.testing.assert_array_equal(image.data, VOLUME[None])


@pytest.mark.parametrize(
    ("shape", "channels", "spacing", "result"),
    [
        ((1, 2, 3, 4), ("CT",), (1, 1, 1), (1, 2, 3, 4)),
        ((2, 2, 3, 4), ("T1", "T2"), (1, 1, 1), (2, 2, 3, 4)),
        ((3, 4), ("grey",), None, (1, 1, 3, 4)),
        ((3, 5, 4), ("red", "green", "blue"), (0.5, 0.5), (3, 1, 5, 4)),
    ],
)
def test_shapes_of_arrays(shape: tuple[int, ...], channels: tuple[str, ...], spacing: tuple | None, result: tuple) -> None:
    image = image_from_memory(np.ones(shape, np.uint8), channels, spacing)
    assert image.data.shape == result
    assert image.grid.spacing[-2:] == tuple(spacing[-2:] if spacing else (1, 1))


def test_autoseg_image_is_taken_as_it_is(tmp_path: Path) -> None:
    image = Image(VOLUME[None].astype(np.float32), Grid.from_spacing((2, 3, 4), (3, 2, 1), (5, 6, 7)), ("CT",))
    write_image(tmp_path / "a.nii.gz", image)
    same = image_from_memory(image, ("CT",))
    assert same.grid == image.grid
    np.testing.assert_array_equal(same.data, image.data)


@pytest.mark.parametrize(
    ("data", "spacing", "message"),
    [
        (7, None, r"an image must be a path, .*, a SimpleITK image or a numpy array; found: int"),
        (VOLUME, None, r"does not say how large its voxels are; fix: spacing=\(z, y, x\), in mm"),
        (VOLUME, (1, 1), r"spacing does not fit the array; found: \(1\.0, 1\.0\); allowed: 3 positive numbers"),
        (VOLUME, 1.0, r"spacing is no list of numbers; found: 1\.0; allowed: 3 positive numbers, in mm"),
        (VOLUME, "abc", r"spacing is no list of numbers; found: 'abc'; allowed: 3 positive numbers, in mm"),
        (VOLUME, (1, 0, 1), r"spacing does not fit the array; found: \(1\.0, 0\.0, 1\.0\)"),
        (
            np.ones(5),
            (1, 1, 1),
            r"no image of this model; found: shape \(5,\), type float64; allowed: numbers of",
        ),
        (np.array([["a"]]), None, r"no image of this model; found: shape \(1, 1\), type <U1"),
        (np.full((2, 2, 2), np.nan), (1, 1, 1), r"the array holds NaN or infinity; allowed: finite numbers"),
        (sitk.GetImageFromArray(VOLUME), (1, 1, 1), r"spacing is for numpy arrays, other images have their own; found: Image"),
    ],
)
def test_errors(data: object, spacing: tuple | None, message: str) -> None:
    with pytest.raises((UsageError, DataError), match=message):
        image_from_memory(data, ("CT",), spacing)


def test_volume_without_channel_axis_needs_a_model_of_one_channel() -> None:
    with pytest.raises(UsageError, match=r"no image of this model; .*C is 3 \(red, green, blue\)"):
        image_from_memory(np.ones((2, 4, 4)), ("red", "green", "blue"), (1, 1, 1))


@pytest.mark.parametrize(
    ("shape", "fix"), [((5, 4, 3), r"array\.transpose\(2, 0, 1\)"), ((2, 5, 4, 3), r"array\.transpose\(3, 0, 1, 2\)")]
)
def test_channels_behind_are_refused_with_the_way_to_bring_them_first(shape: tuple[int, ...], fix: str) -> None:
    with pytest.raises(UsageError, match=rf"no image of this model; .*C is 3 \(3 × rgb_to_0_1\); fix: {fix}"):
        image_from_memory(np.ones(shape, np.uint8), ("rgb_to_0_1",) * 3, (1, 1, 1)[-len(shape) + 1 :])


def test_grey_picture_is_taken_for_colour_and_equal_colours_for_grey() -> None:
    """As from a file: `autoseg.predict` and `model.predict(array)` agree."""
    picture = np.arange(12, dtype=np.uint8).reshape(3, 4)
    rgb = image_from_memory(picture, ("R", "G", "B")).data
    np.testing.assert_array_equal(rgb, np.stack([picture[None]] * 3))
    as_itk = image_from_memory(sitk.GetImageFromArray(picture), ("R", "G", "B")).data
    np.testing.assert_array_equal(as_itk, rgb)
    grey = image_from_memory(np.stack([picture] * 3)[:, None], ("grey",), (1, 1, 1)).data
    np.testing.assert_array_equal(grey, picture[None, None])
    coloured = np.stack([picture, picture, picture + 1])[:, None]
    with pytest.raises(DataError, match="a colour image where the dataset has one channel, 'grey'"):
        image_from_memory(coloured, ("grey",), (1, 1, 1))


@pytest.mark.parametrize(
    "picture",
    [
        (np.arange(12, dtype=np.uint8).reshape(3, 4), (0.5, 0.25)),
        (np.arange(12, dtype=np.uint8).reshape(1, 3, 4), (2, 0.5, 0.25)),
        (
            Image(np.arange(12, dtype=np.float32).reshape(1, 1, 3, 4), Grid.from_spacing((1, 3, 4), (1, 0.5, 0.25)), ("grey",)),
            None,
        ),
    ],
    ids=["picture", "one slice", "image"],
)
def test_spacing_of_a_picture_counts_as_1_for_a_model_in_pixels(picture: tuple, caplog: pytest.LogCaptureFixture) -> None:
    data, spacing = picture
    image = image_from_memory(data, ("grey",), spacing, in_pixels=True)
    assert image.grid == Grid.from_spacing((1, 3, 4), (1, 1, 1))
    np.testing.assert_array_equal(image.data.ravel(), np.arange(12))
    assert [r.getMessage() for r in caplog.records] == [
        "note: the spacing of the image, (0.5, 0.25), counts as 1: the model has learnt from pictures without spacing, in pixels"
    ]
    assert image_from_memory(data, ("grey",), spacing).grid.spacing[1:] == (0.5, 0.25)


def test_volumes_keep_their_spacing_and_plain_pictures_get_no_note(caplog: pytest.LogCaptureFixture) -> None:
    assert image_from_memory(VOLUME, ("CT",), (2, 3, 4), in_pixels=True).grid.spacing == (2, 3, 4)
    assert image_from_memory(VOLUME[0], ("CT",), in_pixels=True).grid.spacing == (1, 1, 1)
    assert not caplog.records


def test_channels_of_an_image_are_ordered_by_name() -> None:
    grid = Grid.from_spacing((1, 2, 2), (1, 1, 1))
    data = np.stack([np.full((1, 2, 2), n, np.float32) for n in range(3)])
    image = Image(data, grid, ("T2", "FLAIR", "T1"))
    ordered = image_from_memory(image, ("T1", "T2", "FLAIR"))
    assert ordered.channels == ("T1", "T2", "FLAIR")
    np.testing.assert_array_equal(ordered.data[:, 0, 0, 0], [2, 0, 1])
    with pytest.raises(DataError, match="other channels than the model; found: T2, FLAIR, T1; allowed: T1, T2, CT, in any"):
        image_from_memory(image, ("T1", "T2", "CT"))
    with pytest.raises(DataError, match="other channels than the model; found: a, b, b; allowed: b, a, b"):
        image_from_memory(Image(data, grid, ("a", "b", "b")), ("b", "a", "b"))
    colours = image_from_memory(Image(data, grid, ("red", "green", "blue")), ("rgb_to_0_1",) * 3)
    np.testing.assert_array_equal(colours.data, data)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_image_with_a_value_that_is_no_number_is_refused(value: float) -> None:
    image = Image(np.full((1, 2, 2, 2), value, np.float32), Grid.from_spacing((2, 2, 2), (1, 1, 1)), ("CT",))
    with pytest.raises(DataError, match="the file holds NaN or infinity; file: the image in memory; found: 8 voxels"):
        image_from_memory(image, ("CT",))


def test_values_beyond_32_bit_are_refused(tmp_path: Path) -> None:
    large = np.array([[[0.0, 1e300], [-1e39, 3e38]]])
    message = r"the image holds numbers that are too large; file: .*; found: 2 voxels; allowed: up to 3\.4e38"
    image = sitk.GetImageFromArray(large)
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    for data, spacing in ((large, (1, 1, 1)), (image, None)):
        with pytest.raises(DataError, match=message):
            image_from_memory(data, ("CT",), spacing)
    with pytest.raises(DataError, match=message):
        read_image(tmp_path / "a.nrrd", ("CT",))


@pytest.mark.parametrize(
    ("pixel_id", "found"),
    [(sitk.sitkComplexFloat32, "complex of 32-bit float"), (sitk.sitkLabelUInt8, "label of 8-bit unsigned")],
)
def test_complex_numbers_and_runs_of_labels_are_refused(pixel_id: int, found: str) -> None:
    with pytest.raises(DataError, match=rf"the voxels are no plain numbers; file: the SimpleITK image; found: {found}"):
        image_from_memory(sitk.Image([4, 3, 2], pixel_id), ("CT",))
