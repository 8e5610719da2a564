"""Every error that autoseg raises on purpose.

A message has up to five parts: what is wrong, where (case, file), what was found, what is allowed, what to do. The exit
code of the command line belongs to the class, so that a script can tell bad data from a full disk.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

_MOST_SHOWN = 1000  # characters of a part of a message: names and lists in a file may be as long as it likes
_OBEYED = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class AutosegError(Exception):
    """Base of all errors that autoseg raises on purpose. `str(error)` is one readable paragraph.

    Args:
        problem: what is wrong, as a sentence without a final stop.
        case, file: where, if it concerns one case or file.
        found: the value at fault.
        allowed: the value or range that would have been accepted.
        fix: what the user can do now.
    """

    exit_code = 1

    def __init__(
        self,
        problem: str,
        *,
        case: str | None = None,
        file: str | Path | None = None,
        found: object = None,
        allowed: object = None,
        fix: str | None = None,
    ) -> None:
        self.problem, self.case, self.file = problem, case, None if file is None else str(file)
        self.found, self.allowed, self.fix = found, allowed, fix
        super().__init__(problem)

    def __str__(self) -> str:
        parts = [_in_part(f"case {self.case}: {self.problem}" if self.case else self.problem)]
        for word, value in (("file", self.file), ("found", self.found), ("allowed", self.allowed), ("fix", self.fix)):
            if value is not None:
                parts.append(f"{word}: {_in_part(str(value))}")
        return printable("; ".join(parts))


class UsageError(AutosegError):
    """The command or call cannot be carried out as given."""

    exit_code = 2


class DataError(AutosegError):
    """A file, a case or a dataset is not what it should be."""

    exit_code = 2


class GeometryError(DataError):
    """Grids that should agree do not, or a grid makes no sense."""


class LabelError(DataError):
    """Label values and label names do not agree."""


class PlanError(AutosegError):
    """A plan is malformed, contradicts itself or does not fit what it is used with."""

    exit_code = 2


class ResourceError(AutosegError):
    """Not enough memory, disk or time."""

    exit_code = 3


class DiskError(ResourceError):
    """Nothing more can be written, for any case, so the first such error ends the work: exit code 3, as of its base."""


def _in_part(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def printable(text: str) -> str:
    """Write the characters of a text that a terminal would obey, or cannot show, as Python does: names come from files.

    These are control characters but for the end of a line and the tab, what turns the direction of a text, and the bytes of
    file names that are not UTF-8.
    """
    return _OBEYED.sub(lambda match: repr(match[0])[1:-1], text)


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Hint with the allowed word closest to `word` (" - did you mean 'x'?"); empty if none is close."""
    close = get_close_matches(word, list(allowed), n=1)
    return f" - did you mean '{close[0]}'?" if close else ""


def repeated(names: Iterable[str]) -> list[str]:
    """The names that occur more than once, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def first_few(names: Sequence[str], most: int = 3) -> str:
    """List the first names and count the others: 'a, b, c and 4 more'."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
