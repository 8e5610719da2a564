"""One process at a time in a folder.

Several folds may be started together, and each preprocesses the cases that are missing; and the same
fold must not be trained by two processes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from autoseg.errors import UsageError
from autoseg.system.files import disk_errors
from autoseg.system.progress import log


@contextlib.contextmanager
def folder_lock(folder: Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a folder; wait until no other process holds it, and log that once.

    The operating system releases the lock when a process ends, however it ends. The lock's file lies
    beside the folder.

    Args:
        wait: False raises an error where the lock is taken.

    Raises:
        UsageError: another process holds the lock, and `wait` is False.
    """
    from filelock import FileLock, Timeout  # 10 ms, and most commands take no lock

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
