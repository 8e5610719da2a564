"""Volumes in and out through SimpleITK: NIfTI, NRRD, MetaImage; 2D, 3D, 4D (fourth axis = channels) and vector pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import SimpleITK as sitk

from autoseg.errors import DataError, GeometryError, LabelError, ResourceError
from autoseg.files import atomic_path
from autoseg.geometry import Grid
from autoseg.image import Image, LabelMap
from autoseg.io.nifti import check_complete, copy_geometry, is_nifti, not_finite
from autoseg.labels import LabelSet

T = TypeVar("T")
IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")

sitk.ProcessObject.SetGlobalWarningDisplay(False)  # ITK repeats header quirks on stderr; what matters is checked here


def image_ending(path: Path) -> str | None:
    """The image ending of a file name ('.nii.gz', …), or None for any other file and for hidden files."""
    name = path.name.lower()
    return None if name.startswith(".") else next((e for e in IMAGE_ENDINGS if name.endswith(e)), None)


def read_grid(path: Path) -> Grid:
    """Grid from the header alone, no voxel is read.

    Raises:
        DataError: no such file, or not an image.
        GeometryError: a grid that makes no sense.
    """
    return _grid(_header(path), path)


def read_image(paths: Sequence[Path], channels: Sequence[str]) -> Image:
    """Reads one file per channel, or one file that holds them all, as float32.

    Raises:
        DataError: unreadable file, NaN or infinity, another number of channels than `channels` names.
        GeometryError: the files of one case lie on different grids.
    """
    parts: list[np.ndarray] = []
    grid: Grid | None = None
    for path in paths:
        data, here = _read(path)
        if grid is not None and (here.shape != grid.shape or here.corner_distance(grid) > min(grid.spacing)):
            raise GeometryError(
                "the channels of one case lie on different grids",
                file=path,
                found=f"shape {here.shape}, spacing {_mm(here)}",
                allowed=f"shape {grid.shape}, spacing {_mm(grid)} as in {paths[0].name}",
                fix="resample the channels to one grid (for example in 3D Slicer: Resample Image)",
            )
        grid = grid or here
        parts.append(data.astype(np.float32, copy=False))
    assert grid is not None
    stack = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if len(stack) != len(channels):
        raise DataError(
            "number of channels differs from dataset.json",
            file=paths[0],
            found=len(stack),
            allowed=f"{len(channels)} ({', '.join(channels)})",
        )
    return Image(stack, grid, tuple(channels))


def read_label_map(path: Path, labels: LabelSet) -> LabelMap:
    """Reads a label file and turns its values into class indices.

    Raises:
        DataError: unreadable file, more than one channel.
        LabelError: values that `labels` does not know.
    """
    data, grid = _read(path)
    if len(data) != 1:
        raise DataError("a label file must have one channel", file=path, found=f"{len(data)} channels")
    try:
        return LabelMap(labels.encode(data[0]), grid, labels)
    except LabelError as error:
        error.file = str(path)
        raise


def write_image(path: Path, image: Image) -> None:
    """Writes a (C, Z, Y, X) image on its own grid, atomically; several channels become a vector image."""
    data = image.data[0] if len(image.data) == 1 else image.data
    spacing = np.array(image.grid.spacing)
    direction = (image.grid.affine[:3, :3] / spacing)[:, ::-1]
    _save(path, data, spacing[::-1].tolist(), image.grid.affine[:3, 3].tolist(), direction.ravel().tolist())


def write_label_map(path: Path, label_map: LabelMap, like: Path) -> None:
    """Writes file values with exactly the header geometry of `like`, atomically; the format follows `path`'s ending."""
    exactly = like if is_nifti(like) and is_nifti(path) else None
    _write(path, label_map.labels.decode(label_map.data), like, exactly)


def write_probabilities(path: Path, probabilities: np.ndarray, like: Path) -> None:
    """Writes (K, Z, Y, X) class probabilities as a vector image on the grid of `like`, atomically."""
    _write(path, probabilities.astype(np.float32, copy=False), like)


def _reader(path: Path) -> sitk.ImageFileReader:
    if not path.is_file():
        raise DataError("no such file", file=path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    return reader


def _header(path: Path) -> sitk.ImageFileReader:
    reader = _reader(path)
    _run(reader.ReadImageInformation, path)
    return reader


def _run(read: Callable[[], T], path: Path) -> T:
    try:
        return read()
    except RuntimeError as error:
        raise DataError("the file cannot be read as an image", file=path, found=_reason(error)) from error


def _read(path: Path) -> tuple[np.ndarray, Grid]:
    """(C, Z, Y, X) array in the file's own type, and its grid."""
    image = _run(_reader(path).Execute, path)
    if is_nifti(path):
        check_complete(path, image)
    grid = _grid(image, path)
    data = sitk.GetArrayFromImage(image)
    odd = not_finite(path, image) if is_nifti(path) else int((~np.isfinite(data)).sum()) if data.dtype.kind == "f" else 0
    if odd:
        raise DataError(
            "the file holds NaN or infinity",
            file=path,
            found=f"{odd} voxels",
            allowed="finite numbers",
            fix="replace them with the background value",
        )
    if image.GetNumberOfComponentsPerPixel() > 1:
        data = np.moveaxis(data, -1, 0)
    lead = data.shape[: data.ndim - 2] if image.GetDimension() == 2 else data.shape[: data.ndim - 3]
    channels = int(np.prod(lead, dtype=np.int64)) if lead else 1
    return np.ascontiguousarray(data).reshape(channels, *grid.shape), grid


def _grid(reader: sitk.ImageFileReader | sitk.Image, path: Path) -> Grid:
    dimension = reader.GetDimension()
    if dimension not in (2, 3, 4):
        raise DataError("images must have two to four axes", file=path, found=dimension)
    n = min(dimension, 3)
    direction = np.array(reader.GetDirection()).reshape(dimension, dimension)[:n, :n]
    affine = np.eye(4)
    affine[:n, :n] = direction * np.array(reader.GetSpacing()[:n])
    affine[:n, 3] = reader.GetOrigin()[:n]
    affine[:3, :3] = affine[:3, 2::-1]  # ITK counts x, y, z; arrays z, y, x
    shape = reader.GetSize()[:n][::-1]
    try:
        return Grid((1,) * (3 - n) + tuple(shape), affine)
    except GeometryError as error:
        error.file = str(path)
        raise


def _write(path: Path, data: np.ndarray, like: Path, exactly: Path | None = None) -> None:
    header = _header(like)
    dimension = header.GetDimension()
    n = min(dimension, 3)
    if n == 2:
        data = data.reshape(*data.shape[:-3], *data.shape[-2:])
    direction = np.array(header.GetDirection()).reshape(dimension, dimension)[:n, :n]
    _save(path, data, header.GetSpacing()[:n], header.GetOrigin()[:n], direction.ravel().tolist(), exactly)


def _save(
    path: Path,
    data: np.ndarray,
    spacing: Sequence[float],
    origin: Sequence[float],
    direction: Sequence[float],
    exactly: Path | None = None,
) -> None:
    """`data` without channel axis, or with one before as many axes as `spacing` has.

    Args:
        exactly: a NIfTI file whose stored geometry is taken over to the last bit.
    """
    vector = data.ndim > len(spacing)
    image = sitk.GetImageFromArray(np.moveaxis(data, 0, -1) if vector else data, isVector=vector)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction)
    with atomic_path(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
        except RuntimeError as error:
            raise ResourceError("the image cannot be written", file=path, found=_reason(error)) from error
        if exactly is not None:
            copy_geometry(exactly, temporary)


def _mm(grid: Grid) -> str:
    return "(" + ", ".join(f"{s:.4g}" for s in grid.spacing) + ") mm"


def _reason(error: RuntimeError) -> str:
    """The telling line of an ITK exception."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else "unknown"
