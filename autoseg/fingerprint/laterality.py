"""Left and right by name against left and right by geometry.

In canonical orientation the patient's left is known, so 'left kidney' must lie to the left of 'right kidney'. A case in which it
does not, other than in most cases, has a mirrored header or swapped labels. Which way the majority lies does not matter for
learning, only that all lie alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoseg.fingerprint.case import CaseFingerprint
from autoseg.imaging.labels import LabelSet


@dataclass(frozen=True)
class SideMismatch:
    """A case in which a pair lies the other way round than in most cases.

    Args:
        left, right: names of the pair, the first such one in the case.
        leftwards: whether the left structure lies to the left in this case.
        n_alike: cases in which the pair lies as in most, of the `n_showing` that show both.
        mirrored: whether that holds for most pairs of the case, so that it is not the labels of one pair that were swapped.
    """

    case: str
    left: str
    right: str
    leftwards: bool
    n_alike: int
    n_showing: int
    mirrored: bool

    def __str__(self) -> str:
        where, cause = "left" if self.leftwards else "right", "the header may be mirrored"
        if not self.mirrored:
            cause = "the two may have been swapped"
        return (
            f"case {self.case}: {self.left} lies to the {where} of {self.right}, "
            f"other than in {self.n_alike} of {self.n_showing} cases: {cause}"
        )


@dataclass(frozen=True)
class Laterality:
    """What the cases say about the pairs of a label set.

    Args:
        n_pairs: structures with a partner on the other side, by name.
        n_cases: cases that show both sides of some pair; 0 where nothing is known about places.
        n_reversed: cases in which most pairs lie the wrong way round, left to the right.
        odd: cases that do not agree with most others.
    """

    n_pairs: int
    n_cases: int
    n_reversed: int
    odd: tuple[SideMismatch, ...]

    @property
    def n_mirrored(self) -> int:
        """Cases that lie the other way round than most others, as a whole."""
        return sum(odd.mirrored for odd in self.odd)


def laterality(labels: LabelSet, cases: Sequence[CaseFingerprint]) -> Laterality:
    """Compares every pair of every case with the same pair in all other cases."""
    pairs = labels.side_pairs
    rows = {case.name: [_leftwards(case, pair) for pair in pairs] for case in cases if case.places}
    seen = {name: row for name, row in rows.items() if any(lies is not None for lies in row)}
    counts = []  # of each pair: cases with left to the left, and with left to the right
    for i in range(len(pairs)):
        lies = [row[i] for row in seen.values()]
        counts.append((lies.count(True), lies.count(False)))
    odd = []
    for name, row in seen.items():
        against = [i for i, lies in enumerate(row) if lies is not None and lies != (counts[i][0] >= counts[i][1])]
        if against:
            left, right = (labels.names[index - 1] for index in pairs[against[0]])
            alike, showing = max(counts[against[0]]), sum(counts[against[0]])
            most = 2 * len(against) > len(row) - row.count(None)
            odd.append(SideMismatch(name, left, right, bool(row[against[0]]), alike, showing, most))
    reversed_cases = sum(row.count(False) > row.count(True) for row in seen.values())
    return Laterality(len(pairs), len(seen), reversed_cases, tuple(odd))


def _leftwards(case: CaseFingerprint, pair: tuple[int, int]) -> bool | None:
    """Whether the left structure of a pair of class indices lies to the left; None unless both are there."""
    left, right = (case.places[index - 1] for index in pair)
    return None if left is None or right is None else left > right
