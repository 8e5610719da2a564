"""Landmark scores of a case: every state and distance by hand."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.errors import LabelError
from autoseg.evaluation.landmark_metrics import STATES, PointScore, score_points
from autoseg.imaging.geometry import Grid
from autoseg.imaging.landmarks import Landmarks, State

GRID = Grid.from_spacing((10, 20, 20), (2.0, 1.0, 0.5))
Point = tuple[float, float, float]
A, U = State.ABSENT, State.UNLABELLED


def marks(*points: Point | State) -> Landmarks:
    """Named a, b, c …; points (x, y, z) mm or a state without one."""
    where = np.array([(np.nan,) * 3 if isinstance(p, State) else p for p in points])
    state = np.array([p if isinstance(p, State) else State.PRESENT for p in points])
    return Landmarks(tuple("abcdefghij"[: len(points)]), where, state)


def test_every_state_by_hand() -> None:
    reference = marks((0, 0, 0), (0, 0, 10), A, A, U, U)
    prediction = marks((3, 0, 4), A, (1, 1, 1), U, (0, 0, 0), A)
    a, b, c, d, e, f = score_points(reference, prediction, GRID)
    assert a == PointScore("a", "both", 5.0, pytest.approx(40**0.5), "a", 10.0)  # 3 mm are 6 voxels, 4 mm are 2
    assert b == PointScore("b", "missed", None, None, None, 10.0)
    assert c == PointScore("c", "extra", None, None, None, None)
    assert (d.state, e.state, f.state) == ("absent", "unlabelled", "unlabelled")
    assert (e.error, e.nearest, f.neighbour) == (None, None, None)
    assert {p.state for p in (a, b, c, d, e)} == set(STATES)


def test_the_nearest_reference() -> None:
    reference = marks((0, 0, 0), (0, 0, 10), (0, 0, 40), A)
    prediction = marks((0, 0, 6), (0, 0, 5), (0, 0, 9), (0, 0, 0))
    assert [p.nearest for p in score_points(reference, prediction, GRID)] == ["b", "b", "b", None]  # in a tie the own one
    assert [p.nearest for p in score_points(marks((0, 0, 0), U), marks((0, 0, 60), (0, 0, 60)), GRID)] == ["a", None]


def test_nothing_is_known_of_an_image_without_references() -> None:
    scores = score_points(marks(A, U), marks((0, 0, 0), (0, 0, 0)), GRID)
    assert [p.state for p in scores] == ["extra", "unlabelled"]


def test_landmarks_must_be_the_same() -> None:
    other = Landmarks(("b", "a"), np.zeros((2, 3)), np.full(2, State.PRESENT))
    with pytest.raises(LabelError, match="different landmarks; found: b, a; allowed: a, b"):
        score_points(marks((0, 0, 0), (0, 0, 0)), other, GRID)
