from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autoseg.errors import DataError
from autoseg.imaging.geometry import Grid
from autoseg.imaging.image import Image, LabelMap
from autoseg.imaging.labels import LabelSet
from autoseg.io import read_grid, read_header, read_image, read_label_map, write_image, write_label_map

LABELS = LabelSet(("a", "b"), (3, 300))


def noise(*shape: int, top: int = 256) -> np.ndarray:
    return np.random.default_rng(0).integers(0, top, shape).astype(np.uint8)


@pytest.mark.parametrize("kind", ["u1", ">u2", "i8", "f2", "f8", "?"])
@pytest.mark.parametrize(("shape", "full"), [((5, 7), (1, 1, 5, 7)), ((3, 5, 7), (1, 3, 5, 7)), ((2, 3, 5, 7), (2, 3, 5, 7))])
def test_two_to_four_axes(tmp_path: Path, kind: str, shape: tuple[int, ...], full: tuple[int, ...]) -> None:
    array = noise(*shape).astype(kind)
    path = tmp_path / "a.npy"
    np.save(path, np.asfortranarray(array))
    image = read_image([path], [f"c{i}" for i in range(full[0])])
    np.testing.assert_array_equal(image.data, array.reshape(full).astype(np.float32))
    assert image.data.flags.c_contiguous
    assert image.grid == read_grid(path) == Grid.from_spacing(full[1:], (1, 1, 1))
    header = read_header(path)
    assert (header.channels, header.colour, header.eight_bit) == (full[0], False, kind == "u1")


@pytest.mark.parametrize("shape", [(5, 7), (1, 5, 7), (3, 5, 7)])
def test_label_maps_have_the_axes_of_their_image(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "a.npy", noise(*shape))
    indices = noise(*shape, top=3).reshape(-1, 5, 7)
    label_map = LabelMap(indices, read_grid(tmp_path / "a.npy"), LABELS)
    write_label_map(tmp_path / "new" / "l.npy", label_map, like=tmp_path / "a.npy")
    stored = np.load(tmp_path / "new" / "l.npy")
    np.testing.assert_array_equal(stored, np.array([0, 3, 300], np.uint16)[indices].reshape(shape))
    assert (stored.shape, stored.dtype) == (shape, np.uint16)
    np.testing.assert_array_equal(read_label_map(tmp_path / "new" / "l.npy", LABELS).data, indices)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["l.npy"]


@pytest.mark.parametrize("n_channels", [1, 3])
def test_image_round_trip(tmp_path: Path, n_channels: int) -> None:
    data = np.random.default_rng(0).normal(size=(n_channels, 2, 5, 7)).astype(np.float32)
    names = tuple(f"c{i}" for i in range(n_channels))
    write_image(tmp_path / "a.npy", Image(data, Grid.from_spacing((2, 5, 7), (1, 1, 1)), names))
    np.testing.assert_array_equal(read_image([tmp_path / "a.npy"], names).data, data)


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros(5), r"shape \(5,\)"),
        (np.zeros((1, 1, 1, 2, 2)), r"shape \(1, 1, 1, 2, 2\)"),
        (np.zeros((0, 5)), r"shape \(0, 5\)"),
        (np.zeros((2, 2), complex), "complex128"),
        (np.full((2, 2), "a"), "<U1"),
    ],
)
def test_arrays_that_are_no_image(tmp_path: Path, array: np.ndarray, found: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=rf"an array must hold an image; file: .*a\.npy; found: .*{found}.*; allowed: numbers"):
        read_header(tmp_path / "a.npy")


def test_invalid_arrays(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    with pytest.raises(DataError, match="no such file"):
        read_header(path)
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"cannot be read as an image; file: .*; fix: write it with numpy\.save, numbers only"):
        read_header(path)
    for content in (b"", b"no array", b"\x93NUMPY\x01\x00"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="cannot be read as an image"):
            read_image([path], ["image"])


def test_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, noise(50, 70))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match="cannot be read as an image"):
        read_image([path], ["image"])
