"""Which files are images, by their endings, and what a header tells of one."""

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

# What label maps are written as where the image's own format will not do: a header with a second file beside it cannot be
# written atomically, and JPG changes values.
_LABEL_ENDINGS = {".mhd": ".mha", ".nhdr": ".nrrd", ".jpg": ".png", ".jpeg": ".png"}


@dataclass(frozen=True)
class Header:
    """What is known of an image before its voxels are read.

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
    """The image ending of a file name ('.nii.gz', …), or None for any other file and for hidden files."""
    name = path.name.lower()
    return None if name.startswith(".") else next((e for e in IMAGE_ENDINGS if name.endswith(e)), None)


def has_geometry(path: Path) -> bool:
    """Whether the format says where voxels lie in the world; natural images and arrays do not."""
    ending = image_ending(path)
    return ending is None or ending in VOLUME_ENDINGS


def label_ending(image: Path) -> str:
    """The ending of label maps of an image: its own, or that of the nearest format that can hold them."""
    ending = image_ending(image) or ".nii.gz"
    return _LABEL_ENDINGS.get(ending, ending)


def probabilities_ending(image: Path) -> str:
    """The ending of class probabilities of an image: that of label maps, or .npy where those hold whole numbers only."""
    return label_ending(image) if has_geometry(image) else ARRAY_ENDING


def plain_grid(shape: Sequence[int]) -> Grid:
    """The grid of a file that knows no spacing: (z, y, x) voxels of 1 mm, first row and column at the origin.

    It is canonical: preparing such an image neither flips nor turns it.
    """
    return Grid.from_spacing(shape, (1.0, 1.0, 1.0))


@contextlib.contextmanager
def read_errors(path: Path, fix: str = "copy or export it again") -> Iterator[None]:
    """Turns whatever a library raises over a missing or damaged file into one line; running out of memory stays what it is.

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
