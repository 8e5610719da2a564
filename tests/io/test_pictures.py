"""PNG, JPG and BMP against scikit-image and Pillow."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import skimage.io
from helpers.limits import HANGS
from PIL import Image as Pillow
from PIL import ImageOps

from autoseg.errors import DataError, GeometryError, LabelError
from autoseg.imaging.geometry import Grid
from autoseg.imaging.image import Image, LabelMap
from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import NO_LANDMARKS
from autoseg.io import (
    label_ending,
    read_grid,
    read_header,
    read_image,
    read_label_map,
    read_label_values,
    write_image,
    write_label_map,
    write_probabilities,
)
from autoseg.plan import ChannelPlan, DataPlan, SpacePlan
from autoseg.preprocessing.case import preprocess_case
from autoseg.preprocessing.placement import Placement
from autoseg.preprocessing.restore import restore_labels

RGB = ("rgb_to_0_1",) * 3
LABELS = LabelSet(("a", "b"), (1, 2))


def noise(*shape: int, top: int = 256, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, top, shape).astype(np.uint8 if top <= 256 else np.uint16)


def save(path: Path, array: np.ndarray, **how: object) -> Path:
    Pillow.fromarray(array).save(path, **how)
    return path


def deep_png(path: Path, array: np.ndarray) -> Path:
    """A PNG of 16 bit with 2 (grey, opacity), 3 or 4 (colour, opacity) channels, which Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = array.shape
    kind = {2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def grey_png(path: Path, array: np.ndarray, bits: int) -> Path:
    """A grey PNG of 1, 2 or 4 bit: what paint programs make of few values."""
    rows = np.unpackbits(array[:, :, None], axis=-1)[:, :, 8 - bits :].reshape(len(array), -1)
    packed = b"".join(b"\0" + np.packbits(row).tobytes() for row in rows)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], bits, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(packed)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


@pytest.mark.parametrize("ending", [".png", ".bmp", ".jpg", ".jpeg"])
def test_grey_and_colour_as_scikit_image_reads_them(tmp_path: Path, ending: str) -> None:
    path = save(tmp_path / f"grey{ending}", noise(5, 7))
    image = read_image([path], ["image"])
    np.testing.assert_array_equal(image.data[0, 0], skimage.io.imread(path))
    assert (image.data.shape, image.data.dtype, image.data.flags.c_contiguous) == ((1, 1, 5, 7), np.float32, True)
    path = save(tmp_path / f"colour{ending.upper()}", noise(5, 7, 3))
    colour = read_image([path], RGB)
    np.testing.assert_array_equal(np.moveaxis(colour.data[:, 0], 0, -1), skimage.io.imread(path))
    assert colour.data.flags.c_contiguous


def test_sixteen_bit_grey(tmp_path: Path) -> None:
    array = noise(5, 7, top=65536)
    path = save(tmp_path / "a.png", array)
    np.testing.assert_array_equal(read_image([path], ["image"]).data[0, 0], array)
    header = read_header(path)
    assert (header.channels, header.colour, header.eight_bit) == (1, False, False)


@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bit_colour_is_not_cut_to_eight(tmp_path: Path, channels: int) -> None:
    array = noise(5, 7, channels, top=65536)
    array[..., 3:] = 65535
    path = deep_png(tmp_path / "a.png", array)
    image = read_image([path], ["red", "green", "blue"])
    np.testing.assert_array_equal(np.moveaxis(image.data[:, 0], 0, -1), array[..., :3])
    header = read_header(path)
    assert (header.channels, header.colour, header.eight_bit) == (3, True, False)


def test_sixteen_bit_grey_with_opacity_is_refused(tmp_path: Path) -> None:
    path = deep_png(tmp_path / "a.png", noise(5, 7, 2, top=65536))
    for read in (read_header, read_label_values):
        with pytest.raises(DataError, match=r"16-bit grey with an alpha channel cannot be read; file: .*; fix: save it without"):
            read(path)


def test_a_picture_lies_on_a_canonical_grid_of_one_slice(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", noise(5, 7))
    grid = read_grid(path)
    assert grid == read_image([path], ["image"]).grid == Grid.from_spacing((1, 5, 7), (1, 1, 1))
    axes = grid.canonical_axes()
    assert (axes.order, axes.flip) == ((0, 1, 2), (False, False, False))


def test_rows_stay_rows_through_preprocessing_and_restoring(tmp_path: Path) -> None:
    """An asymmetric label map comes back as it was: neither flipped nor turned."""
    values = np.zeros((6, 9), np.uint8)
    values[0, 1:4], values[4:, 7] = 1, 2
    image_path, label_path = save(tmp_path / "a.png", noise(6, 9) // 2 + 1), save(tmp_path / "l.png", values)
    image, label = read_image([image_path], ["image"]), read_label_map(label_path, LABELS)
    data = DataPlan((ChannelPlan("image", "zscore", 0, 1, 0, 1),), LABELS, NO_LANDMARKS)
    done = preprocess_case(image, label, data, SpacePlan("LPS", (1.0, 1.0), 0, "nonzero", 3, 1))
    assert isinstance(done.placement, Placement)
    np.testing.assert_array_equal(done.label, values[None])
    assert done.label is not None
    logits = (done.label[None] == np.arange(3)[:, None, None, None]).astype(np.float32)
    out = tmp_path / "out.png"
    write_label_map(out, LabelMap(restore_labels(logits, done.placement), image.grid, LABELS), like=image_path)
    np.testing.assert_array_equal(skimage.io.imread(out), values)


def test_constant_opacity_is_dropped(tmp_path: Path) -> None:
    array = noise(5, 7, 4)
    array[..., 3] = 255
    path = save(tmp_path / "a.png", array)
    np.testing.assert_array_equal(read_image([path], RGB).data[:, 0], np.moveaxis(array[..., :3], -1, 0))
    grey = save(tmp_path / "b.png", np.ascontiguousarray(array[..., 2:]))  # two channels: grey and opacity
    np.testing.assert_array_equal(read_image([grey], ["image"]).data[0, 0], array[..., 2])
    assert read_header(path).channels == 3
    assert read_header(grey).channels == 1


def test_partly_transparent(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", noise(5, 7, 4) // 2)
    with pytest.raises(DataError, match=r"partly transparent; file: .*a\.png; found: opacity from \d+ to \d+; .*fix: flatten it"):
        read_image([path], RGB)
    grey = save(tmp_path / "b.png", noise(5, 7) // 128, transparency=0)
    with pytest.raises(DataError, match=r"partly transparent.*found: opacity from 0 to 255"):
        read_image([grey], ["image"])
    np.testing.assert_array_equal(read_label_values(grey)[0], noise(5, 7) // 128)  # 0 is often made transparent in masks


def palette(path: Path, indices: np.ndarray, colours: list[int], **how: object) -> Path:
    image = Pillow.fromarray(indices).convert("P")
    image.putdata(indices.ravel().tolist())
    image.putpalette(colours)
    image.save(path, **how)
    return path


def test_a_palette_is_colour_in_an_image_and_number_in_a_label_map(tmp_path: Path) -> None:
    indices = noise(5, 7, top=3)
    colours = [0, 0, 0, 255, 0, 0, 0, 200, 30]
    path = palette(tmp_path / "a.png", indices, colours, transparency=0)
    np.testing.assert_array_equal(read_label_map(path, LABELS).data[0], indices)
    opaque = palette(tmp_path / "b.png", indices, colours)
    expected = np.array(colours).reshape(3, 3)[indices]
    np.testing.assert_array_equal(np.moveaxis(read_image([opaque], RGB).data[:, 0], 0, -1), expected)
    assert (read_header(opaque).channels, read_header(opaque).colour) == (3, True)
    with pytest.raises(DataError, match="partly transparent"):
        read_image([path], RGB)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_label_maps_of_few_bits_keep_their_numbers(tmp_path: Path, bits: int) -> None:
    values = noise(5, 9, top=2**bits)
    path = grey_png(tmp_path / "a.png", values, bits)
    np.testing.assert_array_equal(read_label_values(path)[0], values)


def test_black_and_white(tmp_path: Path) -> None:
    mask = noise(5, 7, top=2).astype(bool)
    path = save(tmp_path / "a.bmp", mask)
    np.testing.assert_array_equal(read_image([path], ["image"]).data[0, 0], mask)


def test_grey_among_colour_is_repeated(tmp_path: Path) -> None:
    array = noise(5, 7)
    path = save(tmp_path / "a.png", array)
    for names in (RGB, ("red", "green", "blue"), ("R", "G", "B")):
        image = read_image([path], names)
        np.testing.assert_array_equal(image.data, np.stack([array[None]] * 3))
        assert image.data.flags.c_contiguous
    with pytest.raises(DataError, match=r"number of channels differs.*found: 1; allowed: 3 \(T1, T2, PD\)"):
        read_image([path], ["T1", "T2", "PD"])  # nothing says that these are colours


def test_colour_among_grey(tmp_path: Path) -> None:
    array = noise(5, 7)
    path = save(tmp_path / "a.png", np.stack([array] * 3, axis=-1))
    np.testing.assert_array_equal(read_image([path], ["image"]).data, array[None, None])
    both = read_image([path, path], ["T1", "T2"])
    np.testing.assert_array_equal(both.data, np.stack([array[None]] * 2))
    coloured = save(tmp_path / "b.png", noise(5, 7, 3))
    with pytest.raises(
        DataError, match=r"colour image where the dataset has one channel, 'image'; file: .*b\.png; .*allowed: grey; fix: convert"
    ):
        read_image([coloured], ["image"])


def test_channels_of_different_size(tmp_path: Path) -> None:
    paths = [save(tmp_path / "a.png", noise(5, 7)), save(tmp_path / "b.png", noise(5, 8))]
    with pytest.raises(GeometryError, match=r"different grids; file: .*b\.png; found: shape \(1, 5, 8\)"):
        read_image(paths, ["T1", "T2"])


def test_cmyk_becomes_colour(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Pillow.fromarray(noise(8, 8, 3)).convert("CMYK").save(path)
    assert read_image([path], RGB).data.shape == (3, 1, 8, 8)


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif", ".npy"])
def test_label_map_round_trip(tmp_path: Path, ending: str) -> None:
    labels = LabelSet(("a", "b"), (3, 200))
    source = save(tmp_path / "a.png", noise(5, 7))
    indices = noise(1, 5, 7, top=3)
    path = tmp_path / "new" / f"l{ending}"
    write_label_map(path, LabelMap(indices, read_grid(source), labels), like=source)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    stored = np.load(path) if ending == ".npy" else skimage.io.imread(path)
    np.testing.assert_array_equal(stored.reshape(5, 7), np.array([0, 3, 200], np.uint8)[indices[0]])
    assert stored.dtype == np.uint8
    again = read_label_map(path, labels)
    np.testing.assert_array_equal(again.data, indices)
    assert again.grid == read_grid(source)


def test_large_label_values_need_sixteen_bit(tmp_path: Path) -> None:
    labels = LabelSet(("a", "b"), (3, 3000))
    source = save(tmp_path / "a.png", noise(5, 7))
    label_map = LabelMap(noise(1, 5, 7, top=3), read_grid(source), labels)
    write_label_map(tmp_path / "l.png", label_map, like=source)
    assert skimage.io.imread(tmp_path / "l.png").dtype == np.uint16
    np.testing.assert_array_equal(read_label_map(tmp_path / "l.png", labels).data, label_map.data)
    with pytest.raises(DataError, match=r"\.bmp cannot hold this without loss; .*uint16; allowed: one slice of 8-bit"):
        write_label_map(tmp_path / "l.bmp", label_map, like=source)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "l.png"]


def test_label_maps_are_never_jpg(tmp_path: Path) -> None:
    source = save(tmp_path / "a.jpg", noise(5, 7))
    assert [label_ending(Path(n)) for n in ("a.jpg", "a.JPEG", "a.png", "a.mhd", "a.tiff")] == [
        *(".png", ".png", ".png", ".mha", ".tiff")
    ]
    label_map = LabelMap(noise(1, 5, 7, top=3), read_grid(source), LABELS)
    with pytest.raises(DataError, match=r"\.jpg cannot hold this without loss; .*JPG changes values"):
        write_label_map(tmp_path / "l.jpg", label_map, like=source)
    with pytest.raises(DataError, match=r"a label map cannot be a JPG: .*; file: .*a\.jpg; fix: export the label maps again"):
        read_label_map(source, LABELS)


def test_a_picture_holds_one_slice(tmp_path: Path) -> None:
    label_map = LabelMap(noise(2, 5, 7, top=3), Grid.from_spacing((2, 5, 7), (1, 1, 1)), LABELS)
    with pytest.raises(DataError, match=r"\.png cannot hold this.*found: 2 slices, uint8; .*fix: write \.tif or \.npy"):
        write_label_map(tmp_path / "l.png", label_map, like=tmp_path / "a.png")


def test_masks_saved_as_colour(tmp_path: Path) -> None:
    values = noise(5, 7, top=3)
    path = save(tmp_path / "a.png", np.stack([values] * 3, axis=-1))
    np.testing.assert_array_equal(read_label_map(path, LABELS).data[0], values)
    coloured = save(tmp_path / "b.png", noise(5, 7, 3))
    with pytest.raises(DataError, match=r"must have one channel; .*found: 3 channels \(colours\); fix: give each"):
        read_label_map(coloured, LABELS)


def test_values_of_no_structure_name_the_file(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", 255 * noise(5, 7, top=2))
    with pytest.raises(LabelError, match=r"found: 255 \(a mask stored as 0/255\)") as caught:
        read_label_map(path, LABELS)
    assert caught.value.file == str(path)


@pytest.mark.parametrize("ending", [".png", ".bmp"])
def test_image_round_trip(tmp_path: Path, ending: str) -> None:
    grid = Grid.from_spacing((1, 5, 7), (1, 1, 1))
    for names in (("image",), RGB):
        image = Image(noise(len(names), 1, 5, 7).astype(np.float32), grid, names)
        write_image(tmp_path / f"a{ending}", image)
        np.testing.assert_array_equal(read_image([tmp_path / f"a{ending}"], names).data, image.data)


def test_images_that_a_picture_cannot_hold(tmp_path: Path) -> None:
    grid = Grid.from_spacing((1, 5, 7), (1, 1, 1))
    deep = noise(1, 1, 5, 7, top=65536).astype(np.float32)
    write_image(tmp_path / "a.png", Image(deep, grid, ("image",)))
    np.testing.assert_array_equal(skimage.io.imread(tmp_path / "a.png"), deep[0, 0])
    several = deep.repeat(3, 0)
    for data, name in ((deep + 0.5, "a.png"), (-deep, "a.png"), (deep, "a.bmp"), (deep // 256, "a.jpg"), (several, "a.png")):
        with pytest.raises(DataError, match="cannot hold this without loss"):
            write_image(tmp_path / name, Image(data, grid, ("c",) * len(data)))


def test_a_volume_like_a_picture(tmp_path: Path) -> None:
    source = save(tmp_path / "a.png", noise(5, 7))
    label_map = LabelMap(noise(1, 5, 7, top=3), read_grid(source), LABELS)
    write_label_map(tmp_path / "l.nii.gz", label_map, like=source)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "l.nii.gz"))), label_map.data)
    assert read_grid(tmp_path / "l.nii.gz") == read_grid(source)


def test_probabilities_of_a_picture(tmp_path: Path) -> None:
    source = save(tmp_path / "a.png", noise(5, 7))
    values = np.random.default_rng(0).random((3, 1, 5, 7))
    write_probabilities(tmp_path / "p.npy", values, like=source)
    stored = np.load(tmp_path / "p.npy")
    np.testing.assert_array_equal(stored, values.astype(np.float32))
    assert stored.dtype == np.float32
    for name in ("p.png", "p.nii.gz"):
        with pytest.raises(DataError, match=r"probabilities cannot be written in this format; .*allowed: \.npy"):
            write_probabilities(tmp_path / name, values, like=source)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".bmp"])
def test_invalid_pictures(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    for read in (read_header, lambda p: read_image([p], ["image"])):
        with pytest.raises(DataError, match=r"no such file; file: .*a\."):
            read(path)
    path.write_text("not a picture")
    for read in (read_header, lambda p: read_image([p], ["image"])):
        with pytest.raises(DataError, match=r"cannot be read as an image; file: .*; found: cannot identify"):
            read(path)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".bmp", ".tif"])
def test_a_file_cut_short_is_never_read_as_a_whole_one(tmp_path: Path, ending: str) -> None:
    path = save(tmp_path / f"a{ending}", noise(30, 40))
    whole = path.read_bytes()
    for length in (*range(0, 64, 7), *range(64, len(whole) - 16, 97)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"cannot be read|must hold one image|axes of the TIFF"):
            read_image([path], ["image"])


def test_sixteen_bit_colour_cut_short(tmp_path: Path) -> None:
    path = deep_png(tmp_path / "a.png", noise(30, 40, 3, top=65536))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match="cannot be read as an image"):
        read_image([path], ["red", "green", "blue"])


def test_a_whole_slide_is_no_attack(tmp_path: Path) -> None:
    """Pillow refuses pictures from 179 million pixels on unless it is told not to."""
    path = deep_png(tmp_path / "a.png", noise(2, 2, 3))
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 40000, 30000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    assert read_grid(path).shape == (1, 30000, 40000)


@pytest.mark.real
def test_nuclei(real_data: Callable[[str], Path]) -> None:
    """120 images and label maps in about a second; the numbers are scikit-image's."""
    root = real_data("nuclei")
    files = sorted((root / "images").glob("*.png"))
    before = time.perf_counter()
    images = [read_image([f], RGB) for f in files]
    label_maps = [read_label_map(root / "labels" / f.name, LABELS) for f in files]
    assert time.perf_counter() - before < HANGS
    coloured = 0
    for file, image, label_map in zip(files, images, label_maps):
        expected = skimage.io.imread(file)
        coloured += expected.ndim == 3
        expected = np.atleast_3d(expected) + np.zeros(3, expected.dtype)
        np.testing.assert_array_equal(np.moveaxis(image.data[:, 0], 0, -1), expected)
        np.testing.assert_array_equal(label_map.data[0], skimage.io.imread(root / "labels" / file.name))
        assert image.grid == label_map.grid
    assert (len(images), coloured) == (120, 16)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["grey.jpg", "colour.jpg", "grey.png", "colour.png", "deep.png"])
def test_a_picture_lies_as_viewers_show_it(tmp_path: Path, name: str, orientation: int) -> None:
    """Its EXIF orientation turns it, as it was turned when its mask was drawn."""
    path, rng = tmp_path / name, np.random.default_rng(0)
    shape = (6, 9, 3) if name.startswith("colour") else (6, 9)
    pixels = (
        rng.integers(0, 60000, shape).astype(np.uint16) if name == "deep.png" else rng.integers(0, 255, shape).astype(np.uint8)
    )
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    Pillow.fromarray(pixels).save(path, exif=exif)
    with Pillow.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    channels = RGB if name.startswith("colour") else ("x",)
    read = read_image([path], channels)
    np.testing.assert_array_equal(np.moveaxis(read.data[:, 0], 0, -1).reshape(expected.shape), expected)
    assert read_header(path).grid.shape == read.grid.shape == (1, *expected.shape[:2])
    with_mask = tmp_path / "mask.png"
    write_label_map(with_mask, LabelMap(np.ones(read.grid.shape, np.uint8), read.grid, LABELS), like=path)
    assert read_grid(with_mask) == read.grid


def test_deep_colour_is_turned_without_loss(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    pixels = np.random.default_rng(0).integers(0, 65535, (4, 5, 3)).astype(np.uint16)
    sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(path))
    content = path.read_bytes()
    tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    chunk = struct.pack(">I", len(tiff)) + b"eXIf" + tiff + struct.pack(">I", zlib.crc32(b"eXIf" + tiff))
    path.write_bytes(content[:33] + chunk + content[33:])  # behind the header
    read = read_image([path], ("r", "g", "b"))
    np.testing.assert_array_equal(np.moveaxis(read.data[:, 0], 0, -1), np.rot90(pixels, -1))
