"""Files that are either whole or absent, and the digest of what they hold."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from autoseg.errors import DiskError


@contextlib.contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turn the operating system's errors about writing to `target` into a `DiskError`."""
    try:
        yield
    except OSError as error:
        raise DiskError(
            "cannot write", file=target, found=error.strerror or str(error), fix="free disk space or choose another --root"
        ) from error


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Give a temporary name beside `target` that replaces it when the block succeeds and vanishes when it fails.

    The temporary name keeps the target's endings, since writers choose the format by them.

    Raises:
        DiskError: the disk is full or the folder cannot be written to.
    """
    temporary = target.with_name(f".{os.getpid()}-{target.name}")
    try:
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with open(temporary, "rb+") as handle:
                os.fsync(handle.fileno())
            os.replace(temporary, target)
    finally:
        with contextlib.suppress(OSError):  # what went wrong above must not be hidden by a clean-up that fails, too
            temporary.unlink()


@contextlib.contextmanager
def atomic_files(target: Path) -> Iterator[Path]:
    """Give the target's own name in a temporary folder beside it, for a file that names others which are written with it.

    When the block succeeds, all that is in the folder moves beside the target, and the target last; when it fails, all vanishes.

    Raises:
        DiskError: the disk is full or the folder cannot be written to.
    """
    folder = target.with_name(f".{os.getpid()}-{target.name}")
    try:
        with disk_errors(target):
            folder.mkdir(parents=True)
            yield folder / target.name
            for path in sorted(folder.iterdir(), key=lambda path: path.name == target.name):
                with open(path, "rb+") as handle:
                    os.fsync(handle.fileno())
                os.replace(path, target.with_name(path.name))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Delete a folder with all that is in it, if there is one; of a link, the link alone.

    Raises:
        DiskError: it cannot be deleted.
    """
    with disk_errors(folder):
        if folder.is_symlink():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files of killed processes anywhere below a folder that no other process writes to."""
    for path in list(folder.rglob(".*")):
        if not re.match(r"\.\d+-", path.name):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_file():
            path.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Write UTF-8 text atomically; bytes of file names that are not UTF-8 as Python shows them."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_array(handle: BinaryIO, array: np.ndarray) -> None:
    """Write an array as `numpy.save` does, but through Python, which reports every byte that cannot be written.

    numpy leaves the last bytes to the C library and does not check that they arrive.
    """
    contiguous = np.ascontiguousarray(array)
    np.lib.format.write_array_header_1_0(handle, np.lib.format.header_data_from_array_1_0(contiguous))
    handle.write(contiguous.data)


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def file_stamp(path: Path) -> str:
    """Stamp that changes when a file is touched: size, modification and change time. Cheaper than a digest."""
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"
