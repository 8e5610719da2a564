"""Checks and copies for NIfTI that ITK does not do.

ITK reads truncated files as if their missing end were zero and NaN as 0, and it turns the stored
geometry into matrices and back, which changes oblique directions in the eighth digit.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from autoseg.errors import DataError

_GZIP, _NIFTI_1 = b"\x1f\x8b", (348).to_bytes(4, "little")
_FLOATS = {"16": "f4", "64": "f8"}  # NIfTI-1 datatype codes
# bytes of a NIfTI-1 header that place the voxels in the world: pixdim, xyzt_units, and qform_code to srow_z
_GEOMETRY = (slice(76, 108), slice(123, 124), slice(252, 328))


def is_nifti(path: Path) -> bool:
    """Tell by its ending if a file is NIfTI."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def check_complete(path: Path, image: sitk.Image | sitk.ImageFileReader) -> None:
    """Compare the length of a file with the one that its header announces.

    A gzip file ends with the length of its content, so as a rule nothing is unpacked.

    Args:
        image: the file as it was read, or its header.

    Raises:
        DataError: the file is shorter.
    """
    n_expected = voxel_offset(image) + _n_numbers(image) * int(image.GetMetaData("bitpix")) // 8
    with open(path, "rb") as handle:
        packed = handle.read(2) == _GZIP
        length = handle.seek(-4, 2) + 4
        announced = int.from_bytes(handle.read(4), "little")
    if packed:
        length = n_expected if announced == n_expected % 2**32 else _unzipped_length(path)
    if length < n_expected:
        raise DataError(
            "the file is truncated",
            file=path,
            found=f"{path.stat().st_size} bytes, which unpack to {length}" if packed else f"{length} bytes",
            allowed=f"{n_expected} bytes{' unpacked' if packed else ''}",
            fix="copy or download it again",
        )


def count_not_finite(path: Path, image: sitk.Image) -> int:
    """Count the numbers of a file that are NaN or infinite; files of whole numbers are not opened."""
    float_type = _FLOATS.get(image.GetMetaData("datatype"))
    if float_type is None:
        return 0
    with open(path, "rb") as plain, gzip.open(plain) if _is_gzip(path) else plain as handle:
        content = handle.read()
    order = "<" if content[:4] == _NIFTI_1 else ">"
    numbers = np.frombuffer(content, order + float_type, _n_numbers(image), voxel_offset(image))
    return int((~np.isfinite(numbers)).sum())


def copy_geometry(source: Path, target: Path) -> None:
    """Copy the bytes that place the voxels in the world from one NIfTI file to another of equal spatial shape.

    With a big-endian source the geometry stays as ITK wrote it.
    """
    with open(source, "rb") as plain, gzip.open(plain) if _is_gzip(source) else plain as handle:
        header = handle.read(348)
    packed = _is_gzip(target)
    content = bytearray(gzip.decompress(target.read_bytes()) if packed else target.read_bytes())
    if header[:4] != _NIFTI_1:
        return
    for part in _GEOMETRY:
        content[part] = header[part]
    target.write_bytes(gzip.compress(content, 6, mtime=0) if packed else content)


def voxel_offset(image: sitk.Image | sitk.ImageFileReader) -> int:
    """Byte of the file at which the voxels begin."""
    return int(float(image.GetMetaData("vox_offset")))


def _n_numbers(image: sitk.Image | sitk.ImageFileReader) -> int:
    """Count of the numbers in the file."""
    return math.prod(int(image.GetMetaData(f"dim[{i}]")) for i in range(1, int(image.GetMetaData("dim[0]")) + 1))


def _is_gzip(path: Path) -> bool:
    """Tell by its first bytes if a file is compressed."""
    with open(path, "rb") as handle:
        return handle.read(2) == _GZIP


def _unzipped_length(path: Path) -> int:
    """Count of the bytes that can be unpacked: several gzip streams in a row, or one that breaks off."""
    length = 0
    try:
        with gzip.open(path) as handle:
            while chunk := handle.read(1 << 14):  # small, since what a broken stream still gave in a chunk is lost
                length += len(chunk)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return length
    return length
