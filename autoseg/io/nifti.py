"""Checks and copies for NIfTI that ITK does not do.

ITK reads truncated files as if their missing end were zero and NaN as 0, and it turns the stored
geometry into matrices and back, which changes oblique directions in the eighth digit.
"""

from __future__ import annotations

import gzip
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


def count_not_finite(header: NiftiHeader) -> int:
    """Count the numbers of a file that are NaN or infinite, of which ITK makes 0, and check the file's content.

    Raises:
        DataError, ResourceError: see `StoredVoxels.check_content`.
    """
    if header.dtype is None or header.dtype.kind != "f":
        header.voxels.check_content()
        return 0
    header.voxels.check_size(to_read=True)
    voxels, count, rest, skipped = header.voxels, 0, b"", header.voxels.offset
    n_left = voxels.n_voxels
    for chunk in voxels.chunks():
        chunk, skipped = chunk[skipped:], max(0, skipped - len(chunk))
        content = rest + chunk
        whole = min(len(content) // voxels.item_bytes, n_left)
        count += int((~np.isfinite(np.frombuffer(content, header.dtype, whole))).sum())
        rest, n_left = content[whole * voxels.item_bytes :], n_left - whole
    return count


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
