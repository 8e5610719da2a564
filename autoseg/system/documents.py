"""Documents, the user's and our own, from bytes to text and from text to JSON values: every fault is one sentence.

Text is UTF-8, with or without a byte order mark. A key that stands twice is refused wherever it does: Python takes the last
value, other readers the first, so nobody can tell which is meant, and one line is quickly deleted. NaN, Infinity and 1e400 are
read, since Python writes them; `system.records` and the readers refuse them where a number is wanted.
"""

from __future__ import annotations

import json
import re
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autoseg.errors import AutosegError, DataError, first_few

LARGEST_BYTES = 1 << 30  # of a document; the measurements of 100 000 cases take less
DEEPEST = 100  # levels of a document; ours have eight, and Python gives up at some thousands
MOST_SHOWN = 200  # characters of a wrong value in a message

_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_STRING_OR_OTHER = re.compile(r'"(?:[^"\\]|\\.)*"|[^][{}"]+')
_ODD_ESCAPE = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
_ODD_CHARACTER = re.compile("[\0\ud800-\udfff]")
_CAUSES = (
    (re.compile(r"//|/\*|#"), "delete the comment: JSON has none"),
    (re.compile(r"'"), 'put names and texts between double quotes "…"'),
    (re.compile(r"True|False|None"), "write true, false and null"),
    (re.compile(r"[\]}]|,\s*[\]}]"), "delete the comma before the closing bracket"),
    (re.compile(r"version https://git-lfs"), "this stands in for a file that Git LFS has: git lfs pull"),
    (re.compile(r"$"), "the text ends too early: copy or create the file again"),
)


def read_text(path: Path, kind: type[AutosegError] = DataError, *, what: str = "the file", fix: str = "save it as UTF-8") -> str:
    """Read the text of a document, its lines ended by line feeds.

    Args:
        kind: class of the errors.
        what: the document, in messages.
        fix: the way out of another encoding.

    Raises:
        AutosegError: of class `kind`: no such file, too large, or not UTF-8.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise kind(f"{what} cannot be read", file=path, found="a folder or a device", allowed="a file")
        with path.open("rb") as handle:
            data = handle.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise kind(f"{what} cannot be read", file=path, found=error.strerror) from error
    if len(data) > LARGEST_BYTES:
        raise kind(f"{what} is too large", file=path, found=f"{path.stat().st_size} bytes", allowed=LARGEST_BYTES)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        place = "UTF-16" if data[:2] in _UTF_16 else f"the byte 0x{data[error.start]:02x} in line {line}"
        raise kind(f"{what} is not UTF-8 text", file=path, found=place, fix=fix) from error
    if "\0" in text:
        place = f"a character NUL in line {text.count(chr(10), 0, text.index(chr(0))) + 1}"
        raise kind(f"{what} is not UTF-8 text", file=path, found=f"{place}, as in UTF-16 or a damaged file", fix=fix)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_json(
    text: str, source: str | Path, kind: type[AutosegError] = DataError, *, what: str = "the file", fix: str | None = None
) -> Any:
    """Parse JSON text.

    Args:
        source: the file's name, for messages.
        kind: class of the errors.
        what: the document, in messages.
        fix: the way out where the text does not tell a better one.

    Raises:
        AutosegError: of class `kind`: not JSON, a key that stands twice, nested too deeply, a number of thousands of digits,
            or a text with NUL or half a character (a lone surrogate).
    """

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        mapping = dict(pairs)
        if len(mapping) < len(pairs):
            twice = [shown(key) for key, count in Counter(key for key, _ in pairs).items() if count > 1]
            raise kind(
                f"{what} has a duplicate key",
                file=source,
                found=first_few(twice),
                fix="give each a name of its own, or delete one",
            )
        return mapping

    try:
        value = json.loads(text, object_pairs_hook=distinct)
    except json.JSONDecodeError as error:
        place = f"{error.msg} in line {error.lineno}, column {error.colno}: {text[error.pos : error.pos + 30]!r}"
        raise kind(f"{what} is not valid JSON", file=source, found=place, fix=_likely_fix(text, error.pos) or fix) from error
    except RecursionError as error:
        raise kind(f"{what} is nested too deeply", file=source, found=str(error), allowed=f"{DEEPEST} levels", fix=fix) from error
    except ValueError as error:
        raise kind(f"{what} has a number that is too long", file=source, found=str(error).split(":")[0], fix=fix) from error
    if _is_deep(text):
        raise kind(
            f"{what} is nested too deeply", file=source, found="brackets in brackets", allowed=f"{DEEPEST} levels", fix=fix
        )
    if _ODD_ESCAPE.search(text) and (odd := next((t for t in _texts(value) if _ODD_CHARACTER.search(t)), None)):
        found = shown(odd)
        raise kind(f"a text in {what} holds NUL or half a character", file=source, found=found, fix="write the character itself")
    return value


def read_json(path: Path, kind: type[AutosegError] = DataError, *, what: str = "the file", fix: str | None = None) -> Any:
    """Read a JSON document; raises as `read_text` and `parse_json` do."""
    return parse_json(read_text(path, kind, what=what), path, kind, what=what, fix=fix)


def shown(value: Any) -> str:
    """A JSON value in a message: its beginning, on one line."""
    text = json.dumps(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def _likely_fix(text: str, position: int) -> str | None:
    """The way out of a fault at a position, where it is a common one."""
    if not text.strip():
        return "the file is empty: copy or create it again"
    if text[position : position + 1] in ("]", "}") and not text[:position].rstrip().endswith(","):
        return None
    return next((fix for cause, fix in _CAUSES if cause.match(text, position)), None)


def _is_deep(text: str) -> bool:
    """True if brackets of valid JSON stand in more than `DEEPEST` others."""
    if text.count("[") + text.count("{") <= DEEPEST:
        return False
    brackets = _STRING_OR_OTHER.sub("", text)
    for _ in range(DEEPEST):
        if not brackets:
            return False
        brackets = brackets.replace("[]", "").replace("{}", "")
    return bool(brackets)


def _texts(value: Any) -> Iterator[str]:
    """All texts in a JSON value, names of keys, too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield key
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
