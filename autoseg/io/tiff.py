"""TIFF through tifffile: pages are slices, samples and named channel axes are channels.

Resolution tags are not read: they hold printing sizes as often as pixel sizes. LZW and other compressions that need more than
Python's own libraries are unpacked by SimpleITK or Pillow.
"""

from __future__ import annotations

import logging
import os
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import SimpleITK as sitk
import tifffile
from PIL import Image as Pillow

from autoseg.errors import DataError
from autoseg.io.colour import without_alpha
from autoseg.io.formats import Header, ImageFormat, on_plain_grid, plain_grid, read_errors
from autoseg.io.stored_voxels import check_room
from autoseg.system.files import atomic_path

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it describes unusual tags on stderr; what matters is checked here

_FIX = "export it again, uncompressed or with deflate"
_ALPHA = (1, 2)  # ExtraSamples: associated and unassociated
_CHANNELS, _SLICES = "CS", "ZQIT"
_WHITE_IS_0, _RGB, _PALETTE = 0, 2, 3  # PhotometricInterpretation


def read_header(path: Path) -> Header:
    """Read grid, channels and depth of a TIFF, but no voxel.

    Raises:
        DataError: no such file, not a TIFF, several images of different size, white as 0, or axes
            that are not those of an image or stack.
    """
    with read_errors(path, _FIX), tifffile.TiffFile(path) as tiff:
        series = _series(tiff, path)
        channels, slices = _axes(series, path)
        page = series.keyframe
        palette = page.photometric == _PALETTE
        n = 3 if palette else (1 if channels is None else series.shape[channels]) - (1 if _has_alpha(series) else 0)
        rows = series.axes.index("Y")
        shape = (1 if slices is None else series.shape[slices], *series.shape[rows : rows + 2])
        colour = palette or (page.photometric == _RGB and n == 3)
        return Header(plain_grid(shape), n, colour, page.dtype in (np.uint8, np.bool_))


def read_pixels(path: Path, as_labels: bool) -> np.ndarray:
    """Read (C, Z, Y, X) in the file's own type, without transparency.

    Args:
        as_labels: read a palette's stored numbers, not its colours.

    Raises:
        DataError: see `read_header`; truncated, of an unknown compression, or partly transparent.
    """
    with read_errors(path, _FIX), tifffile.TiffFile(path) as tiff:
        series = _series(tiff, path)
        channels, slices = _axes(series, path)
        check_room(path, series.size, series.dtype.itemsize)
        data = _unpacked(series, path)
        if series.keyframe.photometric == _PALETTE and not as_labels:
            colours = (np.asarray(series.keyframe.colormap) // 257).astype(np.uint8)  # stored as 16 bit
            data, channels = np.moveaxis(colours[:, data], 0, -1), data.ndim
        alpha, rows = _has_alpha(series), series.axes.index("Y")
    order = [*([] if channels is None else [channels]), *([] if slices is None else [slices]), rows, rows + 1]
    rest = [axis for axis in range(data.ndim) if axis not in order]  # of length 1
    n_channels, n_slices = (1 if axis is None else data.shape[axis] for axis in (channels, slices))
    data = data.transpose(*rest, *order).reshape(n_channels, n_slices, *data.shape[rows : rows + 2])
    data = data.astype(np.uint8) if data.dtype == bool else np.ascontiguousarray(data)
    return without_alpha(data, path) if alpha else data


def write_labels(path: Path, values: np.ndarray) -> None:
    """Write (Z, Y, X) whole numbers, one page per slice, atomically."""
    with atomic_path(path) as temporary:
        tifffile.imwrite(temporary, values, photometric="minisblack", compression="zlib", metadata={"axes": "ZYX"})


def write_pixels(path: Path, data: np.ndarray) -> None:
    """Write (C, Z, Y, X) of any type, one page per slice of each channel, atomically."""
    with atomic_path(path) as temporary:
        tifffile.imwrite(temporary, data, photometric="minisblack", compression="zlib", metadata={"axes": "CZYX"})


def _series(tiff: tifffile.TiffFile, path: Path) -> tifffile.TiffPageSeries:
    """The one image or stack of a file."""
    _check_pages(path)
    series = tiff.series
    if len(series) != 1:
        raise DataError(
            "a TIFF must hold one image or one stack",
            file=path,
            found=f"{len(series)} images of shapes " + ", ".join(str(s.shape) for s in series[:4]),
            fix="save each image to a file of its own",
        )
    if series[0].keyframe.photometric == _WHITE_IS_0:
        raise DataError(
            "white is 0 in the TIFF: whether its numbers are meant as stored or inverted is not known",
            file=path,
            found="photometric interpretation MINISWHITE (WhiteIsZero)",
            allowed="MINISBLACK (BlackIsZero), colour, or a palette",
            fix="save it again with black as 0, and check that the background of a mask is 0 then",
        )
    return series[0]


def _check_pages(path: Path) -> None:
    """Check that no page lies behind the end of the file: tifffile takes those before it for the whole stack.

    Pages are a chain in which each names the place of the next (TIFF 6.0, section 2; BigTIFF counts with 8 bytes).

    Raises:
        DataError: the file is truncated.
    """
    size, visited = path.stat().st_size, set[int]()
    with open(path, "rb") as handle:
        head = handle.read(16)
        order = ">" if head[:2] == b"MM" else "<"
        big = len(head) == 16 and struct.unpack(f"{order}H", head[2:4])[0] == 43
        count, place, tag_bytes = (f"{order}Q", f"{order}Q", 20) if big else (f"{order}H", f"{order}I", 12)
        start = struct.unpack_from(place, head, 8 if big else 4)[0]
        while start and start not in visited:
            visited.add(start)
            handle.seek(start)
            n_tags = _number(handle, count)
            if n_tags is not None:
                handle.seek(n_tags * tag_bytes, os.SEEK_CUR)
            following = None if n_tags is None else _number(handle, place)
            if following is None:
                raise DataError(
                    "the TIFF is truncated",
                    file=path,
                    found=f"page {len(visited)} would lie at byte {start} of {size}",
                    fix="copy or download it again",
                )
            start = following


def _number(handle: BinaryIO, form: str) -> int | None:
    """The next number of a file; None behind its end."""
    content = handle.read(struct.calcsize(form))
    return int(struct.unpack(form, content)[0]) if len(content) == struct.calcsize(form) else None


def _axes(series: tifffile.TiffPageSeries, path: Path) -> tuple[int | None, int | None]:
    """Numbers of the series' axes of channels and of slices, None where there is no such axis."""
    long = [(i, a) for i, (a, n) in enumerate(zip(series.axes, series.shape)) if n > 1 and a not in "YX"]
    channels = [i for i, a in long if a in _CHANNELS]
    slices = [i for i, a in long if a in _SLICES]
    if "YX" not in series.axes or len(channels) > 1 or len(slices) > 1 or len(channels) + len(slices) < len(long):
        raise DataError(
            "the axes of the TIFF are not those of an image or a stack",
            file=path,
            found=f"{series.axes} of shape {series.shape}",
            allowed="rows and columns, with one axis of slices and one of channels at most",
            fix="save one time point or position to a file",
        )
    return next(iter(channels), None), next(iter(slices), None)


def _has_alpha(series: tifffile.TiffPageSeries) -> bool:
    """Tell if the last sample is opacity."""
    page = series.keyframe
    return "S" in series.axes and bool(page.extrasamples) and page.extrasamples[-1] in _ALPHA


def _unpacked(series: tifffile.TiffPageSeries, path: Path) -> np.ndarray:
    """Decode the stored numbers, if need be with SimpleITK or Pillow."""
    try:
        return np.asarray(series.asarray())
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
    if series.keyframe.photometric == _PALETTE:  # SimpleITK would hand out colours
        with Pillow.open(path) as image:
            data = np.asarray(image)
    else:
        data = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    if data.size != np.prod(series.shape):
        raise ValueError(f"compression {series.keyframe.compression!r} with this kind of pixels")
    return data.reshape(series.shape)


FORMAT = ImageFormat(
    endings=(".tif", ".tiff"),
    has_geometry=False,
    read_header=read_header,
    read=lambda path, as_labels: on_plain_grid(read_pixels(path, as_labels), path),
    write_image=lambda path, image: write_pixels(path, image.data),
    write_labels=lambda path, values, grid, like: write_labels(path, values),
)
