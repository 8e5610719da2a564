"""One process at a time in a folder: several folds may be started together, and each prepares what is missing; but nothing good
comes of training one fold twice at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from autoseg.errors import UsageError
from autoseg.system.files import disk_errors
from autoseg.system.progress import log


@contextlib.contextmanager
def folder_lock(folder: Path, wait: bool = True) -> Iterator[None]:
    """Waits until no other process is inside such a block for the same folder, and says so once.

    The operating system lets go of the lock when a process ends, however it does. The lock's file lies beside the folder.

    Raises:
        UsageError: another process is inside, and this one does not wait.
    """
    from filelock import FileLock, Timeout  # 10 ms, and most commands prepare nothing

    path = folder.parent / f".{folder.name}.lock"
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not wait:
                raise UsageError(
                    "another autoseg is training in this folder",
                    file=folder,
                    fix="wait until it is done, or end it with a file named STOP in that folder",
                ) from None
            log.info("another autoseg is preparing %s: waiting for it", folder)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
