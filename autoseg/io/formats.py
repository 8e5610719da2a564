"""File endings of images, and the facts of an image's header."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.errors import AutosegError, DataError
from autoseg.imaging.geometry import Grid

VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp")
TIFF_ENDINGS = (".tif", ".tiff")
ARRAY_ENDING = ".npy"
IMAGE_ENDINGS = (*VOLUME_ENDINGS, *PICTURE_ENDINGS, *TIFF_ENDINGS, ARRAY_ENDING)

# Format of label maps where the image's own will not do: a header with a second file beside it cannot
# be written atomically, and JPG changes values.
_LABEL_ENDINGS = {".mhd": ".mha", ".nhdr": ".nrrd", ".jpg": ".png", ".jpeg": ".png"}


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


def image_ending(path: Path) -> str | None:
    """Image ending of a file name ('.nii.gz', …); None for any other file and for hidden files."""
    name = path.name.lower()
    return None if name.startswith(".") else next((e for e in IMAGE_ENDINGS if name.endswith(e)), None)


def has_geometry(path: Path) -> bool:
    """Tell if the format stores where voxels lie in the world; natural images and arrays do not."""
    ending = image_ending(path)
    return ending is None or ending in VOLUME_ENDINGS


def label_ending(image: Path) -> str:
    """Ending of an image's label maps: its own, or that of the nearest format that can hold them."""
    ending = image_ending(image) or ".nii.gz"
    return _LABEL_ENDINGS.get(ending, ending)


def probabilities_ending(image: Path) -> str:
    """Ending of an image's class probabilities: that of label maps, or .npy where these hold integers only."""
    return label_ending(image) if has_geometry(image) else ARRAY_ENDING


def plain_grid(shape: Sequence[int]) -> Grid:
    """Grid of a file without spacing: (z, y, x) voxels of 1 mm, first row and column at the origin.

    It is canonical: preprocessing such an image neither flips nor turns it.
    """
    return Grid.from_spacing(shape, (1.0, 1.0, 1.0))


@contextlib.contextmanager
def read_errors(path: Path, fix: str = "copy or export it again") -> Iterator[None]:
    """Turn any error of a library over a missing or damaged file into a `DataError` of one line.

    Running out of memory passes through.

    Raises:
        DataError: no such file, or not an image.
    """
    if not path.is_file():
        raise DataError("no such file", file=path)
    try:
        yield
    except (AutosegError, MemoryError):
        raise
    except Exception as error:
        reason = str(error).replace(str(path), path.name).strip().splitlines()
        found = reason[-1] if reason else type(error).__name__
        raise DataError("the file cannot be read as an image", file=path, found=found, fix=fix) from error
