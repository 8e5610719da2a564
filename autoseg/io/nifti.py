"""What ITK leaves undone for NIfTI: it reads truncated files as if their missing end were zero and NaN as 0, and it turns
the stored geometry into matrices and back, which changes oblique directions in the eighth digit."""

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
    return path.name.lower().endswith((".nii", ".nii.gz"))


def check_complete(path: Path, image: sitk.Image | sitk.ImageFileReader) -> None:
    """Compares the length of a file with what its header announces; `image` is what was read of it, at least the header.

    A gzip file ends with the length of its content, so as a rule nothing is unpacked.

    Raises:
        DataError: the file is shorter.
    """
    wanted = voxel_offset(image) + _n_numbers(image) * int(image.GetMetaData("bitpix")) // 8
    with open(path, "rb") as handle:
        packed = handle.read(2) == _GZIP
        length = handle.seek(-4, 2) + 4
        announced = int.from_bytes(handle.read(4), "little")
    if packed:
        length = wanted if announced == wanted % 2**32 else _unzipped_length(path)
    if length < wanted:
        raise DataError(
            "the file is truncated",
            file=path,
            found=f"{length} bytes",
            allowed=f"{wanted} bytes",
            fix="copy or download it again",
        )


def count_not_finite(path: Path, image: sitk.Image) -> int:
    """How many numbers of a file are NaN or infinite; files of whole numbers are not opened."""
    kind = _FLOATS.get(image.GetMetaData("datatype"))
    if kind is None:
        return 0
    with open(path, "rb") as plain, gzip.open(plain) if _is_gzip(path) else plain as handle:
        content = handle.read()
    order = "<" if content[:4] == _NIFTI_1 else ">"
    numbers = np.frombuffer(content, order + kind, _n_numbers(image), voxel_offset(image))
    return int((~np.isfinite(numbers)).sum())


def copy_geometry(source: Path, target: Path) -> None:
    """Gives `target` the very bytes by which `source` says where its voxels are; both NIfTI, of equal spatial shape.

    A big-endian source is left to what ITK wrote.
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
    """Byte at which the voxels begin."""
    return int(float(image.GetMetaData("vox_offset")))


def _n_numbers(image: sitk.Image | sitk.ImageFileReader) -> int:
    """Numbers in the file."""
    return math.prod(int(image.GetMetaData(f"dim[{i}]")) for i in range(1, int(image.GetMetaData("dim[0]")) + 1))


def _is_gzip(path: Path) -> bool:
    with open(path, "rb") as handle:
        return handle.read(2) == _GZIP


def _unzipped_length(path: Path) -> int:
    """Bytes that can be unpacked: several gzip streams in a row, or one that breaks off."""
    length = 0
    try:
        with gzip.open(path) as handle:
            while chunk := handle.read(1 << 14):  # small, since what a broken stream still gave in a chunk is lost
                length += len(chunk)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return length
    return length
