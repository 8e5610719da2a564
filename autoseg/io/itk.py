"""Volumes in and out through SimpleITK: NIfTI, NRRD, MetaImage; 2D, 3D, 4D (fourth axis = channels) and vector pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import SimpleITK as sitk

from autoseg.errors import DataError, DiskError, GeometryError, ResourceError
from autoseg.imaging.geometry import Grid
from autoseg.imaging.image import Image
from autoseg.io.formats import Header, ImageFormat, not_finite_error
from autoseg.io.nifti import copy_geometry, is_nifti, read_numbers
from autoseg.io.nifti_geometry import settle
from autoseg.io.nifti_header import NiftiHeader, read_nifti_header
from autoseg.io.stored_voxels import StoredVoxels
from autoseg.io.text_headers import read_metaimage_header, read_nrrd_header
from autoseg.io.write_check import check_disk_space, missing_end
from autoseg.system.files import atomic_files, atomic_path

T = TypeVar("T")

NO_READER = "Unable to determine ImageIO reader"
_TWO_FILES = (".mhd", ".nhdr")  # headers that name a second file, which holds the voxels
_FIX = "free disk space, or write to another folder"

_NUMBERS = {
    getattr(sitk, f"sitk{kind}{name}")
    for kind in ("", "Vector")
    for name in ("Int8", "UInt8", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float32", "Float64")
}

sitk.ProcessObject.SetGlobalWarningDisplay(False)  # ITK repeats header quirks on stderr; what matters is checked here


def _make_globals() -> None:
    """Let ITK make what its threads share: at first use it does so without a lock, and two first reads at once can crash."""
    sitk.ImageFileReader().GetRegisteredImageIOs()
    sitk.Cast(sitk.Image(4, 4, 4, sitk.sitkUInt8), sitk.sitkFloat32)


_make_globals()


def read_header(path: Path) -> Header:
    """Read grid, channels and depth of a volume, but no voxel.

    Raises:
        DataError: no such file, or not an image.
        GeometryError: an invalid grid.
    """
    if is_nifti(path) and (header := _plain_nifti(path)):
        return Header(_nifti_grid(header), math.prod(header.shape[3:]), False, header.dtype == np.uint8 and not header.is_scaled)
    reader = _header(path)
    channels = reader.GetNumberOfComponents() * (reader.GetSize()[3] if reader.GetDimension() == 4 else 1)
    eight_bit = reader.GetPixelID() in (sitk.sitkUInt8, sitk.sitkVectorUInt8)
    return Header(_grid(reader, path), channels, False, eight_bit)


def write_on_grid(path: Path, data: np.ndarray, grid: Grid, geometry_from: Path | None = None) -> None:
    """Write (Z, Y, X), or (C, Z, Y, X) as vectors, on a grid, atomically.

    Args:
        geometry_from: a NIfTI file whose stored geometry is copied to the last bit.
    """
    spacing = np.array(grid.spacing)
    direction = (grid.affine[:3, :3] / spacing)[:, ::-1]
    _save(
        path,
        data,
        spacing=spacing[::-1].tolist(),
        origin=grid.affine[:3, 3].tolist(),
        direction=direction.ravel().tolist(),
        geometry_from=geometry_from,
    )


def write_like(path: Path, data: np.ndarray, like: Path, geometry_from: Path | None = None) -> None:
    """Write (Z, Y, X), or (C, Z, Y, X) as vectors, with the header geometry of `like`, atomically.

    Args:
        geometry_from: a NIfTI file whose stored geometry is copied to the last bit.
    """
    if is_nifti(like) and (nifti := _plain_nifti(like)):
        write_on_grid(path, data, _nifti_grid(nifti), geometry_from)
        return
    header = _header(like)
    dimension = header.GetDimension()
    n = min(dimension, 3)
    if n == 2:
        data = data.reshape(*data.shape[:-3], *data.shape[-2:])
    direction = np.array(header.GetDirection()).reshape(dimension, dimension)[:n, :n]
    _save(
        path,
        data,
        spacing=header.GetSpacing()[:n],
        origin=header.GetOrigin()[:n],
        direction=direction.ravel().tolist(),
        geometry_from=geometry_from,
    )


def geometry_remarks(path: Path) -> tuple[str, ...]:
    """Sentences on what the header of an existing file says of its geometry twice and differently, or not at all."""
    if not is_nifti(path):
        return ()
    header = read_nifti_header(path)
    place = settle(header.transforms)
    if place is not None:
        return place.remarks
    sizes = header.transforms.pixdim[1 : 1 + min(3, len(header.shape))]
    return () if all(math.isfinite(n) and n != 0 for n in sizes) else ("the header holds no voxel size: 1 mm is assumed",)


def _plain_nifti(path: Path) -> NiftiHeader | None:
    """Header of a NIfTI volume of plain numbers, whose voxels are there; None for what ITK reads: slices and colours."""
    if not path.is_file():
        raise DataError("no such file", file=path)
    header = read_nifti_header(path)
    header.voxels.check_size()
    return header if header.dtype is not None and len(header.shape) >= 3 else None


def _nifti_grid(header: NiftiHeader) -> Grid:
    """Grid of a NIfTI file, by `nifti_geometry`; by ITK's reading of slices, and where there is no transform."""
    path = header.voxels.header
    try:
        place = settle(header.transforms) if len(header.shape) >= 3 else None
        if place is None:
            return _grid(_header(path), path)
        affine = place.affine
        affine[:3, :3] = affine[:3, 2::-1]
        return Grid((header.shape[2], header.shape[1], header.shape[0]), affine)
    except GeometryError as error:
        error.file = str(path)
        raise


def _reader(path: Path) -> sitk.ImageFileReader:
    """Reader of an existing file, nothing read yet."""
    if not path.is_file():
        raise DataError("no such file", file=path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    return reader


def data_files(path: Path) -> tuple[Path, ...]:
    """The files beside a volume that hold its voxels; none where it holds them itself, or cannot be read."""
    if not path.name.lower().endswith(_TWO_FILES):
        return ()
    try:
        voxels = _stored_voxels(path)
    except (DataError, OSError):
        return ()  # reading it says what is wrong
    return tuple(file for file in voxels.files if file != path) if voxels else ()


def _stored_voxels(path: Path) -> StoredVoxels | None:
    """The voxels as the header of an existing file announces them; None for a file of another format."""
    name = path.name.lower()
    if is_nifti(path):
        return read_nifti_header(path).voxels
    if name.endswith((".mha", ".mhd")):
        return read_metaimage_header(path)
    return read_nrrd_header(path) if name.endswith((".nrrd", ".nhdr")) else None


def _header(path: Path) -> sitk.ImageFileReader:
    """Reader of a file whose header is read."""
    reader = _reader(path)
    if voxels := _stored_voxels(path):
        voxels.check_size()
    _call_itk(reader.ReadImageInformation, path)
    return reader


def _call_itk(read: Callable[[], T], path: Path) -> T:
    """Turn ITK's error over a file into a `DataError`."""
    try:
        return read()
    except RuntimeError as error:
        reason = _reason(error)
        if NO_READER in reason:  # of ITK's, by name and first bytes
            reason = "a file of no bytes" if path.stat().st_size == 0 else "content of no format that is known by this file name"
        is_volume = path.name.lower().endswith(FORMAT.endings)
        fix = "copy or export it again" if is_volume else "give an image, such as .nii.gz, .nrrd, .mha, .png or .tif"
        raise DataError("the file cannot be read as an image", file=path, found=reason, fix=fix) from error


def read(path: Path) -> tuple[np.ndarray, Grid]:
    """Read a (C, Z, Y, X) array in the file's own type, and its grid.

    Raises:
        DataError: no such file, not an image, truncated, or NaN or infinity in it.
        GeometryError: an invalid grid.
    """
    reader = _reader(path)
    if not is_nifti(path):
        if voxels := _stored_voxels(path):
            voxels.check_content()
        return array_and_grid(_call_itk(reader.Execute, path), path)
    header = read_nifti_header(path)
    if header.dtype is None:  # colours
        header.voxels.check_content()
        return array_and_grid(_call_itk(reader.Execute, path), path)
    data = read_numbers(header)
    if data.dtype.kind == "f" and (n_not_finite := int((~np.isfinite(data)).sum())):
        raise not_finite_error(path, n_not_finite)
    return data, _nifti_grid(header)


def array_and_grid(image: sitk.Image, source: Path | str) -> tuple[np.ndarray, Grid]:
    """A SimpleITK image as a (C, Z, Y, X) array of its own type, and its grid.

    Args:
        source: names the image in messages.

    Raises:
        DataError: NaN or infinity, not two to four axes, or voxels that are no plain numbers.
        GeometryError: an invalid grid.
    """
    if image.GetPixelID() not in _NUMBERS:  # complex values would lose a part; runs of labels end the whole process
        raise DataError("the voxels are no plain numbers", file=source, found=image.GetPixelIDTypeAsString())
    grid = _grid(image, source)
    data = sitk.GetArrayFromImage(image)
    if data.dtype.kind == "f" and (n_not_finite := int((~np.isfinite(data)).sum())):
        raise not_finite_error(source, n_not_finite)
    if image.GetNumberOfComponentsPerPixel() > 1:
        data = np.moveaxis(data, -1, 0)
    lead = data.shape[: data.ndim - 2] if image.GetDimension() == 2 else data.shape[: data.ndim - 3]
    channels = int(np.prod(lead, dtype=np.int64)) if lead else 1
    return np.ascontiguousarray(data).reshape(channels, *grid.shape), grid


def _grid(reader: sitk.ImageFileReader | sitk.Image, path: Path | str) -> Grid:
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


def _save(
    path: Path,
    data: np.ndarray,
    *,
    spacing: Sequence[float],
    origin: Sequence[float],
    direction: Sequence[float],
    geometry_from: Path | None = None,
) -> None:
    """Write an array compressed and check that the file is whole.

    Args:
        data: without channel axis, or with one before as many axes as `spacing` has.
        spacing, origin: (x, y, z) mm.
        direction: cosines, row by row.
        geometry_from: a NIfTI file whose stored geometry is copied to the last bit.
    """
    vector = data.ndim > len(spacing)
    image = sitk.GetImageFromArray(np.moveaxis(data, 0, -1) if vector else data, isVector=vector)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction)
    with (atomic_files if path.name.lower().endswith(_TWO_FILES) else atomic_path)(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
        except RuntimeError as error:
            check_disk_space(temporary)
            raise ResourceError("the image cannot be written", file=path, found=_reason(error)) from error
        if reason := _incomplete_reason(temporary, data.nbytes):
            raise DiskError("the image could not be written completely", file=path, found=reason, fix=_FIX)
        if geometry_from is not None:
            copy_geometry(geometry_from, temporary)


def _incomplete_reason(path: Path, n_bytes: int) -> str | None:
    """Describe how a file that ITK has just written is cut short; None if it is whole.

    ITK itself does not always notice.

    Args:
        n_bytes: of the voxels.
    """
    if not is_nifti(path):
        return missing_end(path, n_bytes)
    try:
        voxels = read_nifti_header(path).voxels
    except DataError:
        return f"{path.stat().st_size} bytes without a readable header"
    return missing_end(path, voxels.offset + n_bytes)


def _reason(error: RuntimeError) -> str:
    """Last line of an ITK exception, which names the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else "unknown"


def _write_image(path: Path, image: Image) -> None:
    """Write an image on its own grid, several channels as vectors."""
    write_on_grid(path, image.data[0] if len(image.data) == 1 else image.data, image.grid)


def _write_labels(path: Path, values: np.ndarray, grid: Grid, like: Path | None) -> None:
    if like is None:
        write_on_grid(path, values, grid)
    else:
        write_like(path, values, like, like if is_nifti(like) and is_nifti(path) else None)


FORMAT = ImageFormat(
    endings=(".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd"),
    has_geometry=True,
    read_header=read_header,
    read=lambda path, as_labels: read(path),
    write_image=_write_image,
    write_labels=_write_labels,
    write_probabilities=write_like,
    label_endings={".mhd": ".mha", ".nhdr": ".nrrd"},  # a header with a second file beside it cannot be written atomically
)
