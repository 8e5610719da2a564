"""Which names can become those of files and folders: of datasets, configurations, folds and cases."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from autoseg.errors import AutosegError

# A file system takes 255 bytes; the rest is for what is put around a name: '.4194304-' before and '_probabilities.nii.gz'
# behind it are the longest.
LONGEST_BYTES = 220
ALLOWED = f"1 to {LONGEST_BYTES} bytes without slash, backslash and control characters, no dot at the beginning"


def is_plain_name(name: str) -> bool:
    """Whether a name stands for one visible file in whatever folder it is joined to, and never for another folder."""
    if not name or name[0] == "." or any(c in "/\\" or unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name):
        return False
    return len(name.encode()) <= LONGEST_BYTES


def check_name(name: str, what: str, kind: type[AutosegError], file: Path | str | None = None, place: str = "") -> None:
    """Makes sure that a name can be that of a file.

    Args:
        what: has the name: 'a case', 'a fold'.
        kind: of error.
        file: where the name stands.
        place: in the file, such as 'in line 3'.

    Raises:
        AutosegError: of `kind`, where the name is empty, leads to another folder, or is too long.
    """
    if not is_plain_name(name):
        shown = repr(name if len(name) <= 60 else f"{name[:60]}…")
        raise kind(f"{what} needs a name that can be a file's", file=file, found=f"{shown} {place}".strip(), allowed=ALLOWED)
