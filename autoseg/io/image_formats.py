"""The formats of images, and what the ending of a file name tells: a new format is a file with a FORMAT, and a line here."""

from __future__ import annotations

from pathlib import Path

from autoseg.io import arrays, itk, pictures, tiff
from autoseg.io.formats import ImageFormat

FORMATS: tuple[ImageFormat, ...] = (
    itk.FORMAT,
    pictures.FORMAT,
    tiff.FORMAT,
    arrays.FORMAT,
)
IMAGE_ENDINGS = tuple(ending for image_format in FORMATS for ending in image_format.endings)


def image_ending(path: Path) -> str | None:
    """Image ending of a file name ('.nii.gz', …); None for any other file and for hidden files."""
    name = path.name.lower()
    return None if name.startswith(".") else next((e for e in IMAGE_ENDINGS if name.endswith(e)), None)


def format_of(path: Path) -> ImageFormat:
    """Format of a file by its ending; that of volumes for any other file, which they then say."""
    ending = image_ending(path)
    return next((f for f in FORMATS if ending in f.endings), itk.FORMAT)


def has_geometry(path: Path) -> bool:
    """Tell if the format stores where voxels lie in the world; natural images and arrays do not."""
    return format_of(path).has_geometry


def data_files(path: Path) -> tuple[Path, ...]:
    """The files beside an image that hold its voxels, as of .mhd and .nhdr; none where it holds them itself."""
    return itk.data_files(path)


def geometry_remarks(path: Path) -> tuple[str, ...]:
    """Sentences on what the header of an existing image says of its geometry twice and differently, or not at all."""
    return itk.geometry_remarks(path)


def label_ending(image: Path) -> str:
    """Ending of an image's label maps: its own, or that of the nearest format that can hold them."""
    ending = image_ending(image) or ".nii.gz"
    return format_of(image).label_endings.get(ending, ending)


def probabilities_ending(image: Path) -> str:
    """Ending of an image's class probabilities: that of label maps, or .npy where these hold integers only."""
    return label_ending(image) if has_geometry(image) else arrays.ENDING
