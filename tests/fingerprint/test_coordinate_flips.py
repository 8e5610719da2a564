"""Cases whose landmarks were read in the wrong coordinate system are told by where the landmarks of
the others lie.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from autoseg.dataset import load_landmarks, open_dataset
from autoseg.fingerprint.coordinate_flips import find_flipped_cases
from autoseg.fingerprint.landmarks import CasePoints, case_points
from autoseg.imaging.geometry import Grid
from autoseg.imaging.landmarks import Landmarks, State
from autoseg.io import read_grid

NAMES = ("a", "b", "c", "d", "e", "f")
TRUE = np.array([(9, 5, 4), (-9, 5, 4), (6, -8, 2), (-6, -8, 2), (0, -10, 0), (5, 3, 6)])
AS_READ, NEGATED = (1, 1, 1), (-1, -1, 1)


def cases(signs: Sequence[tuple[int, int, int]], absent: Sequence[int] = ()) -> list[CasePoints]:
    """Heads that are turned and shifted; their landmarks (x, y, z) times the signs, as a wrong
    reader has them.
    """
    rng = np.random.default_rng(0)
    grid = Grid.from_spacing((40, 40, 40), (1, 1, 1), (-20, -20, -20))
    state = np.full(len(NAMES), State.PRESENT)
    state[list(absent)] = State.ABSENT
    found = []
    for i, sign in enumerate(signs):
        turn = Rotation.from_rotvec(rng.normal(0, 0.2, 3))
        points = (turn.apply(TRUE + rng.normal(0, 0.3, TRUE.shape)) + rng.normal(0, 2, 3)) * sign
        points[list(absent)] = np.nan
        found.append(case_points(f"case {i}", Landmarks(NAMES, points, state), grid))
    return found


@pytest.mark.parametrize("absent", [(), (1,), (0, 4)])
def test_one_flipped_case_of_six(absent: Sequence[int]) -> None:
    (found,) = find_flipped_cases(cases([AS_READ] * 5 + [NEGATED], absent))
    assert found.case == "case 5"
    assert found.negated_mm < 3 < 10 < found.off_mm
    assert "case 5: the landmarks agree with those of the other cases if x and y are negated" in str(found)


@pytest.mark.parametrize(
    "signs", [[AS_READ, NEGATED] * 3, [NEGATED, AS_READ, NEGATED, NEGATED, AS_READ], [NEGATED] * 4 + [AS_READ] * 2]
)
def test_half_or_most_cases_flipped(signs: list[tuple[int, int, int]]) -> None:
    """Those that are fewer are named; of two halves one of them, all of it."""
    found = {flip.case for flip in find_flipped_cases(cases(signs))}
    groups = [{f"case {i}" for i, s in enumerate(signs) if s == sign} for sign in (AS_READ, NEGATED)]
    assert found in groups
    assert len(found) == min(map(len, groups))


def test_of_two_halves_the_one_without_the_first_case_is_flipped() -> None:
    for signs in ([AS_READ, NEGATED] * 3, [NEGATED, AS_READ] * 3):
        assert [flip.case for flip in find_flipped_cases(cases(signs))] == ["case 1", "case 3", "case 5"]


@pytest.mark.parametrize("seed", range(6))
def test_half_flipped_with_missing_landmarks(seed: int) -> None:
    """No case shows all of them, so that none can stand for the rest."""
    rng = np.random.default_rng(seed)
    true = rng.normal(0, 40, (24, 3))
    found = []
    for i in range(20):
        turn = Rotation.from_rotvec(rng.normal(0, 0.15, 3))
        points = turn.apply(true + rng.normal(0, 4, true.shape)) * ((1, -1, -1) if i % 2 else (1, 1, 1))
        first = rng.integers(13)
        shown = tuple(tuple(p) if first <= n < first + 12 else None for n, p in enumerate(points.tolist()))
        state = tuple(State.PRESENT if p else State.ABSENT for p in shown)
        found.append(CasePoints(f"{i}", (1, 1, 1), (99, 99, 99), state, shown))
    assert [int(flip.case) for flip in find_flipped_cases(found)] == [*range(1, 20, 2)]


@pytest.mark.parametrize("seed", range(6))
def test_random_orientations_are_not_flips(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = []
    for i in range(40):
        points = Rotation.from_quat(rng.normal(0, 1, 4)).apply(TRUE)
        found.append(CasePoints(f"{i}", (1, 1, 1), (40, 40, 40), (State.PRESENT,) * 6, tuple(map(tuple, points.tolist()))))
    assert find_flipped_cases(found) == ()


def test_half_of_the_mouse_skulls_flipped(real_data: Callable[[str], Path]) -> None:
    dataset = open_dataset(real_data("mouse_skull"))
    seen = [
        case_points(c.name, load_landmarks(c, dataset, grid), grid) for c in dataset.cases for grid in [read_grid(c.images[0])]
    ]
    assert find_flipped_cases(seen) == ()
    turned = [replace(c, points=tuple(p and (p[0], -p[1], -p[2]) for p in c.points)) if i % 2 else c for i, c in enumerate(seen)]
    assert [flip.case for flip in find_flipped_cases(turned)] == [c.name for c in seen[1::2]]


def test_no_flips_where_cases_agree_or_are_too_few() -> None:
    assert find_flipped_cases(cases([AS_READ] * 6)) == ()
    assert find_flipped_cases(cases([NEGATED] * 6)) == ()  # all of them: nothing to hold them against
    assert find_flipped_cases(cases([AS_READ, NEGATED])) == ()
    assert find_flipped_cases(cases([AS_READ] * 5 + [NEGATED], absent=(0, 1, 2))) == ()
    assert find_flipped_cases(cases([AS_READ] * 5 + [NEGATED], absent=range(6))) == ()
    assert find_flipped_cases([]) == ()


def test_single_slices_are_not_checked() -> None:
    flat = [replace(case, shape=(1, *case.shape[1:])) for case in cases([AS_READ] * 5 + [NEGATED])]
    assert find_flipped_cases(flat) == ()
