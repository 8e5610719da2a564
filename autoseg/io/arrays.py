"""Plain numpy arrays: .npy files of (Y, X), (Z, Y, X) or (C, Z, Y, X)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from autoseg.errors import DataError
from autoseg.io.formats import Header, ImageFormat, on_plain_grid, plain_grid, read_errors
from autoseg.io.stored_voxels import check_room
from autoseg.system.files import atomic_path, write_array

ENDING = ".npy"


def read_header(path: Path) -> Header:
    """Read grid, channels and depth of an array, but no voxel.

    Raises:
        DataError: no such file, not an array of numbers, or not two to four axes.
    """
    array = _open(path)
    channels, *shape = _with_four_axes(array).shape
    return Header(plain_grid(shape), channels, False, array.dtype == np.uint8)


def read_pixels(path: Path) -> np.ndarray:
    """Read (C, Z, Y, X) in the file's own type.

    Raises:
        DataError: see `read_header`.
    """
    stored = _open(path)
    check_room(path, stored.size, stored.itemsize)
    array = np.array(_with_four_axes(stored), order="C")
    return array.astype(np.uint8) if array.dtype == bool else array


def write_labels(path: Path, values: np.ndarray, like: Path | None) -> None:
    """Write (Z, Y, X) atomically, without the first axis where the array `like` has none."""
    flat = like is not None and len(values) == 1 and like.suffix.lower() == ENDING and like.is_file() and _open(like).ndim == 2
    write_pixels(path, values[0] if flat else values)


def write_pixels(path: Path, data: np.ndarray) -> None:
    """Write an array as it is, atomically."""
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        write_array(handle, data)


def _open(path: Path) -> np.ndarray:
    """Open an array without reading its content."""
    with read_errors(path, "write it with numpy.save, numbers only"):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype.kind not in "buif" or array.ndim not in (2, 3, 4) or array.size == 0:
        raise DataError(
            "an array must hold an image",
            file=path,
            found=f"shape {array.shape}, type {array.dtype}",
            allowed="numbers with axes (y, x), (z, y, x) or (channel, z, y, x)",
        )
    return array


def _with_four_axes(array: np.ndarray) -> np.ndarray:
    return array.reshape((1,) * (4 - array.ndim) + array.shape)


FORMAT = ImageFormat(
    endings=(ENDING,),
    has_geometry=False,
    read_header=read_header,
    read=lambda path, as_labels: on_plain_grid(read_pixels(path), path),
    write_image=lambda path, image: write_pixels(path, image.data),
    write_labels=lambda path, values, grid, like: write_labels(path, values, like),
    write_probabilities=lambda path, data, like: write_pixels(path, data),
)
