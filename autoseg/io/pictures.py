"""PNG, JPG and BMP through Pillow; 16-bit colour, which Pillow would cut to 8 bit, through SimpleITK.

A picture lies as viewers show it, turned by its EXIF orientation: so it was looked at when its mask was drawn.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import ExifTags
from PIL import Image as Pillow

from autoseg.errors import DataError
from autoseg.imaging.geometry import Grid
from autoseg.imaging.image import Image
from autoseg.io.colour import without_alpha
from autoseg.io.formats import Header, ImageFormat, on_plain_grid, plain_grid, read_errors
from autoseg.io.stored_voxels import check_room
from autoseg.system.files import atomic_path

Pillow.MAX_IMAGE_PIXELS = None  # a whole slide is no attack; an image that does not fit into memory is refused below

_GREY = ("1", "L", "I;16", "I;16B", "I", "F")
_LOSSY = (".jpg", ".jpeg")
_PNG = b"\x89PNG\r\n\x1a\n"


def read_header(path: Path) -> Header:
    """Read grid, channels and depth of a picture, but no voxel.

    Raises:
        DataError: no such file, or not an image.
    """
    with read_errors(path), Pillow.open(path) as image:
        grey, (width, height) = image.mode in (*_GREY, "LA"), _displayed_size(image)
        eight_bit = image.mode not in ("I;16", "I;16B", "I", "F") and not _is_deep_colour(path)
    return Header(plain_grid((1, height, width)), 1 if grey else 3, not grey, eight_bit)


def read_pixels(path: Path, as_labels: bool) -> np.ndarray:
    """Read (C, 1, Y, X) in the file's own type, without transparency.

    Args:
        as_labels: read the stored numbers. Else a palette's colours, and grey of 2 or 4 bit
            stretched to 0…255.

    Raises:
        DataError: no such file, not an image, truncated, or partly transparent.
    """
    with read_errors(path), Pillow.open(path) as image:
        check_room(path, image.width * image.height * len(image.getbands()), 2 if _is_deep_colour(path) else 1)
        turn = _turn(image)
        if _is_deep_colour(path):
            data = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
            alpha = data.shape[-1] == 4
        else:
            data, alpha = _decoded(image, as_labels)
        data = _turned(data, turn)
    if as_labels and data.ndim == 2:
        data = data // _grey_factor(path)
    planes = data[None, None] if data.ndim == 2 else np.moveaxis(data, -1, 0)[:, None]
    return without_alpha(planes, path) if alpha else planes


def write_labels(path: Path, values: np.ndarray) -> None:
    """Write (1, Y, X) uint8 or uint16 without loss, atomically.

    Raises:
        DataError: several slices, or values that the format cannot hold.
    """
    _write(path, values[0] if len(values) == 1 else None, values.dtype, f"{len(values)} slices")


def write_pixels(path: Path, data: np.ndarray) -> None:
    """Write one or three channels (C, 1, Y, X) of uint8, or one of uint16, without loss, atomically.

    Raises:
        DataError: anything else.
    """
    flat = data.shape[1] == 1 and (len(data) == 1 or (len(data) == 3 and data.dtype == np.uint8))
    picture = None if not flat else data[0, 0] if len(data) == 1 else np.moveaxis(data[:, 0], 0, -1)
    _write(path, picture, data.dtype, f"{len(data)} channels of {data.shape[1]} slices, {data.dtype}")


def _write(path: Path, picture: np.ndarray | None, dtype: np.dtype, found: str) -> None:
    ending = path.suffix.lower()
    most_bytes = {".png": 2, ".bmp": 1}.get(ending, 0)
    if picture is None or dtype.kind != "u" or dtype.itemsize > most_bytes:
        allowed = {".png": "one slice of 8-bit grey or colour, or of 16-bit grey", ".bmp": "one slice of 8-bit grey or colour"}
        raise DataError(
            f"{ending} cannot hold this without loss",
            file=path,
            found=f"{found}, {dtype}",
            allowed=allowed.get(ending, "nothing: JPG changes values"),
            fix="write .tif or .npy" if ending != ".bmp" else "write .png, .tif or .npy",
        )
    content = io.BytesIO()  # Pillow itself does not notice that the end of a BMP finds no room on the disk
    Pillow.fromarray(np.ascontiguousarray(picture)).save(content, format=ending[1:])
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def _decoded(image: Pillow.Image, as_labels: bool) -> tuple[np.ndarray, bool]:
    """Decode to a (Y, X) or (Y, X, C) array, and tell if its last channel is transparency."""
    if image.mode in _GREY or (as_labels and image.mode == "P"):
        if as_labels or "transparency" not in image.info or image.mode not in ("1", "L"):
            array = np.asarray(image)
            return array.astype(np.uint8) if array.dtype == bool else array, False
        return np.asarray(image.convert("LA")), True
    if image.mode in ("LA", "RGBA"):
        return np.asarray(image), True
    if "transparency" in image.info or image.mode == "PA":
        return np.asarray(image.convert("RGBA")), True
    return np.asarray(image.convert("RGB")), False


def _turn(image: Pillow.Image) -> int:
    """Orientation by which a viewer turns or flips the stored rows and columns (EXIF, 1 to 8); 1 leaves them."""
    if "exif" not in image.info:  # Pillow would decode a whole PNG to look for one behind its pixels
        return 1
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    return orientation if orientation in range(1, 9) else 1


def _turned(rows: np.ndarray, orientation: int) -> np.ndarray:
    """(Y, X) or (Y, X, C) as stored to rows and columns as displayed (EXIF 2.32, table 6)."""
    if orientation >= 5:
        rows = rows.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        rows = rows[:, ::-1]
    return rows[::-1] if orientation in (3, 4, 7, 8) else rows


def _displayed_size(image: Pillow.Image) -> tuple[int, int]:
    """Width and height as a viewer shows them."""
    return image.size[::-1] if _turn(image) >= 5 else image.size


def _png_depth(path: Path) -> tuple[int, int] | None:
    """Bits per sample and colour type of a PNG, from its first chunk; None for other files."""
    with open(path, "rb") as handle:
        start = handle.read(26)
    return (start[24], start[25]) if start[:8] == _PNG and len(start) == 26 else None


def _is_deep_colour(path: Path) -> bool:
    """Tell if a file is a PNG of 16-bit colour, with or without transparency.

    Raises:
        DataError: 16-bit grey with transparency, which neither library reads completely.
    """
    depth = _png_depth(path)
    if depth == (16, 4):
        raise DataError("16-bit grey with an alpha channel cannot be read", file=path, fix="save it without an alpha channel")
    return depth in ((16, 2), (16, 6))


def _grey_factor(path: Path) -> int:
    """Factor by which Pillow multiplies grey samples of 2 or 4 bit."""
    return {(2, 0): 85, (4, 0): 17}.get(_png_depth(path) or (8, 0), 1)


def _read(path: Path, as_labels: bool) -> tuple[np.ndarray, Grid]:
    if as_labels and path.suffix.lower() in _LOSSY:
        raise DataError(
            "a label map cannot be a JPG: its compression changes values along every border",
            file=path,
            fix="export the label maps again as PNG or TIFF; converting the JPG does not bring the values back",
        )
    return on_plain_grid(read_pixels(path, as_labels), path)


def _write_image(path: Path, image: Image) -> None:
    """Write whole numbers on one slice; anything else is refused."""
    deep = image.data.max(initial=0) > 255
    whole = image.data.clip(0, 65535).astype(np.uint16 if deep else np.uint8)
    write_pixels(path, whole if np.array_equal(whole, image.data) else image.data)


FORMAT = ImageFormat(
    endings=(".png", *_LOSSY, ".bmp"),
    has_geometry=False,
    read_header=read_header,
    read=_read,
    write_image=_write_image,
    write_labels=lambda path, values, grid, like: write_labels(path, values),
    label_endings=dict.fromkeys(_LOSSY, ".png"),
)
