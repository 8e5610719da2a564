"""Cases whose landmarks were read in the wrong coordinate system are told by where the landmarks of the others lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from autoseg.geometry import Grid
from autoseg.landmark_facts import CasePoints, place_points
from autoseg.landmarks import Landmarks, State
from autoseg.misread import misread_cases

NAMES = ("a", "b", "c", "d", "e", "f")
TRUE = np.array([(9, 5, 4), (-9, 5, 4), (6, -8, 2), (-6, -8, 2), (0, -10, 0), (5, 3, 6)])
AS_READ, NEGATED = (1, 1, 1), (-1, -1, 1)


def cases(signs: Sequence[tuple[int, int, int]], absent: Sequence[int] = ()) -> list[CasePoints]:
    """Heads that are turned and shifted; their landmarks (x, y, z) times the signs, as a wrong reader has them."""
    rng = np.random.default_rng(0)
    grid = Grid.from_spacing((40, 40, 40), (1, 1, 1), (-20, -20, -20))
    state = np.full(len(NAMES), State.PRESENT)
    state[list(absent)] = State.ABSENT
    found = []
    for i, sign in enumerate(signs):
        turn = Rotation.from_rotvec(rng.normal(0, 0.2, 3))
        points = (turn.apply(TRUE + rng.normal(0, 0.3, TRUE.shape)) + rng.normal(0, 2, 3)) * sign
        points[list(absent)] = np.nan
        found.append(place_points(f"case {i}", Landmarks(NAMES, points, state), grid))
    return found


@pytest.mark.parametrize("absent", [(), (1,), (0, 4)])
def test_one_of_six_is_found(absent: Sequence[int]) -> None:
    (found,) = misread_cases(cases([AS_READ] * 5 + [NEGATED], absent))
    assert found.case == "case 5"
    assert found.negated_mm < 3 < 10 < found.off_mm
    assert "case 5: the landmarks agree with those of the other cases if x and y are negated" in str(found)


@pytest.mark.parametrize(
    "signs", [[AS_READ, NEGATED] * 3, [NEGATED, AS_READ, NEGATED, NEGATED, AS_READ], [NEGATED] * 4 + [AS_READ] * 2]
)
def test_half_of_them_or_most(signs: list[tuple[int, int, int]]) -> None:
    """Those that are fewer are named; of two halves one of them, all of it."""
    found = {m.case for m in misread_cases(cases(signs))}
    groups = [{f"case {i}" for i, s in enumerate(signs) if s == sign} for sign in (AS_READ, NEGATED)]
    assert found in groups
    assert len(found) == min(map(len, groups))


def test_nothing_is_said_of_cases_that_agree_or_cannot_tell() -> None:
    assert misread_cases(cases([AS_READ] * 6)) == ()
    assert misread_cases(cases([NEGATED] * 6)) == ()  # all of them: nothing to hold them against
    assert misread_cases(cases([AS_READ, NEGATED])) == ()
    assert misread_cases(cases([AS_READ] * 5 + [NEGATED], absent=(0, 1, 2))) == ()
    assert misread_cases(cases([AS_READ] * 5 + [NEGATED], absent=range(6))) == ()
    assert misread_cases([]) == ()


def test_pictures_have_no_coordinate_system_to_be_misread() -> None:
    flat = [replace(case, shape=(1, *case.shape[1:])) for case in cases([AS_READ] * 5 + [NEGATED])]
    assert misread_cases(flat) == ()
