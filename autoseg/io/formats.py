"""A format of images: its endings, and how its files are read and written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from autoseg.errors import AutosegError, DataError
from autoseg.imaging.geometry import Grid
from autoseg.imaging.image import Image
from autoseg.system.progress import number_of


@dataclass(frozen=True)
class Header:
    """Facts of an image that are known before its voxels are read.

    Args:
        channels: colours count as channels, transparency does not.
        colour: red, green and blue.
        eight_bit: values from 0 to 255.
    """

    grid: Grid
    channels: int
    colour: bool
    eight_bit: bool


@dataclass(frozen=True)
class ImageFormat:
    """Functions that read and write files with certain endings; `io.image_formats` lists all formats.

    Args:
        endings: of file names, in lower case; the longer ones first.
        has_geometry: whether files store where voxels lie in the world; natural images and arrays do not.
        read_header: raises as `io.images.read_header` does.
        read: the (C, Z, Y, X) array of a file in its own type, as a label map or as an image, and its grid.
        write_image: writes an image as it is, atomically.
        write_labels: writes (Z, Y, X) uint8 or uint16 on a grid or, where there is one, with the header of the
            image's file.
        write_probabilities: writes (K, Z, Y, X) float32 with the header of the image's file; None where files
            hold integers only.
        label_endings: for endings that label maps cannot have, the one that they get.
    """

    endings: tuple[str, ...]
    has_geometry: bool
    read_header: Callable[[Path], Header]
    read: Callable[[Path, bool], tuple[np.ndarray, Grid]]
    write_image: Callable[[Path, Image], None]
    write_labels: Callable[[Path, np.ndarray, Grid, Path | None], None]
    write_probabilities: Callable[[Path, np.ndarray, Path], None] | None = None
    label_endings: Mapping[str, str] = field(default_factory=dict)


def plain_grid(shape: Sequence[int]) -> Grid:
    """Grid of a file without spacing: (z, y, x) voxels of 1 mm, first row and column at the origin.

    It is canonical: preprocessing such an image neither flips nor turns it.
    """
    return Grid.from_spacing(shape, (1.0, 1.0, 1.0))


def on_plain_grid(data: np.ndarray, path: Path) -> tuple[np.ndarray, Grid]:
    """The (C, Z, Y, X) array of a file without spacing, checked, and its grid.

    Raises:
        DataError: no plain numbers, or NaN or infinity among them.
    """
    if data.dtype.kind not in "uif":
        raise DataError("the file holds no plain numbers", file=path, found=data.dtype, allowed="whole numbers or fractions")
    if data.dtype.kind == "f" and (n_not_finite := int((~np.isfinite(data)).sum())):
        raise not_finite_error(path, n_not_finite)
    return data, plain_grid(data.shape[1:])


def as_float32(data: np.ndarray, source: Path | str) -> np.ndarray:
    """The array as C-contiguous float32; `source` names the image in messages.

    Raises:
        DataError: numbers that float32 cannot hold.
    """
    with np.errstate(over="ignore"):
        values = data.astype(np.float32, order="C", copy=False)
    if data.dtype.kind == "f" and data.dtype.itemsize > 4 and (n_too_large := int((~np.isfinite(values)).sum())):
        raise DataError(
            "the image holds numbers that are too large",
            file=source,
            found=number_of(n_too_large, "voxel"),
            allowed="up to 3.4e38, as 32-bit numbers are",
        )
    return values


def not_finite_error(path: Path | str, count: int) -> DataError:
    """Error for an image in which `count` voxels are NaN or infinite."""
    return DataError(
        "the file holds NaN or infinity",
        file=path,
        found=number_of(count, "voxel"),
        allowed="finite numbers",
        fix="replace them with the background value",
    )


@contextlib.contextmanager
def read_errors(path: Path, fix: str = "copy or export it again") -> Iterator[None]:
    """Turn any error of a library over a missing or damaged file into a `DataError` of one line.

    Running out of memory passes through.

    Raises:
        DataError: no such file, not an image, or a name that is not UTF-8, over which ITK would end the process.
    """
    if not path.is_file():
        raise DataError("no such file", file=path)
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        shown = str(path).encode(errors="backslashreplace").decode()
        raise DataError("the file's name is not UTF-8", file=shown, fix="rename it, or the folder that is named so") from error
    try:
        yield
    except (AutosegError, MemoryError):
        raise
    except Exception as error:
        reason = str(error).replace(str(path), path.name).strip().splitlines()
        cause = reason[-1] if reason else type(error).__name__
        raise DataError("the file cannot be read as an image", file=path, found=cause, fix=fix) from error
