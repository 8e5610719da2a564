"""The voxels of a file as its header announces them, and whether they are all there.

Libraries believe a header: they reserve what it announces before they look at the file, read what is missing as zero, and
pass over the checksums of compressed data. So a volume's header is read here first.
"""

from __future__ import annotations

import math
import stat
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from autoseg.errors import DataError, ResourceError
from autoseg.system.machine import free_ram_gb

Packing = Literal["", "gzip", "zlib", "other"]
GZIP = b"\x1f\x8b"
MOST_AXES = 4
_CHUNK = 1 << 20
_MOST_PACKED = 1100  # times the size that inflating can give at most (zlib's documentation: 1032)
_CHECKED_BYTES = 1 << 28  # smaller images are read without asking how much memory is free
_AGAIN = "copy or export it again"


@dataclass(frozen=True)
class StoredVoxels:
    """The voxels of a volume in its file, or in files beside it.

    Args:
        header: the file that is read.
        files: those with the voxels, in order; the header itself where it holds them.
        offset: bytes before the voxels; of packed NIfTI, which is packed as a whole, in what is unpacked.
        start: byte of the file at which the packed or plain data begin.
        packing: of the data; the length of what is packed in another way, or is text, is not known beforehand.
        n_voxels: numbers that the header announces, all channels together.
        item_bytes: of a number.
    """

    header: Path
    files: tuple[Path, ...]
    start: int
    packing: Packing
    n_voxels: int
    item_bytes: int
    offset: int = 0

    @property
    def n_bytes(self) -> int:
        """Unpacked bytes from `start` on."""
        return self.offset + self.n_voxels * self.item_bytes

    def check_size(self, *, to_read: bool = False) -> None:
        """Compare what is announced with the sizes of the files; nothing is unpacked.

        Args:
            to_read: the voxels, too, for which there must be memory.

        Raises:
            DataError: a file of voxels is missing, no regular file, or too short.
            ResourceError: not enough memory.
        """
        for path in self.files:
            _check_regular(path, self.header)
        size = max(0, sum(path.stat().st_size for path in self.files) - self.start)
        if self.packing != "other" and size * (_MOST_PACKED if self.packing else 1) < self.n_bytes:
            raise _truncated(self.header, f"{size} bytes" + (" of compressed voxels" if self.packing else ""), self.n_bytes)
        if to_read:
            check_room(self.header, self.n_voxels, self.item_bytes)

    def check_content(self) -> None:
        """Check size and memory and, of compressed voxels, unpack them all for their checksums.

        Raises:
            DataError, ResourceError: see `check_size` and `chunks`.
        """
        self.check_size(to_read=True)
        if self.packing in ("gzip", "zlib"):
            for _ in self.chunks():
                pass

    def chunks(self) -> Iterator[bytes]:
        """Unpack everything from `start` on, piece by piece, up to the end of the compressed data.

        Raises:
            DataError: the data are damaged, by their checksum, or shorter than announced.
        """
        length = 0
        for chunk in _unpacked(self):
            length += len(chunk)
            yield chunk
        if self.packing != "other" and length < self.n_bytes:
            raise _truncated(self.header, f"{length} bytes of voxels", self.n_bytes)


def check_room(path: Path, n_voxels: int, item_bytes: int) -> None:
    """Check that an image fits into the free memory, as it is stored and once more as float32.

    Raises:
        ResourceError: it does not.
    """
    n_bytes = n_voxels * (item_bytes + 4)
    if n_bytes < _CHECKED_BYTES:
        return
    free_gb = free_ram_gb()
    if free_gb is not None and n_bytes / 1e9 > free_gb:
        raise ResourceError(
            "not enough memory to read the image",
            file=path,
            found=f"{n_voxels} numbers, {n_bytes / 1e9:.1f} GB",
            allowed=f"{free_gb:.1f} GB that are free",
            fix="a machine with more memory, --workers 1, or an image with larger voxels; check the size in the header",
        )


def check_axes(path: Path, sizes: Sequence[int]) -> int:
    """The product of an image's sizes, all of them positive and at most `MOST_AXES` longer than 1.

    Raises:
        DataError: other sizes.
    """
    if not sizes or any(n < 1 for n in sizes) or sum(n > 1 for n in sizes) > MOST_AXES:
        shown = " × ".join(map(str, sizes[:8])) or "none"
        raise DataError(
            "the header announces sizes that no image has", file=path, found=shown, allowed="two to four axes", fix=_AGAIN
        )
    return math.prod(sizes)


def beside(header: Path, name: str) -> Path:
    """The file of voxels that a header names, which must lie in the header's own folder.

    Raises:
        DataError: it would lie elsewhere.
    """
    plain = name.strip().removeprefix("./")
    if not plain or plain in (".", "..") or any(mark in plain for mark in ("/", "\\", "\0")):
        raise DataError(
            "the header names a file of voxels in another folder",
            file=header,
            found=name.strip()[:200],
            allowed="the name of a file beside the header",
            fix="move the file of voxels beside the header, and name it there without a folder",
        )
    return header.with_name(plain)


def no_image(path: Path, format_name: str) -> DataError:
    """Error for a file that is not of the format that its name tells, with what it is as far as the first bytes show."""
    with open(path, "rb") as handle:
        head = handle.read(256)
    known = {
        b"version https://git-lfs": "a pointer of Git LFS; git lfs pull fetches the file itself",
        b"\x89PNG": "a PNG",
        b"\xff\xd8\xff": "a JPG",
        b"NRRD": "a NRRD",
        b"ObjectType": "a MetaImage",
        b"NDims": "a MetaImage",
        b"PK": "a zip archive",
        b"<": "a web page or XML",
        GZIP: "a compressed file; unpack it, or name it .nii.gz if it is NIfTI",
    }
    kind = next((text for start, text in known.items() if head.startswith(start)), f"content that is no {format_name}")
    if head[128:132] == b"DICM":
        kind = "DICOM; convert the series to NIfTI first, for example with dcm2niix"
    return DataError("the file cannot be read as an image", file=path, found=kind if head else "a file of no bytes", fix=_AGAIN)


def _check_regular(path: Path, header: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise DataError(
            "the file of voxels that the header names is missing",
            file=header,
            found=f"no {path.name} ({error.strerror})",
            fix=_AGAIN,
        ) from error
    if not stat.S_ISREG(mode):
        raise DataError("the header names no regular file", file=header, found=path.name, allowed="a file of voxels")


def _truncated(path: Path, found: str, n_bytes: int) -> DataError:
    return DataError(
        "the file is truncated", file=path, found=found, allowed=f"{n_bytes} bytes of voxels by its header", fix=_AGAIN
    )


def _unpacked(voxels: StoredVoxels) -> Iterator[bytes]:
    for i, path in enumerate(voxels.files):
        with open(path, "rb") as handle:
            handle.seek(voxels.start if i == 0 else 0)
            if voxels.packing not in ("gzip", "zlib"):
                while chunk := handle.read(_CHUNK):
                    yield chunk
                continue
            try:
                yield from _inflated(handle, 31 if voxels.packing == "gzip" else zlib.MAX_WBITS)
            except zlib.error as error:
                raise DataError("the compressed voxels are damaged", file=voxels.header, found=str(error), fix=_AGAIN) from error
            except EOFError as error:
                found = f"{path.stat().st_size} bytes, which break off before the end of the compressed voxels"
                raise _truncated(voxels.header, found, voxels.n_bytes) from error


def _inflated(handle: BinaryIO, wbits: int) -> Iterator[bytes]:
    """Unpack gzip streams in a row, or a zlib stream, with their checksums; what stands behind the end is ignored.

    Raises:
        zlib.error: damaged.
        EOFError: they break off.
    """
    stream, rest = zlib.decompressobj(wbits), b""
    while data := rest or handle.read(_CHUNK):
        if stream.eof:
            data += handle.read(1)
            if wbits == zlib.MAX_WBITS or not data.startswith(GZIP):
                return
            stream = zlib.decompressobj(wbits)
        yield stream.decompress(data, _CHUNK)
        rest = stream.unused_data if stream.eof else stream.unconsumed_tail
    yield stream.flush()
    if not stream.eof:
        raise EOFError
