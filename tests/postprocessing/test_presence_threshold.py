from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoseg.postprocessing.presence_threshold import choose_threshold


@pytest.mark.parametrize(
    ("presence", "there", "threshold"),
    [
        ([0.9, 0.8, 0.2], [True, True, False], 0.5),
        ([0.3, 0.4, 0.1], [True, True, False], 0.2),
        ([0.99, 0.9, 0.7, 0.8], [True, True, False, False], 0.85),
        ([0.9, 0.6, 0.7, 0.1], [True, True, False, False], 0.5),  # nothing tells 0.6 from 0.7; a half is as good as any other
        ([0.4, 0.4], [True, False], 0.5),
        ([0.999, 0.99, 0.98, 0.97, 0.995], [True, True, True, True, False], 0.5),  # not 0.997, which three would pay for
    ],
)
def test_by_hand(presence: list[float], there: list[bool], threshold: float) -> None:
    assert choose_threshold(np.array(presence), np.array(there, dtype=bool)) == pytest.approx(threshold)


def test_no_threshold_from_cases_of_one_kind() -> None:
    for there in ([True, True], [False, False], []):
        assert choose_threshold(np.full(len(there), 0.9), np.array(there, dtype=bool)) is None


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=20))
def test_no_other_threshold_tells_more_apart(cases: list[tuple[float, bool]]) -> None:
    presence, there = np.array([p for p, _ in cases]), np.array([t for _, t in cases])
    if there.all() or not there.any():
        return

    def right(threshold: float) -> float:
        return float(((presence >= threshold) == there).sum())

    threshold = choose_threshold(presence, there)
    assert threshold is not None
    chosen = right(threshold)
    # from level to level: what is between two of them tells the same apart; all or nothing is worth 1
    levels = np.unique(presence)
    between = [level + gap / 2 for level, gap in zip(levels, np.diff(levels)) if gap > 1e-9]
    assert chosen >= max(map(right, [*between, 0.5])) - 1e-9
