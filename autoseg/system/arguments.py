"""Arguments of public functions: a wrong type is one sentence that says what is allowed."""

from __future__ import annotations

import math
import os
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np

from autoseg.errors import UsageError
from autoseg.system.names import check_path

FilePath = str | os.PathLike[str]  # what a user may give for a path


def as_path(value: Any, argument: str, *, or_else: str = "") -> Path:
    """A user's path as a `Path`.

    Args:
        argument: name of the argument.
        or_else: what else the function takes, for the message.

    Raises:
        UsageError: neither a string nor an `os.PathLike`, or one that can be no path.
    """
    if not isinstance(value, (str, os.PathLike)):
        allowed = "a string or an os.PathLike" + (f", or {or_else}" if or_else else "")
        raise UsageError(f"{argument} must be a path", found=type(value).__name__, allowed=allowed)
    path = os.fspath(value)
    if not isinstance(path, str):
        raise UsageError(f"{argument} must be a path", found=type(path).__name__, allowed="a string")
    check_path(path, argument, UsageError)
    return Path(path)


def check_type(value: Any, argument: str, types: type | tuple[type, ...], allowed: str) -> None:
    """Refuse a value of another type; a bool is no number, and numbers of numpy are taken for Python's.

    Args:
        allowed: in words, such as 'a number of GB, or None'.

    Raises:
        UsageError: the value is none of `types`.
    """
    is_bool = isinstance(value, bool) and types is not bool
    plain = value.item() if isinstance(value, np.number) else value
    if is_bool or not isinstance(plain, types) or (isinstance(plain, float) and not math.isfinite(plain)):
        shown = plain if isinstance(plain, (bool, int, float)) else type(value).__name__
        raise UsageError(f"{argument} has the wrong type", found=shown, allowed=allowed)


def check_workers(workers: Any) -> None:
    """Refuse what is no number of threads.

    Raises:
        UsageError: neither a whole number, 0 or more, nor None.
    """
    allowed = "a number of threads, 0 for none, or None"
    check_type(workers, "workers", (int, NoneType), allowed)
    if workers is not None and workers < 0:
        raise UsageError("the number of threads is negative", found=workers, allowed=allowed)
