"""TIFF against tifffile (its own writer, in every arrangement of axes), Pillow and SimpleITK."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image as Pillow

from autoseg.errors import DataError
from autoseg.imaging.geometry import Grid
from autoseg.imaging.image import Image, LabelMap
from autoseg.imaging.labels import LabelSet
from autoseg.io import read_grid, read_header, read_image, read_label_map, read_label_values, write_image, write_label_map

LABELS = LabelSet(("a", "b"), (3, 300))


def noise(*shape: int, top: int = 256) -> np.ndarray:
    return np.random.default_rng(0).integers(0, top, shape).astype(np.uint8 if top <= 256 else np.uint16)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.float32, np.float64, np.bool_])
@pytest.mark.parametrize("shape", [(5, 7), (2, 5, 7), (3, 5, 7)])
def test_pages_are_slices(tmp_path: Path, kind: type, shape: tuple[int, ...]) -> None:
    array = (noise(*shape) - (100.0 if np.issubdtype(kind, np.signedinteger) else 0)).astype(kind)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, photometric="minisblack")
    image = read_image([path], ["image"])
    np.testing.assert_array_equal(image.data[0], array.reshape(-1, 5, 7).astype(np.float32))
    assert image.grid == read_grid(path) == Grid.from_spacing(image.data.shape[1:], (1, 1, 1))
    assert image.data.flags.c_contiguous


@pytest.mark.parametrize(
    ("axes", "shape"),
    [("CYX", (2, 5, 7)), ("ZCYX", (4, 2, 5, 7)), ("CZYX", (2, 4, 5, 7)), ("TZCYX", (1, 4, 2, 5, 7)), ("ZYX", (4, 5, 7))],
)
@pytest.mark.parametrize("dialect", ["ome", "imagej", "shaped"])
def test_named_axes(tmp_path: Path, axes: str, shape: tuple[int, ...], dialect: str) -> None:
    """What Fiji, OME and tifffile call channels and slices ends up as such, in whatever order they are stored."""
    array = noise(*shape, top=65536)
    if dialect == "imagej":  # its order is fixed
        order = [axes.index(a) for a in "TZCYX" if a in axes]
        array, axes = np.ascontiguousarray(array.transpose(order)), "".join(axes[i] for i in order)
    path = tmp_path / ("a.ome.tif" if dialect == "ome" else "a.tiff")
    flag = {"ome": {"ome": True}, "imagej": {"imagej": True}, "shaped": {}}[dialect]
    tifffile.imwrite(path, array, photometric="minisblack", metadata={"axes": axes}, **flag)
    wanted = array.reshape([array.shape[axes.index(a)] if a in axes else 1 for a in axes])
    wanted = np.moveaxis(wanted, [i for i, a in enumerate(axes) if a in "YX"], [-2, -1])
    rest = [a for a in axes if a not in "YX"]
    expected = np.zeros((2 if "C" in axes else 1, 4 if "Z" in axes else 1, 5, 7))
    for index in np.ndindex(*wanted.shape[:-2]):
        place = dict(zip(rest, index))
        expected[place.get("C", 0), place.get("Z", 0)] = wanted[index]
    names = [f"c{i}" for i in range(len(expected))]
    np.testing.assert_array_equal(read_image([path], names).data, expected)
    header = read_header(path)
    assert (header.channels, header.colour, header.eight_bit) == (len(expected), False, False)
    assert header.grid.shape == expected.shape[1:]


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("n_slices", [1, 4])
def test_colour(tmp_path: Path, planar: str, n_slices: int) -> None:
    array = noise(n_slices, 3, 5, 7)
    stored = array if planar == "separate" else np.moveaxis(array, 1, -1)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ascontiguousarray(stored if n_slices > 1 else stored[0]), photometric="rgb", planarconfig=planar)
    np.testing.assert_array_equal(read_image([path], ("rgb_to_0_1",) * 3).data, np.moveaxis(array, 1, 0))
    header = read_header(path)
    assert (header.channels, header.colour, header.eight_bit) == (3, True, True)


def test_opacity(tmp_path: Path) -> None:
    array = noise(5, 7, 4)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, photometric="rgb", extrasamples=["unassalpha"])
    assert read_header(path).channels == 3
    with pytest.raises(DataError, match=r"partly transparent; file: .*a\.tif; found: opacity from"):
        read_image([path], ("R", "G", "B"))
    array[..., 3] = 255
    tifffile.imwrite(path, array, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(read_image([path], ("R", "G", "B")).data[:, 0], np.moveaxis(array[..., :3], -1, 0))


def test_a_palette_is_colour_in_an_image_and_number_in_a_label_map(tmp_path: Path) -> None:
    indices, colours = noise(5, 7, top=3), np.zeros((3, 256), np.uint16)
    colours[:, 1:3] = 257 * np.array([[255, 0], [0, 200], [0, 30]])
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, indices, photometric="palette", colormap=colours)
    np.testing.assert_array_equal(read_label_values(path)[0], indices)
    expected = np.asarray(Pillow.open(path).convert("RGB"))
    np.testing.assert_array_equal(np.moveaxis(read_image([path], ("R", "G", "B")).data[:, 0], 0, -1), expected)
    assert (read_header(path).channels, read_header(path).colour) == (3, True)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits", "tiff_adobe_deflate"])
@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 3)])
def test_compressed(tmp_path: Path, compression: str, shape: tuple[int, ...]) -> None:
    array = noise(*shape)
    path = tmp_path / "a.tif"
    Pillow.fromarray(array).save(path, compression=compression)
    names = ("image",) if array.ndim == 2 else ("R", "G", "B")
    np.testing.assert_array_equal(read_image([path], names).data[:, 0], np.atleast_3d(array).transpose(2, 0, 1))


def test_a_stack_compressed_with_lzw(tmp_path: Path) -> None:
    array = noise(4, 30, 40, top=65536)
    path = tmp_path / "a.tif"
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path), useCompression=True, compressor="LZW")
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages.first.compression == tifffile.COMPRESSION.LZW
    np.testing.assert_array_equal(read_image([path], ["image"]).data[0], array)


def test_a_palette_compressed_with_lzw(tmp_path: Path) -> None:
    """One library lacks LZW, another hands out colours instead of numbers."""
    images = [Pillow.fromarray(noise(5, 7)).convert("RGB").quantize(8)] * 2
    path = tmp_path / "a.tif"
    images[0].save(path, compression="tiff_lzw")
    np.testing.assert_array_equal(read_label_values(path)[0], np.asarray(images[0]))
    images[0].save(path, compression="tiff_lzw", save_all=True, append_images=images[1:])
    with pytest.raises(DataError, match=r"cannot be read as an image; file: .*found: compression .*LZW.*fix: export it"):
        read_label_values(path)


@pytest.mark.parametrize("n_slices", [1, 3, 6])
def test_label_map_round_trip(tmp_path: Path, n_slices: int) -> None:
    """Three slices are not taken for colours."""
    indices = noise(n_slices, 5, 7, top=3)
    grid = Grid.from_spacing(indices.shape, (1, 1, 1))
    path = tmp_path / "new" / "l.tif"
    write_label_map(path, LabelMap(indices, grid, LABELS), like=path)
    values = np.array([0, 3, 300], np.uint16)[indices]
    np.testing.assert_array_equal(tifffile.imread(path).reshape(values.shape), values)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).reshape(values.shape), values)
    again = read_label_map(path, LABELS)
    np.testing.assert_array_equal(again.data, indices)
    assert again.grid == grid
    assert [p.name for p in path.parent.iterdir()] == ["l.tif"]


@pytest.mark.parametrize("shape", [(1, 1, 5, 7), (1, 3, 5, 7), (3, 1, 5, 7), (2, 4, 5, 7)])
def test_image_round_trip(tmp_path: Path, shape: tuple[int, int, int, int]) -> None:
    data = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    names = tuple(f"c{i}" for i in range(len(data)))
    write_image(tmp_path / "a.tif", Image(data, Grid.from_spacing(shape[1:], (1, 1, 1)), names))
    np.testing.assert_array_equal(read_image([tmp_path / "a.tif"], names).data, data)


def test_several_images_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(noise(5, 7))
        writer.write(noise(9, 9))
    for read in (read_header, read_label_values):
        with pytest.raises(DataError, match=r"one image or one stack; .*found: 2 images of shapes \(5, 7\), \(9, 9\); fix: save"):
            read(path)


def test_time_and_depth(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(2, 3, 5, 7), photometric="minisblack", metadata={"axes": "TZYX"})
    with pytest.raises(DataError, match=r"axes of the TIFF.*found: TZYX of shape \(2, 3, 5, 7\); allowed: rows.*fix: save"):
        read_header(path)


@pytest.mark.parametrize("array", [noise(5, 7), noise(5, 7, top=2).astype(bool), noise(3, 5, 7, top=65536)])
def test_white_as_zero(tmp_path: Path, array: np.ndarray) -> None:
    """A mask would come out inverted, or not: programs differ in whether they count what is seen or what is stored."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, photometric="miniswhite")
    for read in (read_header, read_label_values, lambda path: read_image([path], ["image"])):
        with pytest.raises(
            DataError, match=r"white is 0.*; file: .*a\.tif; found: .*MINISWHITE.*; allowed: .*; fix: save it again"
        ):
            read(path)


def test_complex_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(5, 7).astype(np.complex64))
    with pytest.raises(DataError, match=r"holds no plain numbers; file: .*found: complex64"):
        read_image([path], ["image"])


def test_not_a_number(tmp_path: Path) -> None:
    array = np.ones((2, 5, 7), np.float32)
    array[1, 2, 3:5] = np.nan, np.inf
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, photometric="minisblack")
    with pytest.raises(DataError, match=r"holds NaN or infinity; file: .*found: 2 voxels; allowed: finite"):
        read_image([path], ["image"])


def test_invalid_tiff_files(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with pytest.raises(DataError, match="no such file"):
        read_header(path)
    path.write_text("not a TIFF")
    with pytest.raises(DataError, match=r"cannot be read as an image; file: .*; found: not a TIFF file.*; fix: export"):
        read_header(path)


def test_any_damage_is_a_data_error(tmp_path: Path) -> None:
    """Cut anywhere or with a few wrong bytes: read as something, or refused as this case's fault, never a crash."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(3, 8, 9), photometric="minisblack", compression="zlib")
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for i in range(150):
        damaged = bytearray(whole[: len(whole) - (i % 3) * int(rng.integers(1, len(whole)))])
        for position in rng.integers(0, len(damaged), 3):
            damaged[position] = int(rng.integers(256))
        path.write_bytes(damaged)
        try:
            read_image([path], ["image"])
        except (DataError, MemoryError):
            refused += 1
    assert refused > 50


@pytest.mark.real
def test_a_real_stack(real_data: Callable[[str], Path]) -> None:
    folder = real_data("tif")
    expected = tifffile.imread(folder / "nuclei3d.tif")
    image = read_image([folder / "nuclei3d.tif"], ["image"])
    np.testing.assert_array_equal(image.data[0], expected.astype(np.float32))
    assert image.grid.shape == read_label_values(folder / "nuclei3d_mask.tif").shape == expected.shape
