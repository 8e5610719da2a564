"""Left and right in the names of structures: which side a name stands for, and what its partner is called.

A side is a word of its own or a part set off by `_`, `-`, `.` or a space ('Left Kidney', 'kidney_L', 'lh-insula', 'ren dexter'),
a part in camel case ('LeftKidney', 'kidneyLeft'), or the quadrant of a tooth number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_WORDS = (
    ("left", "right"),
    ("lh", "rh"),
    ("sinister", "dexter"),
    ("sinistra", "dextra"),
    ("sinistrum", "dextrum"),
    ("sin", "dex"),
    ("l", "r"),
)
_CAMEL_CASE_WORDS = _WORDS[
    :1
]  # 'kidneyL' is not split: a capital letter inside a word may mean anything ('LV' and 'RV' are no partners)

# FDI two-digit notation (ISO 3950): the first digit is the quadrant as one looks at the patient, 1 upper right, 2 upper left,
# 3 lower left, 4 lower right, and 5 to 8 the same for milk teeth; the second counts from the midline
_QUADRANT_ACROSS = {1: 2, 2: 1, 3: 4, 4: 3, 5: 6, 6: 5, 7: 8, 8: 7}
_LEFT_QUADRANTS = {2, 3, 6, 7}
_TEETH = {q: 8 if q <= 4 else 5 for q in _QUADRANT_ACROSS}


@dataclass(frozen=True)
class NameSide:
    """A name with a side: `left` or else right, and the partner's name in lower case."""

    left: bool
    partner: str


def name_sides(names: Sequence[str]) -> tuple[NameSide | None, ...]:
    """The side of each name of a label set; None for a name without one.

    Numbers are read as teeth only if every name that ends in a number ends in a tooth's, and at least one tooth is there with
    its partner: 'region 12' among regions 1 to 40 is none.
    """
    found = [name_side(name) for name in names]
    teeth = [_tooth_side(name) for name in names]
    numbered = [tooth for name, tooth in zip(names, teeth) if re.search(r"\d$", name)]
    known = {name.lower() for name in names}
    if None in numbered or not any(tooth and tooth.partner in known for tooth in numbered):
        return tuple(found)
    return tuple(word or tooth for word, tooth in zip(found, teeth))


def name_side(name: str) -> NameSide | None:
    """The side that the words of a name tell; None for a name without one."""
    return _side_of_words(re.split(r"([^a-zA-Z0-9]+)", name), _WORDS) or _side_of_words(
        re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^a-zA-Z]+", name), _CAMEL_CASE_WORDS
    )


def _side_of_words(words: Sequence[str], pairs: Sequence[tuple[str, str]]) -> NameSide | None:
    lower = [word.lower() for word in words]
    for left, right in pairs:
        for here, there in ((left, right), (right, left)):
            if here in lower:
                return NameSide(here == left, "".join(there if word == here else word for word in lower))
    return None


def _tooth_side(name: str) -> NameSide | None:
    """'11', 'tooth 11', 'FDI_11': the tooth of a name that ends in its number."""
    match = re.fullmatch(r"(.*?)(\d+)", name)
    if match is None or len(match[2]) != 2:
        return None
    quadrant, place = map(int, match[2])
    if not 1 <= place <= _TEETH.get(quadrant, 0):
        return None
    return NameSide(quadrant in _LEFT_QUADRANTS, f"{match[1].lower()}{_QUADRANT_ACROSS[quadrant]}{place}")
