"""Images and label maps of any format, as the rest of autoseg uses them.

Natural images (PNG, JPG, BMP, TIFF) and .npy arrays do not store where they lie: their voxels count
as 1 mm in size, so figures in mm are figures in pixels. A 2D image is a volume with one slice; the
pages of a TIFF are slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from autoseg.errors import DataError, GeometryError, LabelError, UsageError
from autoseg.imaging.alignment import in_order_of
from autoseg.imaging.geometry import Grid
from autoseg.imaging.image import Image, LabelMap
from autoseg.imaging.labels import LabelSet, whole_numbers
from autoseg.io.colour import is_grey, match_channels, names_in_words
from autoseg.io.formats import Header, as_float32, plain_grid, read_errors
from autoseg.io.image_formats import format_of, has_geometry
from autoseg.system.arguments import FilePath, as_path


def read_header(path: Path) -> Header:
    """Read grid, channels and depth of an image, but no voxel.

    Raises:
        DataError: no such file, or not an image.
        GeometryError: an invalid grid.
    """
    with read_errors(path):
        return format_of(path).read_header(path)


def read_grid(path: Path) -> Grid:
    """Read the grid from the header alone; raises as `read_header` does."""
    return read_header(path).grid


def read_image(paths: FilePath | Sequence[FilePath], channels: Sequence[str]) -> Image:
    """Read one file per channel, or one file that holds them all, as float32.

    Where the channels are named red, green and blue (or all "rgb_to_0_1"), a grey natural image
    stands for all three; where there is one channel, a natural image whose colours are equal is grey.

    Raises:
        DataError: unreadable file, NaN or infinity, another number of channels than `channels`
            names, colour where there is one channel, or partial transparency.
        GeometryError: the files of one case lie on different grids.
        UsageError: `channels` is no list.
    """
    if isinstance(channels, str):
        raise UsageError("channels must be a list of names", found=repr(channels), allowed=f"such as {[channels]}")
    several = paths if isinstance(paths, (list, tuple)) else [paths]
    files = [as_path(path, "paths", or_else="a list of them, one per channel") for path in several]
    parts: list[np.ndarray] = []
    grid: Grid | None = None
    for i, path in enumerate(files):
        data, file_grid = _read(path, as_labels=False)
        if grid is not None and (turned := in_order_of(data, file_grid, grid)) is not None:
            data, file_grid = turned, grid
        if grid is not None and (file_grid.shape != grid.shape or file_grid.corner_distance(grid) > min(grid.spacing)):
            raise GeometryError(
                "the channels of one case lie on different grids",
                file=path,
                found=f"shape {file_grid.shape}, spacing {_mm(file_grid)}" + _apart(file_grid, grid),
                allowed=f"shape {grid.shape}, spacing {_mm(grid)} as in {files[0].name}, at most a voxel apart",
                fix="resample the channels to one grid (for example in 3D Slicer: Resample Image)",
            )
        grid = grid or file_grid
        if not has_geometry(path):
            data = match_channels(data, channels if len(files) == 1 else channels[i : i + 1], path)
        parts.append(as_float32(data, path))
    assert grid is not None
    stack = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if len(stack) != len(channels):
        raise DataError(
            "the number of channels differs from dataset.json",
            file=files[0],
            found=len(stack),
            allowed=f"{len(channels)} ({names_in_words(channels)})",
        )
    return Image(stack, grid, tuple(channels))


def read_label_map(path: FilePath, labels: LabelSet) -> LabelMap:
    """Read a label file and turn its values into class indices.

    Raises:
        DataError: unreadable file, more than one channel, or JPG.
        LabelError: values that are not in `labels`.
    """
    path = as_path(path, "path")
    data, grid = _read_labels(path)
    try:
        return LabelMap(labels.encode(data), grid, labels)
    except LabelError as error:
        error.file = str(path)
        raise


def read_label_values(path: Path) -> np.ndarray:
    """Read the (Z, Y, X) values of a label file as they are stored, uint8 or uint16.

    Raises:
        DataError: unreadable file, more than one channel, or JPG.
        LabelError: fractions, or numbers outside 0…65535.
    """
    data, _ = _read_labels(path)
    try:
        return whole_numbers(data)
    except LabelError as error:
        error.file = str(path)
        raise


def write_image(path: FilePath, image: Image) -> None:
    """Write a (C, Z, Y, X) image, atomically.

    On its own grid, several channels as vectors; TIFF and .npy keep the array alone, as float32.
    PNG and BMP take whole numbers on one slice.

    Raises:
        DataError: the format cannot hold the image without loss.
    """
    path = as_path(path, "path")
    format_of(path).write_image(path, image)


def write_label_map(path: FilePath, label_map: LabelMap, like: FilePath | None = None) -> None:
    """Write file values with exactly the header geometry of `like`, atomically; the format follows `path`'s ending.

    Args:
        like: file of the image that the label map belongs to; None for an image that came from no file,
            where the header is that of the label map's grid.

    Raises:
        DataError: the format of a natural image cannot hold the values or slices.
    """
    path, like = as_path(path, "path"), None if like is None else as_path(like, "like")
    values, grid, target = label_map.labels.decode(label_map.data), label_map.grid, format_of(path)
    if like is not None and target.has_geometry and not has_geometry(like):
        grid, like = plain_grid(values.shape), None
    target.write_labels(path, values, grid, like)


def write_probabilities(path: Path, probabilities: np.ndarray, like: Path) -> None:
    """Write (K, Z, Y, X) class probabilities, atomically.

    As a vector image on the grid of `like`, or as they are to .npy.

    Raises:
        DataError: another format than .npy for a natural image.
    """
    target = format_of(path)
    if target.write_probabilities is None or (target.has_geometry and not has_geometry(like)):
        raise DataError("probabilities cannot be written in this format", file=path, allowed=".npy for natural images")
    target.write_probabilities(path, probabilities.astype(np.float32, copy=False), like)


def _read(path: Path, *, as_labels: bool) -> tuple[np.ndarray, Grid]:
    """The (C, Z, Y, X) array of a file in its own type, and its grid; whatever a library raises is about this file."""
    with read_errors(path):
        return format_of(path).read(path, as_labels)


def _read_labels(path: Path) -> tuple[np.ndarray, Grid]:
    """Read a (Z, Y, X) array in the file's own type, and its grid."""
    data, grid = _read(path, as_labels=True)
    if len(data) > 1 and not (not has_geometry(path) and len(data) == 3 and is_grey(data)):
        colours = " (colours)" if not has_geometry(path) and len(data) == 3 else ""
        raise DataError(
            "a label file must have one channel",
            file=path,
            found=f"{len(data)} channels{colours}",
            fix="give each colour a number and save those as grey" if colours else None,
        )
    return data[0], grid


def _apart(grid: Grid, other: Grid) -> str:
    """Distance of the corners of grids of equal shape, in words."""
    return f", corners {grid.corner_distance(other):.3g} mm apart" if grid.shape == other.shape else ""


def _mm(grid: Grid) -> str:
    return "(" + ", ".join(f"{s:.4g}" for s in grid.spacing) + ") mm"
