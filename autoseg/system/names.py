"""Names and paths: those that can become files, such as a case's, and those that are shown, such as a structure's."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from autoseg.errors import AutosegError

# A file system takes 255 bytes; the rest is for the longest additions: '.4194304-' before a name and
# '_probabilities.nii.gz' behind it.
LONGEST_BYTES = 220
LONGEST_PART, LONGEST_PATH = 255, 4095  # bytes that Linux takes; macOS and Windows take no more
LONGEST_TITLE = 500  # characters
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
        found = f"{_shortened(name)} {position}".strip()
        raise kind(f"{what} needs a name that can be a file's", file=file, found=found, allowed=ALLOWED)


def check_title(name: str, what: str, kind: type[AutosegError], file: Path | str | None = None) -> None:
    """Check that a name can be shown, on one line: of a structure, landmark or channel.

    Raises:
        AutosegError: of class `kind`; the name is empty, too long, or has control characters.
    """
    if not name.strip() or len(name) > LONGEST_TITLE or any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name):
        allowed = f"1 to {LONGEST_TITLE} characters on one line, none that controls a terminal"
        raise kind(f"{what} needs a name that can be read", file=file, found=_shortened(name), allowed=allowed)


def check_path(path: str, what: str, kind: type[AutosegError], file: Path | str | None = None, position: str = "") -> None:
    """Check that a path can be one, whether or not there is such a file.

    Args:
        what: its place: "column 'image'", '--root'.
        kind, file, position: as in `check_name`.

    Raises:
        AutosegError: of class `kind`; the path is too long, or has control characters or characters that no file name has.
    """
    allowed = f"up to {LONGEST_PART} bytes between two slashes, {LONGEST_PATH} in all, no control characters"
    usable = not any(c < " " or "\ud800" <= c < "\udc80" for c in path)
    if usable:
        parts = path.encode("utf-8", "surrogateescape").replace(b"\\", b"/").split(b"/")
        usable = max(map(len, parts)) <= LONGEST_PART and sum(map(len, parts)) + len(parts) - 1 <= LONGEST_PATH
    if not usable:
        raise kind(f"{what} is no path", file=file, found=f"{_shortened(path)} {position}".strip(), allowed=allowed)


def _shortened(name: str) -> str:
    return repr(name if len(name) <= 60 else f"{name[:60]}…")
