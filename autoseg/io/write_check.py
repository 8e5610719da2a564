"""Checks that a file which a library has written is complete: on a full disk not all of them notice."""

from __future__ import annotations

import os
import re
from pathlib import Path

_GZIP = b"\x1f\x8b"
_HEADER = 1 << 16  # bytes; longer than any header of text that ITK writes
_TEST_BYTES = 1 << 20


def missing_end(path: Path, n_bytes: int) -> str | None:
    """Describe what is wrong with the length of a file, as far as the file states it; None if it is whole.

    A gzip stream ends with the length of its content, so nothing is unpacked. A NRRD holds such a stream behind its header.

    Args:
        n_bytes: length of the content, unpacked.
    """
    with open(path, "rb") as handle:
        head = handle.read(_HEADER)
        length = handle.seek(0, os.SEEK_END)
        handle.seek(max(length - 4, 0))
        tail = int.from_bytes(handle.read(4), "little")
    name = path.name.lower()
    if name.endswith(".mha"):
        text, mark, _ = head.partition(b"ElementDataFile = LOCAL\n")
        packed = re.search(rb"^CompressedDataSize = (\d+)$", text, re.MULTILINE)
        n_expected = len(text) + len(mark) + (int(packed[1]) if packed else n_bytes)
        return None if mark and length == n_expected else f"{length} bytes instead of {n_expected}"
    if name.endswith(".nrrd") or head.startswith(_GZIP):
        stream = head if head.startswith(_GZIP) else head.partition(b"\n\n")[2]
        whole = stream.startswith(_GZIP) and tail == n_bytes % 2**32
        return None if whole else f"{length} bytes, the end of the compressed part is missing"
    if name.endswith(".nii"):
        return None if length == n_bytes else f"{length} bytes instead of {n_bytes}"
    return _missing_end_of_data(path, head, n_bytes) if name.endswith((".mhd", ".nhdr")) else f"{length} bytes of an unknown kind"


def _missing_end_of_data(header: Path, text: bytes, n_bytes: int) -> str | None:
    """Describe what is wrong with the length of the file of voxels that a MetaImage's or NRRD's header names."""
    named = re.search(rb"^(?:ElementDataFile = |data file: )(.+)$", text, re.MULTILINE)
    data = header.with_name(named[1].decode(errors="replace")) if named else None
    if data is None or not data.is_file():
        return f"{len(text)} bytes of a header without a file of voxels"
    if header.name.lower().endswith(".nhdr"):
        return missing_end(data, n_bytes)
    packed = re.search(rb"^CompressedDataSize = (\d+)$", text, re.MULTILINE)
    length, n_expected = data.stat().st_size, int(packed[1]) if packed else n_bytes
    return None if length == n_expected else f"{length} bytes instead of {n_expected}"


def check_disk_space(path: Path) -> None:
    """Try to write more to a file that is thrown away afterwards.

    Raises:
        OSError: the disk is full.
    """
    with open(path, "ab") as handle:
        handle.write(b"\0" * _TEST_BYTES)
        handle.flush()
        os.fsync(handle.fileno())
