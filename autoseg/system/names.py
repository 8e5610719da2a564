"""Names that can become those of files and folders: of datasets, configurations, folds and cases."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from autoseg.errors import AutosegError

# A file system takes 255 bytes; the rest is for the longest additions: '.4194304-' before a name and
# '_probabilities.nii.gz' behind it.
LONGEST_BYTES = 220
ALLOWED = f"1 to {LONGEST_BYTES} bytes without slash, backslash and control characters, no dot at the beginning"


def is_plain_name(name: str) -> bool:
    """Tell if a name is that of one visible file in any folder that it is joined to, never of another folder."""
    if not name or name[0] == "." or any(c in "/\\" or unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name):
        return False
    return len(name.encode()) <= LONGEST_BYTES


def check_name(name: str, what: str, kind: type[AutosegError], file: Path | str | None = None, position: str = "") -> None:
    """Check that a name can be that of a file.

    Args:
        what: the owner of the name: 'a case', 'a fold'.
        kind: class of the error.
        file: the file that contains the name.
        position: of the name in that file, such as 'in line 3'.

    Raises:
        AutosegError: of class `kind`; the name is empty, leads to another folder, or is too long.
    """
    if not is_plain_name(name):
        shown = repr(name if len(name) <= 60 else f"{name[:60]}…")
        raise kind(f"{what} needs a name that can be a file's", file=file, found=f"{shown} {position}".strip(), allowed=ALLOWED)
