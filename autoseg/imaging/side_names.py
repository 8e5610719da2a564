"""Left and right in the names of structures: the side of a name, and the name of its partner.

A side is a word of its own or a part set off by `_`, `-`, `.` or a space ('Left Kidney',
'kidney_L', 'lh-insula', 'ren dexter'), a part in camel case ('LeftKidney', 'kidneyLeft'), or the
quadrant of a tooth number.
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
# 'kidneyL' is not split: a capital letter inside a word may mean anything ('LV' and 'RV' are no
# partners)
_CAMEL_CASE_WORDS = _WORDS[:1]

# FDI two-digit notation (ISO 3950): the first digit is the quadrant as one looks at the patient, 1
# upper right, 2 upper left, 3 lower left, 4 lower right, and 5 to 8 the same for milk teeth; the
# second counts from the midline
_QUADRANT_ACROSS = {1: 2, 2: 1, 3: 4, 4: 3, 5: 6, 6: 5, 7: 8, 8: 7}
_LEFT_QUADRANTS = {2, 3, 6, 7}
_TEETH = {q: 8 if q <= 4 else 5 for q in _QUADRANT_ACROSS}


@dataclass(frozen=True)
class NameSide:
    """Side of a name.

    Args:
        left: true for left, false for right.
        partner: name of the other side, in lower case.
    """

    left: bool
    partner: str


def name_sides(names: Sequence[str]) -> tuple[NameSide | None, ...]:
    """Side of each name of a label set; None for a name without one.

    Numbers are read as teeth only if every name that ends in a number ends in a tooth's, and at
    least one tooth is there with its partner: 'region 12' among regions 1 to 40 is none.
    """
    by_words = [name_side(name) for name in names]
    teeth = [_tooth_side(name) for name in names]
    numbered = [tooth for name, tooth in zip(names, teeth) if re.search(r"\d$", name)]
    lower = {name.lower() for name in names}
    if None in numbered or not any(tooth and tooth.partner in lower for tooth in numbered):
        return tuple(by_words)
    return tuple(side or tooth for side, tooth in zip(by_words, teeth))


def name_side(name: str) -> NameSide | None:
    """Side in the words of a name; None for a name without one."""
    return _side_of_words(re.split(r"([^a-zA-Z0-9]+)", name), _WORDS) or _side_of_words(
        re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^a-zA-Z]+", name), _CAMEL_CASE_WORDS
    )


def _side_of_words(words: Sequence[str], pairs: Sequence[tuple[str, str]]) -> NameSide | None:
    """Side of a name in parts, of which some may be words of a pair (left, right); None without
    such a word.
    """
    lower = [word.lower() for word in words]
    for left, right in pairs:
        for side, opposite in ((left, right), (right, left)):
            if side in lower:
                return NameSide(side == left, "".join(opposite if word == side else word for word in lower))
    return None


def _tooth_side(name: str) -> NameSide | None:
    """Side of a name that ends in a tooth's number, as '11', 'tooth 11' and 'FDI_11' do; None for
    other names.
    """
    match = re.fullmatch(r"(.*?)(\d+)", name)
    if match is None or len(match[2]) != 2:
        return None
    quadrant, position = map(int, match[2])
    if not 1 <= position <= _TEETH.get(quadrant, 0):
        return None
    return NameSide(quadrant in _LEFT_QUADRANTS, f"{match[1].lower()}{_QUADRANT_ACROSS[quadrant]}{position}")
