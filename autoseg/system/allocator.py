"""How glibc hands out memory, for programs that ask for the same large blocks over and over."""

from __future__ import annotations

import ctypes
import platform

# <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_KEPT = 2**30  # bytes; larger blocks go back to the system, so that a huge case is not held for ever
_NEVER = -1


def keep_freed_memory() -> bool:
    """Freed blocks of up to 1 GB stay with the process for its next step instead of going back to the system.

    By default glibc asks the system for every block above 32 MB and gives it back when it is freed; then each training step on a
    CPU has its memory cleared and mapped again, page by page.

    Returns:
        Whether that could be asked for: with glibc, and nowhere else.
    """
    if not _is_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))


def give_back_freed_memory() -> None:
    """What was kept so far goes back to the system after all, as far as nothing in use lies behind it."""
    if _is_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _is_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"
