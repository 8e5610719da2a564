"""Images that are in memory already: SimpleITK images and numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk

from autoseg.errors import DataError, UsageError
from autoseg.imaging.geometry import Grid
from autoseg.imaging.image import Image
from autoseg.io import itk
from autoseg.io.colour import is_rgb, match_channels, names_in_words
from autoseg.io.formats import as_float32, not_finite_error, plain_grid
from autoseg.system.progress import log

SHAPES = "(C, Z, Y, X); the first axis may be left out for one channel; (Y, X) or (C, Y, X) for a picture"


def image_from_memory(
    data: Any, channels: Sequence[str], spacing: Sequence[float] | None = None, *, in_pixels: bool = False
) -> Image:
    """An image from what other libraries hold.

    Args:
        data: an `Image`, a SimpleITK image, or a numpy array of shape (C, Z, Y, X), (Z, Y, X) for one
            channel, (C, Y, X) for a picture of several channels, or (Y, X).
        channels: names of the channels that the image must have.
        spacing: mm along (z, y, x), or (y, x) of a picture; of arrays only. An array has no
            orientation: its axes count as LPS, index 0 at right, anterior and inferior. A picture
            without spacing has pixels of 1 mm.
        in_pixels: the model has learnt from files without a spacing, so that of a picture counts as 1,
            as it does in files, with a note where it is another one.

    The channels of an `Image` are put into the order of `channels` by their names. Grey is taken for
    red, green and blue, as from a file.

    Raises:
        UsageError: another type, another shape, or a spacing that is missing, superfluous or not positive.
        DataError: another number of channels; colour where the model has one channel; NaN or infinity;
            other names of channels.
    """
    image = _as_image(data, tuple(channels), spacing)
    if not in_pixels or image.grid.shape[0] > 1:
        return image
    if image.grid.spacing[1:] != (1.0, 1.0):
        log.warning(
            "note: the spacing of the image, (%s), counts as 1: the model has learnt from pictures without spacing, in pixels",
            ", ".join(f"{step:.4g}" for step in image.grid.spacing[1:]),
        )
    return Image(image.data, plain_grid(image.grid.shape), image.channels)


def _as_image(data: Any, channels: tuple[str, ...], spacing: Sequence[float] | None) -> Image:
    if isinstance(data, np.ndarray):
        return _from_array(data, channels, spacing)
    if spacing is not None:
        raise UsageError(
            "spacing is for numpy arrays, other images have their own", found=type(data).__name__, fix="leave out spacing"
        )
    if isinstance(data, Image):
        values, grid = _in_order(data, channels), data.grid
    elif isinstance(data, sitk.Image):
        values, grid = itk.array_and_grid(data, "the SimpleITK image")
    else:
        raise UsageError(
            "an image must be a path, a list of paths (one a channel), an autoseg.Image, a SimpleITK image or a numpy array",
            found=type(data).__name__,
        )
    return _with_channels(values, grid, channels)


def _in_order(image: Image, channels: tuple[str, ...]) -> np.ndarray:
    """The (C, Z, Y, X) array of an image, its channels in the order of `channels`; other numbers of channels stay as they are.

    Raises:
        DataError: other names of channels, or NaN or infinity.
    """
    if image.data.dtype.kind == "f" and (n_not_finite := int((~np.isfinite(image.data)).sum())):
        raise not_finite_error("the image in memory", n_not_finite)
    names = image.channels
    if len(names) != len(channels) or names == channels or (is_rgb(names) and is_rgb(channels)):
        return image.data
    if sorted(names) != sorted(channels) or len(set(names)) < len(names):
        raise DataError(
            "the image has other channels than the model",
            found=names_in_words(names),
            allowed=f"{names_in_words(channels)}, in any order",
        )
    return image.data[[names.index(name) for name in channels]]


def _from_array(data: np.ndarray, channels: tuple[str, ...], spacing: Sequence[float] | None) -> Image:
    n = len(channels)
    is_picture = data.ndim == 2 or (data.ndim == 3 and n > 1 and len(data) == n)
    lacks_channels = data.ndim == 3 and n > 1 and not is_picture
    channels_last = data.ndim in (3, 4) and n > 1 and data.shape[-1] == n != len(data)
    if data.ndim not in (2, 3, 4) or data.size == 0 or data.dtype.kind not in "buif" or lacks_channels or channels_last:
        raise UsageError(
            "the array is no image of this model",
            found=f"shape {data.shape}, type {data.dtype}",
            allowed=f"numbers of shape {SHAPES}; C is {n} ({names_in_words(channels)})",
            fix=f"array.transpose{(data.ndim - 1, *range(data.ndim - 1))}, which brings the channels first"
            if channels_last
            else None,
        )
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        raise DataError("the array holds NaN or infinity", allowed="finite numbers", fix="replace them with the background value")
    axes = 2 if is_picture else 3
    if spacing is None and not is_picture:
        raise UsageError("an array does not say how large its voxels are", fix="spacing=(z, y, x), in mm")
    try:
        steps = tuple(float(step) for step in spacing) if spacing is not None else (1.0, 1.0)
    except (TypeError, ValueError):  # one number for all axes, or words
        raise UsageError(
            "spacing is no list of numbers", found=repr(spacing), allowed=f"{axes} positive numbers, in mm"
        ) from None
    if len(steps) != axes or not all(0 < step < np.inf for step in steps):
        raise UsageError("spacing does not fit the array", found=steps, allowed=f"{axes} positive numbers, in mm")
    if is_picture:
        data, steps = data.reshape(-1, 1, *data.shape[-2:]), (1.0, *steps)
    data = data.reshape(-1, *data.shape[-3:])
    return _with_channels(data, Grid.from_spacing(data.shape[1:], steps), channels)


def _with_channels(data: np.ndarray, grid: Grid, channels: tuple[str, ...]) -> Image:
    data = match_channels(data, channels, "the image in memory")
    if len(data) != len(channels):
        raise DataError(
            "the image has another number of channels than the model",
            found=len(data),
            allowed=f"{len(channels)} ({names_in_words(channels)})",
        )
    return Image(as_float32(data, "the image in memory"), grid, channels)
