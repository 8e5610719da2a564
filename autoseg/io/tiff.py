"""TIFF through tifffile: pages are slices, samples and named channel axes are channels.

Resolution tags are not read: they hold printing sizes as often as pixel sizes. LZW and other compressions that need more than
Python's own libraries are unpacked by SimpleITK.
"""

from __future__ import annotations

import logging
import struct
import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import tifffile

from autoseg.errors import DataError
from autoseg.files import atomic_path
from autoseg.io.colour import without_alpha
from autoseg.io.formats import Header, plain_grid, unreadable

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it describes odd tags on stderr; what matters is checked here

_BROKEN = (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError, struct.error, zlib.error)
_ALPHA = (1, 2)  # ExtraSamples: associated and unassociated
_CHANNELS, _SLICES = "CS", "ZQIT"
_RGB, _PALETTE = 2, 3  # PhotometricInterpretation


def read_header(path: Path) -> Header:
    """
    Raises:
        DataError: no such file, not a TIFF, several images of different size, or axes without a meaning here.
    """
    with _open(path) as tiff:
        series = _series(tiff, path)
        channels, slices = _axes(series, path)
        page = series.keyframe
        palette = page.photometric == _PALETTE
        n = 3 if palette else (1 if channels is None else series.shape[channels]) - (1 if _has_alpha(series) else 0)
        y, x = (series.shape[series.axes.index(a)] for a in "YX")
        shape = (1 if slices is None else series.shape[slices], y, x)
        colour = palette or (page.photometric == _RGB and n == 3)
        return Header(plain_grid(shape), n, colour, page.dtype in (np.uint8, np.bool_))


def read_pixels(path: Path, as_labels: bool) -> np.ndarray:
    """(C, Z, Y, X) in the file's own type, without transparency.

    Args:
        as_labels: a palette's stored numbers, not its colours.

    Raises:
        DataError: see `read_header`; cut short, packed in a way that cannot be undone, or partly transparent.
    """
    with _open(path) as tiff:
        series = _series(tiff, path)
        channels, slices = _axes(series, path)
        try:
            data = _unpacked(series, path)
            if series.keyframe.photometric == _PALETTE and not as_labels:
                colours = (np.asarray(series.keyframe.colormap) // 257).astype(np.uint8)  # stored as 16 bit
                data, channels = np.moveaxis(colours[:, data], 0, -1), data.ndim
        except (*_BROKEN, RuntimeError) as error:
            raise unreadable(path, error, "export it again, uncompressed or with deflate") from error
        alpha = _has_alpha(series)
        rows = series.axes.index("Y")
    order = [*([] if channels is None else [channels]), *([] if slices is None else [slices]), rows, rows + 1]
    rest = [axis for axis in range(data.ndim) if axis not in order]  # of length 1
    data = data.transpose(*rest, *order)
    shape = (1 if channels is None else data.shape[len(rest)], 1 if slices is None else data.shape[-3], *data.shape[-2:])
    data = np.ascontiguousarray(data).reshape(shape)
    data = data.astype(np.uint8) if data.dtype == bool else data
    return without_alpha(data, path) if alpha else data


def write_labels(path: Path, values: np.ndarray) -> None:
    """Writes (Z, Y, X) whole numbers, a page a slice, atomically."""
    with atomic_path(path) as temporary:
        tifffile.imwrite(temporary, values, photometric="minisblack", compression="zlib", metadata={"axes": "ZYX"})


def write_pixels(path: Path, data: np.ndarray) -> None:
    """Writes (C, Z, Y, X) of any type, a page for each slice of each channel, atomically."""
    with atomic_path(path) as temporary:
        tifffile.imwrite(temporary, data, photometric="minisblack", compression="zlib", metadata={"axes": "CZYX"})


def _open(path: Path) -> tifffile.TiffFile:
    if not path.is_file():
        raise DataError("no such file", file=path)
    try:
        return tifffile.TiffFile(path)
    except _BROKEN as error:
        raise unreadable(path, error, "export it again, uncompressed or with deflate") from error


def _series(tiff: tifffile.TiffFile, path: Path) -> tifffile.TiffPageSeries:
    try:
        found = tiff.series
    except _BROKEN as error:
        raise unreadable(path, error, "export it again, uncompressed or with deflate") from error
    if len(found) != 1:
        raise DataError(
            "a TIFF must hold one image or one stack",
            file=path,
            found=f"{len(found)} images of shapes " + ", ".join(str(s.shape) for s in found[:4]),
            fix="save each image to a file of its own",
        )
    return found[0]


def _axes(series: tifffile.TiffPageSeries, path: Path) -> tuple[int | None, int | None]:
    """Which axis of the series holds the channels and which the slices."""
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
    page = series.keyframe
    return "S" in series.axes and bool(page.extrasamples) and page.extrasamples[-1] in _ALPHA


def _unpacked(series: tifffile.TiffPageSeries, path: Path) -> np.ndarray:
    try:
        return np.asarray(series.asarray())
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
    data = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    if data.size != np.prod(series.shape):
        raise ValueError(f"compression {series.keyframe.compression!r} with this kind of pixels")
    return data.reshape(series.shape)
