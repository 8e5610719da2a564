"""Names against geometry: who agrees, who does not, and what is said about it."""

from __future__ import annotations

from collections.abc import Sequence

from autoseg.fingerprint.case import CaseFingerprint
from autoseg.fingerprint.laterality import check_laterality
from autoseg.imaging.labels import LabelSet

KIDNEYS = LabelSet(("left kidney", "right kidney", "liver"), (1, 2, 3))
MANY = LabelSet(tuple(f"{side} {what}" for what in ("ear", "eye", "arm") for side in ("left", "right")), tuple(range(1, 7)))


def case(name: str, *positions: float | None) -> CaseFingerprint:
    return CaseFingerprint(
        name, "", (1, 1, 1), (9, 9, 9), (9, 9, 9), tuple(int(p is not None) for p in positions), positions, (), (), ""
    )


def kidneys(*left_of: bool | None) -> list[CaseFingerprint]:
    """Cases with the left kidney on the left, on the right, or not there at all."""
    positions = {True: (0.7, 0.3), False: (0.3, 0.7), None: (None, 0.4)}
    return [case(f"c{i:02d}", *positions[lies], 0.5) for i, lies in enumerate(left_of)]


def test_all_agree() -> None:
    laterality = check_laterality(KIDNEYS, kidneys(*[True] * 5, None))
    assert (laterality.n_pairs, laterality.n_cases, laterality.n_reversed, laterality.mismatches, laterality.n_mirrored) == (
        1,
        5,
        0,
        (),
        0,
    )


def test_a_mirrored_case() -> None:
    laterality = check_laterality(KIDNEYS, kidneys(*[True] * 38, False, True, None))
    assert (laterality.n_cases, laterality.n_reversed, laterality.n_mirrored) == (40, 1, 1)
    assert list(map(str, laterality.mismatches)) == [
        "case c38: left kidney lies to the right of right kidney, unlike in 39 of 40 cases: the header may be mirrored"
    ]


def test_the_majority_decides_not_the_convention() -> None:
    laterality = check_laterality(KIDNEYS, kidneys(False, False, True, False))
    assert (laterality.n_reversed, laterality.n_mirrored) == (3, 1)
    assert "case c02: left kidney lies to the left of right kidney, unlike in 3 of 4" in str(laterality.mismatches[0])


def test_a_swapped_pair_is_not_a_mirrored_case() -> None:
    straight, swapped = (0.6, 0.4, 0.6, 0.4, 0.9, 0.1), (0.6, 0.4, 0.6, 0.4, 0.1, 0.9)
    cases = [case(f"c{i}", *straight) for i in range(4)]
    laterality = check_laterality(MANY, [*cases, case("odd", *swapped), case("half", 0.4, 0.6, 0.6, 0.4, None, 0.2)])
    assert laterality.n_mirrored == 0
    assert [str(mismatch) for mismatch in laterality.mismatches] == [
        "case odd: left arm lies to the right of right arm, unlike in 4 of 5 cases: the two may have been swapped",
        "case half: left ear lies to the right of right ear, unlike in 5 of 6 cases: the two may have been swapped",
    ]
    mirrored = check_laterality(MANY, [*cases, case("turned", *(1 - p for p in straight))])
    assert (mirrored.n_mirrored, mirrored.n_reversed, len(mirrored.mismatches)) == (1, 1, 1)


def test_no_positions() -> None:
    def counts(labels: LabelSet, cases: Sequence[CaseFingerprint]) -> tuple[int, int, int]:
        laterality = check_laterality(labels, cases)
        assert laterality.mismatches == ()
        return laterality.n_pairs, laterality.n_cases, laterality.n_reversed

    assert counts(KIDNEYS, ()) == (1, 0, 0)
    assert counts(KIDNEYS, [case("from nnU-Net")]) == (1, 0, 0)
    assert counts(LabelSet(("liver",), (1,)), [case("a", 0.4)]) == (0, 0, 0)
    assert counts(KIDNEYS, kidneys(None, None)) == (1, 0, 0)
