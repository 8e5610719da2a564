"""What ITK leaves undone for NIfTI: it reads truncated files as if their missing end were zero, and it turns the stored
geometry into matrices and back, which changes oblique directions in the eighth digit."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import SimpleITK as sitk

from autoseg.errors import DataError

_GZIP, _NIFTI_1 = b"\x1f\x8b", (348).to_bytes(4, "little")
# bytes of a NIfTI-1 header that place the voxels in the world: pixdim, xyzt_units, and qform_code to srow_z
_GEOMETRY = (slice(76, 108), slice(123, 124), slice(252, 328))


def is_nifti(path: Path) -> bool:
    return path.name.lower().endswith((".nii", ".nii.gz"))


def check_complete(path: Path, reader: sitk.ImageFileReader) -> None:
    """Compares the length of a file with what its header announces; `reader` has read that header.

    A gzip file ends with the length of its content, so as a rule nothing is unpacked.

    Raises:
        DataError: the file is shorter.
    """
    sizes = [int(reader.GetMetaData(f"dim[{i}]")) for i in range(1, int(reader.GetMetaData("dim[0]")) + 1)]
    wanted = int(float(reader.GetMetaData("vox_offset"))) + math.prod(sizes) * int(reader.GetMetaData("bitpix")) // 8
    with open(path, "rb") as handle:
        packed = handle.read(2) == _GZIP
        length = handle.seek(-4, 2) + 4
        announced = int.from_bytes(handle.read(4), "little")
    if packed:
        length = wanted if announced == wanted % 2**32 else _unpacked_length(path)
    if length < wanted:
        raise DataError(
            "the file is truncated",
            file=path,
            found=f"{length} bytes",
            allowed=f"{wanted} bytes",
            fix="copy or download it again",
        )


def copy_geometry(source: Path, target: Path) -> None:
    """Gives `target` the very bytes by which `source` says where its voxels are; both NIfTI, of equal spatial shape.

    A big-endian source is left to what ITK wrote.
    """
    with open(source, "rb") as plain, gzip.open(plain) if _is_packed(source) else plain as handle:
        header = handle.read(348)
    packed = _is_packed(target)
    content = bytearray(gzip.decompress(target.read_bytes()) if packed else target.read_bytes())
    if header[:4] != _NIFTI_1:
        return
    for part in _GEOMETRY:
        content[part] = header[part]
    target.write_bytes(gzip.compress(content, 6, mtime=0) if packed else content)


def _is_packed(path: Path) -> bool:
    with open(path, "rb") as handle:
        return handle.read(2) == _GZIP


def _unpacked_length(path: Path) -> int:
    """Bytes that can be unpacked: several gzip streams in a row, or one that breaks off."""
    length = 0
    try:
        with gzip.open(path) as handle:
            while chunk := handle.read(1 << 22):
                length += len(chunk)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return length
    return length
