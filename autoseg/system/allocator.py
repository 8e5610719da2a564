"""Settings of glibc's allocator, for programs that ask for the same large blocks over and over."""

from __future__ import annotations

import ctypes
import platform

# <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_KEPT = 2**30  # bytes; larger blocks go back to the system, so that a huge case is not held for ever
_NEVER = -1


def keep_freed_memory() -> bool:
    """Keep freed blocks of up to 1 GB in the process for its next step instead of returning them to the system.

    By default glibc asks the system for every block above 32 MB and returns it when it is freed; then
    each training step on a CPU has its memory cleared and mapped again, page by page.

    Returns:
        True with glibc, which takes the setting; False elsewhere.
    """
    if not _is_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))


def give_back_freed_memory() -> None:
    """Return the memory that was kept so far to the system, as far as nothing in use lies behind it."""
    if _is_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _is_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"
