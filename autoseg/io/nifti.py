"""Voxels of NIfTI, and copies of its geometry.

ITK reads truncated files as if their missing end were zero and NaN as 0, adds intercepts that count for nothing, and turns the
stored geometry into matrices and back, which changes oblique directions in the eighth digit.
"""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np

from autoseg.io.nifti_header import NiftiHeader
from autoseg.io.stored_voxels import GZIP

_NIFTI_1 = (348).to_bytes(4, "little")
# bytes of a NIfTI-1 header that place the voxels in the world: pixdim, xyzt_units, and qform_code to srow_z
_GEOMETRY = (slice(76, 108), slice(123, 124), slice(252, 328))


def is_nifti(path: Path) -> bool:
    """Tell by its ending if a file is NIfTI."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def read_numbers(header: NiftiHeader) -> np.ndarray:
    """Read the (C, Z, Y, X) numbers of a file, scaled as its header says, in the machine's byte order.

    Raises:
        DataError, ResourceError: see `StoredVoxels.check_size` and `chunks`.
    """
    assert header.dtype is not None
    voxels = header.voxels
    voxels.check_size(to_read=True)
    content, n_bytes = bytearray(voxels.n_voxels * voxels.item_bytes), 0
    skipped = voxels.offset
    for chunk in voxels.chunks():
        part = memoryview(chunk)[skipped : skipped + len(content) - n_bytes]
        skipped = max(0, skipped - len(chunk))
        content[n_bytes : n_bytes + len(part)] = part
        n_bytes += len(part)
    x, y, z, *channels = (*header.shape, *(1,) * (3 - len(header.shape)))
    numbers = np.frombuffer(content, header.dtype).reshape(math.prod(channels), z, y, x)
    numbers = numbers.astype(header.dtype.newbyteorder("="), copy=False)
    if not header.is_scaled:
        return numbers
    with np.errstate(over="ignore"):  # what becomes infinite is refused by its reader
        return (numbers * header.slope + header.intercept).astype(np.float64 if numbers.itemsize > 4 else np.float32)


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


def _is_gzip(path: Path) -> bool:
    """Tell by its first bytes if a file is compressed."""
    with open(path, "rb") as handle:
        return handle.read(2) == GZIP
