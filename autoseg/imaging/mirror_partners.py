"""Which mirror swaps labels: only the one along x, where each name takes its partner's place.

Cases are prepared in canonical orientation, so that array axis 2 runs from right to left in every case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autoseg.imaging.side_names import NameSide

LEFT_RIGHT_AXIS = 2  # of the array axes (z, y, x); a mirror along another axis swaps no names


def class_partners(names: Sequence[str], sides: Sequence[NameSide | None]) -> tuple[int, ...]:
    """Class index that takes the place of each one under a mirror; itself where it has no partner.

    Args:
        names: of the structures, whose class indices begin at 1; 0 is the background.
        sides: of the names.
    """
    by_name = {name.lower(): i for i, name in enumerate(names, start=1)}
    partner = [0] + [by_name.get(side.partner, i) if side else i for i, side in enumerate(sides, start=1)]
    return tuple(j if partner[j] == i else i for i, j in enumerate(partner))  # both must name each other


def landmark_partners(names: Sequence[str], pairs: Sequence[tuple[str, str]]) -> tuple[int, ...]:
    """Index of the landmark that takes the place of each one under a mirror; its own without a partner."""
    partner: Mapping[str, str] = {a: b for pair in pairs for a, b in (pair, pair[::-1])}
    index = {name: i for i, name in enumerate(names)}
    return tuple(index[partner.get(name, name)] for name in names)
