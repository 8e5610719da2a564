"""The header of NIfTI-1 (nifti1.h), as far as it says where the voxels are and how they are stored."""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.errors import DataError
from autoseg.io.nifti_geometry import NiftiTransforms
from autoseg.io.stored_voxels import GZIP, StoredVoxels, check_axes, no_image

_SIZE, _SIZE_2 = 348, 540  # bytes of a header, which begins with that number
_FIRST = 352  # byte at which voxels in the same file can begin
_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}


@dataclass(frozen=True)
class NiftiHeader:
    """Facts of a NIfTI file: where its voxels are, and how they are stored.

    Args:
        voxels: the file, and their place in it.
        dtype: of plain numbers, with the file's byte order; None for complex ones and colours.
        shape: along x, y, z and further axes.
        slope, intercept: of the stored numbers.
        transforms: where they lie.
    """

    voxels: StoredVoxels
    dtype: np.dtype | None
    shape: tuple[int, ...]
    slope: float
    intercept: float
    transforms: NiftiTransforms

    @property
    def is_scaled(self) -> bool:
        """True where the numbers are scaled: not by a slope of 0, or one that is no number (nifti1.h)."""
        return math.isfinite(self.slope) and self.slope != 0 and (self.slope, self.intercept) != (1, 0)


def read_nifti_header(path: Path) -> NiftiHeader:
    """Read the header of an existing .nii or .nii.gz file, packed or not.

    Raises:
        DataError: no NIfTI file, sizes or types that no image has, or voxels that would begin inside the header.
    """
    with open(path, "rb") as handle:
        head = handle.read(_SIZE)
    packed = head.startswith(GZIP)
    if packed:
        with open(path, "rb") as handle:
            head = _first_unpacked(handle.read(1 << 16), path)
    begins = head[:4].ljust(4, b"\0")
    order = next((o for o in "<>" if struct.unpack(f"{o}i", begins)[0] in (_SIZE, _SIZE_2)), None)
    if order is None or len(head) < _SIZE:
        raise no_image(path, "NIfTI")
    if struct.unpack(f"{order}i", begins)[0] == _SIZE_2:
        raise DataError(
            "NIfTI-2 cannot be read", file=path, fix="save it as NIfTI-1, for example with nibabel: Nifti1Image.from_image"
        )
    rank, *dims = struct.unpack_from(f"{order}8h", head, 40)
    datatype, bits = struct.unpack_from(f"{order}2h", head, 70)
    offset, slope, intercept = struct.unpack_from(f"{order}3f", head, 108)
    if not 1 <= rank <= 7:
        raise DataError(
            "the header announces sizes that no image has", file=path, found=f"{rank} axes", allowed="two to four axes"
        )
    n_voxels = check_axes(path, dims[:rank])
    dtype = np.dtype(order + _TYPES[datatype]) if datatype in _TYPES else None
    if bits % 8 or not 8 <= bits <= 256 or (dtype is not None and dtype.itemsize * 8 != bits):
        raise DataError(
            "the header announces another size of a number than its type has",
            file=path,
            found=f"datatype {datatype} with bitpix {bits}",
            fix="copy or export it again",
        )
    detached = head[344:347] == b"ni1"
    if not detached and not (math.isfinite(offset) and offset >= _FIRST and offset == int(offset)):
        raise DataError(
            "the voxels would begin inside the header",
            file=path,
            found=f"vox_offset {offset:g}",
            allowed=f"{_FIRST} or more",
            fix="correct vox_offset, or export the file again",
        )
    if detached:
        raise DataError("the voxels lie in a second file (.hdr and .img)", file=path, fix="save it as one file, .nii or .nii.gz")
    voxels = StoredVoxels(path, (path,), 0, "gzip" if packed else "", n_voxels, bits // 8, int(offset))
    return NiftiHeader(voxels, dtype, tuple(dims[:rank]), slope, intercept, _transforms(order, head))


def _transforms(order: str, head: bytes) -> NiftiTransforms:
    qform_code, sform_code = struct.unpack_from(f"{order}2h", head, 252)
    numbers = struct.unpack_from(f"{order}18f", head, 256)
    return NiftiTransforms(
        pixdim=struct.unpack_from(f"{order}8f", head, 76),
        qform_code=qform_code,
        sform_code=sform_code,
        quaternion=numbers[:3],
        offset=numbers[3:6],
        sform=np.array(numbers[6:]).reshape(3, 4),
        units=head[123],
    )


def _first_unpacked(content: bytes, path: Path) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(content, _SIZE)
    except zlib.error as error:
        raise DataError("the compressed file is damaged", file=path, found=str(error), fix="copy or download it again") from error
