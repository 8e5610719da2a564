"""Left and right by name against left and right by geometry.

In canonical orientation the patient's left is known, so 'left kidney' must lie to the left of
'right kidney'. A case in which it does not, unlike in most cases, has a mirrored header or swapped
labels. Which way the majority lies does not matter for learning, only that all lie alike.
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
        leftwards: true if the left structure lies to the left in this case.
        n_majority: cases in which the pair lies the other way round, of the `n_showing` that show
            both.
        mirrored: true if most pairs of the case disagree, so that it is not the labels of one pair
            that were swapped.
    """

    case: str
    left: str
    right: str
    leftwards: bool
    n_majority: int
    n_showing: int
    mirrored: bool

    def __str__(self) -> str:
        where, cause = "left" if self.leftwards else "right", "the header may be mirrored"
        if not self.mirrored:
            cause = "the two may have been swapped"
        return (
            f"case {self.case}: {self.left} lies to the {where} of {self.right}, "
            f"unlike in {self.n_majority} of {self.n_showing} cases: {cause}"
        )


@dataclass(frozen=True)
class Laterality:
    """Agreement of the cases on the sides of the pairs of a label set.

    Args:
        n_pairs: structures with a partner on the other side, by name.
        n_cases: cases that show both sides of some pair; 0 where no positions are known.
        n_reversed: cases in which most pairs lie the wrong way round, left to the right.
        mismatches: cases that do not agree with most others.
    """

    n_pairs: int
    n_cases: int
    n_reversed: int
    mismatches: tuple[SideMismatch, ...]

    @property
    def n_mirrored(self) -> int:
        """Cases that lie the other way round than most others, as a whole."""
        return sum(mismatch.mirrored for mismatch in self.mismatches)


def check_laterality(labels: LabelSet, cases: Sequence[CaseFingerprint]) -> Laterality:
    """Compares every pair of every case with the same pair in all other cases."""
    pairs = labels.side_pairs
    rows = {case.name: [_leftwards(case, pair) for pair in pairs] for case in cases if case.lateral_positions}
    rows = {name: row for name, row in rows.items() if any(leftwards is not None for leftwards in row)}
    counts = []  # of each pair: cases with left to the left, and with left to the right
    for i in range(len(pairs)):
        column = [row[i] for row in rows.values()]
        counts.append((column.count(True), column.count(False)))
    mismatches = []
    for name, row in rows.items():
        deviating = [
            i for i, leftwards in enumerate(row) if leftwards is not None and leftwards != (counts[i][0] >= counts[i][1])
        ]
        if deviating:
            first = deviating[0]
            left, right = (labels.names[index - 1] for index in pairs[first])
            mismatches.append(
                SideMismatch(
                    case=name,
                    left=left,
                    right=right,
                    leftwards=bool(row[first]),
                    n_majority=max(counts[first]),
                    n_showing=sum(counts[first]),
                    mirrored=2 * len(deviating) > len(row) - row.count(None),
                )
            )
    n_reversed = sum(row.count(False) > row.count(True) for row in rows.values())
    return Laterality(len(pairs), len(rows), n_reversed, tuple(mismatches))


def _leftwards(case: CaseFingerprint, pair: tuple[int, int]) -> bool | None:
    """True if the left structure of a pair of class indices lies to the left; None unless both are
    present.
    """
    left, right = (case.lateral_positions[index - 1] for index in pair)
    return None if left is None or right is None else left > right
