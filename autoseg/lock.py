"""One process at a time in a folder: several folds may be started together, and each prepares what is missing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from autoseg.files import disk_errors
from autoseg.progress import log


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Waits until no other process is inside such a block for the same folder, and says so once.

    The operating system lets go of the lock when a process ends, however it does. The lock's file lies beside the folder.
    """
    from filelock import FileLock, Timeout  # 10 ms, and most commands prepare nothing

    path = folder.parent / f".{folder.name}.lock"
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("another autoseg is preparing %s: waiting for it", folder)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
