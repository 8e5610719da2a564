"""Documents as mistakes and damaged disks leave them: valid ones with a value, a key, an encoding or some bytes changed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

Place = tuple[str | int, ...]
Change = Callable[[Any], Any]

NUMBERS: tuple[Any, ...] = (0, -1, 1, 3, 0.5, -0.0, 1e308, 5e-324, 2**31, 2**63, 10**400, math.nan, math.inf, -math.inf)
TEXTS = (
    "",
    " ",
    "a",
    "a" * 300,
    "a" * 5000,
    "../a",
    "/etc/passwd",
    "a\0b",
    "a\x1b[2Jb",
    "a\nb",
    "\ud800",
    "ä",
    ".",
    "nan",
    "1e5",
)
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], [1, 2], [None], {"a": 1}, [["a", "b"]], {"image": None})
RAW = (
    "9" * 5000,
    "1e400",
    "[" * 100_000,
    "[" * 300 + "]" * 300,
    '{"a":' * 5000,
    "'a'",
    "01",
    "// a",
    "",
    '{"a": 1, "a": 2}',
    "\\",
)
ODD_BYTES = (
    b"\xff",
    b"\x00",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b'"',
    b",",
    b";",
    b"\n",
    b"}",
    b"[",
    b"\r",
    b"-",
    b"e",
    b"\t",
    b"#",
)
ENCODINGS = ("utf-16", "utf-16-le", "utf-8-sig", "latin-1", "cp037")
FILES = (b"", b"\n" * 100, b"\x1f\x8b\x08\x00", bytes(range(256)))
DELETED = object()
HOLE = "\ue000"  # begins a text that is to stand without its quotation marks
_RAW = re.compile(r'"\\ue000((?:[^"\\]|\\.)*)"')


def damaged_json(text: str, random: Random) -> bytes:
    """A JSON document with one or two parts changed, or damaged as any text."""
    if random.random() < 0.3:
        return damaged_text(text, random)
    document = json.loads(text)
    for _ in range(random.randint(1, 2)):
        place = random.choice(list(_places(document)))
        document = _with(document, place, random.choice(_changes(random)))
        document = None if document is DELETED else document
    return _RAW.sub(lambda match: json.loads(f'"{match[1]}"'), json.dumps(document)).encode()


def damaged_text(text: str, random: Random) -> bytes:
    """A text in another encoding, cut off, or with some bytes changed, added or repeated."""
    data = text.encode()
    i, j = sorted(random.randint(0, len(data)) for _ in range(2))
    odd = random.choice(ODD_BYTES)
    added = random.choice((*TEXTS, *map(str, NUMBERS[:9]), "9" * 5000, "b" * 140_000)).encode("utf-8", "surrogatepass")
    ways = (
        (text + "ä").encode(random.choice(ENCODINGS), "replace"),
        data[:i],
        data[:i] + data[j:],
        data[:j] + data[i:],
        data[:i] + odd + data[i + 1 :],
        data[:i] + odd + data[i:],
        data[:i] + added + data[i:],
        random.choice((*FILES, data * 2, b"// a\n" + data, data + b"# a")),
    )
    return random.choice(ways)


def _changes(random: Random) -> tuple[Change, ...]:
    value, raw = random.choice((*NUMBERS, *TEXTS, *OTHERS)), random.choice(RAW)
    return (
        lambda part: value,
        lambda part: HOLE + raw,
        lambda part: DELETED,
        lambda part: [part, part],
        lambda part: part * 2 if isinstance(part, (list, str)) else {"odd": part},
        lambda part: {**part, "odd": value} if isinstance(part, dict) else value if isinstance(part, list) else str(part),
        lambda part: part[:-1] if isinstance(part, (list, str)) else value,
        lambda part: part[::-1] if isinstance(part, (list, str)) else -part if isinstance(part, (int, float)) else value,
    )


def _places(value: Any, place: Place = ()) -> Iterator[Place]:
    """Where the parts of a document are, of long lists the first ones."""
    parts = list(value.items()) if isinstance(value, dict) else list(enumerate(value))[:3] if isinstance(value, list) else []
    yield place
    for key, part in parts:
        yield from _places(part, (*place, key))


def _with(value: Any, place: Place, change: Change) -> Any:
    """The value with its part at a place changed."""
    if not place:
        return change(value)
    key, rest = place[0], place[1:]
    if isinstance(value, dict):
        changed = {k: _with(v, rest, change) if k == key else v for k, v in value.items()}
        return {k: v for k, v in changed.items() if v is not DELETED}
    return [v for v in (_with(v, rest, change) if i == key else v for i, v in enumerate(value)) if v is not DELETED]
