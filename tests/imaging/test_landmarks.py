"""Names, pairs and states of landmarks."""

from __future__ import annotations

import time

import numpy as np
import pytest

from autoseg.errors import LabelError
from autoseg.imaging.landmarks import Landmarks, LandmarkSet, State


def test_pairs_swap_and_the_rest_stays() -> None:
    assert LandmarkSet(("nose", "eye_L", "eye_R"), (("eye_L", "eye_R"),)).mirror_partners == (0, 2, 1)
    assert LandmarkSet(()).mirror_partners == ()


@pytest.mark.parametrize(
    ("names", "pairs", "message"),
    [
        (("a", "a"), (), "a name of its own"),
        (("a", ""), (), "an empty name"),
        (("a", "b"), (("a", "c"),), "an unknown landmark"),
        (("a", "b", "c"), (("a", "b"), ("b", "c")), "can have one partner"),
        (("a",), (("a", "a"),), "can have one partner"),
    ],
)
def test_contradictory_landmark_sets(names: tuple[str, ...], pairs: tuple[tuple[str, str], ...], message: str) -> None:
    with pytest.raises(LabelError, match=message):
        LandmarkSet(names, pairs)


def test_a_present_landmark_has_a_position() -> None:
    points = np.array([[1.0, 2, 3], [np.nan] * 3])
    known = Landmarks(("a", "b"), points, np.array([State.PRESENT, State.ABSENT]))
    assert known.present.tolist() == [True, False]
    with pytest.raises(LabelError, match=r"needs a finite position.*b"):
        Landmarks(("a", "b"), points, np.array([State.PRESENT, State.PRESENT]))
    with pytest.raises(LabelError, match="a point and a state"):
        Landmarks(("a", "b"), points[:1], np.array([State.PRESENT, State.ABSENT]))


def test_thousands_of_landmarks_take_no_time() -> None:
    start = time.process_time()
    names = [f"point {i} {side}" for i in range(10_000) for side in "LR"]
    landmarks = LandmarkSet(tuple(names), tuple(zip(names[::2], names[1::2])))
    assert landmarks.mirror_partners[:4] == (1, 0, 3, 2)
    with pytest.raises(LabelError, match=r"a landmark can have one partner, and not itself; found: point 0 L;"):
        LandmarkSet(tuple(names), (("point 0 L", "point 0 R"), ("point 0 L", "point 1 R")))
    with pytest.raises(LabelError, match=r"each landmark needs a name of its own; found: point 0 L"):
        LandmarkSet((*names, "point 0 L"))
    assert time.process_time() - start < 5
