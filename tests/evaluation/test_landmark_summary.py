"""Summaries of landmark scores: rates and means over hand-made tables, intervals drawn anew, and what must not change them."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from autoseg.errors import UsageError
from autoseg.evaluation.landmark_metrics import CasePointScores, score_points
from autoseg.evaluation.landmark_summary import ErrorStatistics, Estimate, LandmarkReport, LandmarkSummary, summarize_points
from autoseg.imaging.geometry import Grid
from autoseg.imaging.landmarks import Landmarks, State
from autoseg.system.records import from_json, to_json

GRID = Grid.from_spacing((10, 20, 20), (2.0, 1.0, 0.5))
Point = tuple[float, float, float]
A, U = State.ABSENT, State.UNLABELLED
NONE = Estimate(None, None, None)


def marks(*points: Point | State) -> Landmarks:
    """Named a, b, c …; points (x, y, z) mm or a state without one."""
    where = np.array([(np.nan,) * 3 if isinstance(p, State) else p for p in points])
    state = np.array([p if isinstance(p, State) else State.PRESENT for p in points])
    return Landmarks(tuple("abcdefghij"[: len(points)]), where, state)


def scored(*cases: tuple[Landmarks, Landmarks], grid: Grid = GRID) -> list[CasePointScores]:
    return [CasePointScores(f"c{i}", score_points(r, p, grid)) for i, (r, p) in enumerate(cases)]


def summary(*cases: tuple[Landmarks, Landmarks], radii: tuple[float, ...] = (1.0, 2.0), unit: str = "mm") -> LandmarkSummary:
    return summarize_points(scored(*cases), cases[0][0].names, radii, unit).summary  # type: ignore[arg-type]


CASES = (
    (marks((0, 0, 0), (0, 0, 10), (0, 0, 60)), marks((0, 0, 1), (0, 0, 12), A)),  # 1, 2, missed
    (marks((0, 0, 0), (0, 0, 10), A), marks((0, 0, 3), (0, 0, 4), (9, 9, 9))),  # 3, 6 and nearer to a, extra
    (marks((0, 0, 0), U, (0, 0, 60)), marks(A, (0, 0, 4), (0, 0, 85))),  # missed, does not count, 25
)


def test_one_landmark_at_a_time_by_hand() -> None:
    a, b, c = summary(*CASES).landmarks
    assert (a.n_reference, a.n_predicted, a.missed, a.extra) == (3, 2, 1, 0)
    assert a.errors == ErrorStatistics(2, 2.0, pytest.approx(2**0.5), 2.0, pytest.approx(2.8), pytest.approx(2.9), 3.0)
    assert (a.mean.value, a.errors_voxels.mean) == (2.0, 1.0)
    assert a.detected == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert (a.identified, a.near, a.identified_near) == (pytest.approx(2 / 3), 5.0, pytest.approx(2 / 3))
    assert (a.swapped, a.swap_partner) == (0, None)
    assert (a.presence.precision, a.presence.recall, a.presence.f1) == (1, pytest.approx(2 / 3), pytest.approx(0.8))

    assert (b.n_reference, b.n_predicted, b.missed, b.extra) == (2, 2, 0, 0)
    assert b.detected == (0, 0.5)
    assert (b.identified, b.near, b.identified_near) == (0.5, 5.0, 0.5)
    assert (b.swapped, b.swap_partner) == (0.5, "a")

    assert (c.n_reference, c.n_predicted, c.missed, c.extra) == (2, 2, 1, 1)
    assert (c.errors.n, c.errors.mean, c.errors.sd) == (1, 25, None)
    assert (c.identified, c.near, c.identified_near) == (0, 27.5, 0.5)  # 25 mm off, but within half of 50 and 60
    assert (c.presence.precision, c.presence.recall, c.presence.f1) == (0.5, 0.5, 0.5)


def test_all_landmarks_together_by_hand() -> None:
    found = summary(*CASES, radii=(6.0, 1.0, 2.0, 2.0))
    assert (found.n_cases, found.n_reference, found.n_predicted, found.missed, found.extra) == (3, 7, 6, 2, 1)
    assert found.radii == (1, 2, 6)
    assert found.errors.n == 5
    assert found.mean_micro.value == pytest.approx((1 + 2 + 3 + 6 + 25) / 5)
    assert found.mean_macro.value == pytest.approx((2 + 4 + 25) / 3)
    assert found.mean_cases.value == pytest.approx((1.5 + 4.5 + 25) / 3)
    assert [e.value for e in found.detected] == pytest.approx([1 / 7, 2 / 7, 4 / 7])
    assert (found.identified.value, found.identified_near.value) == (pytest.approx(3 / 7), pytest.approx(4 / 7))
    assert found.swapped.value == pytest.approx(1 / 5)
    assert (found.presence.precision, found.presence.recall) == (pytest.approx(5 / 6), pytest.approx(5 / 7))
    assert found.presence.f1 == pytest.approx(10 / 13)
    assert from_json(LandmarkSummary, to_json(found), "summary") == found


def test_a_radius_counts_itself() -> None:
    """0.1 + 0.2 is 0.30000000000000004: rounding does not decide."""
    (point,) = summary((marks((0.1, 0, 0)), marks((0.4, 0, 0))), radii=(0.3,)).landmarks
    assert point.detected == (1,)
    (point,) = summary((marks((0, 0, 0)), marks((0.31, 0, 0))), radii=(0.3,)).landmarks
    assert point.detected == (0,)


def test_no_identification_within_20_mm_in_pixels() -> None:
    found = summary(*CASES, unit="px")
    assert (found.identified, found.landmarks[0].identified, found.unit) == (NONE, None, "px")
    assert found.identified_near.value == pytest.approx(4 / 7)


def test_undefined_is_none() -> None:
    found = summary((marks(A, U), marks(A, A)))
    assert (found.mean_micro, found.mean_macro, found.mean_cases, found.detected[0], found.swapped) == (NONE,) * 5
    assert found.errors == ErrorStatistics(0, None, None, None, None, None, None)
    assert (found.presence.precision, found.presence.recall, found.presence.f1) == (None, None, None)
    alone = summary((marks((0, 0, 0)), marks((0, 0, 1)))).landmarks[0]
    assert (alone.near, alone.identified_near, alone.identified, alone.mean) == (None, None, 1, Estimate(1, None, None))
    empty = summarize_points([], ("a",)).summary
    assert (empty.n_cases, empty.mean_macro, empty.landmarks[0].n_reference) == (0, NONE, 0)
    assert summarize_points([], ()).summary.landmarks == ()


@pytest.mark.parametrize("radii", [(), (0.0,), (1.0, -2.0), (float("inf"),), (float("nan"),)])
def test_radii_that_cannot_be(radii: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match=r"found within radii; .*allowed: one or more above 0 px"):
        summarize_points([], ("a",), radii, "px")


def made_up(seed: int, n_cases: int = 5, n_points: int = 4, missing: float = 0.2) -> list[tuple[np.ndarray, np.ndarray]]:
    """References and predictions (n, 3) mm; NaN where missing."""
    rng = np.random.default_rng(seed)
    cases = []
    for _ in range(n_cases):
        reference = rng.normal(0, 20, (n_points, 3))
        prediction = reference + rng.normal(0, 3, (n_points, 3))
        for points in (reference, prediction):
            points[rng.random(n_points) < missing] = np.nan
        cases.append((reference, prediction))
    return cases


def report(
    cases: list[tuple[np.ndarray, np.ndarray]], grid: Grid = GRID, radii: tuple[float, ...] = (2.0, 4.0)
) -> LandmarkReport:
    rows = [tuple(marks(*(A if np.isnan(q).any() else tuple(q) for q in p)) for p in case) for case in cases]
    return summarize_points(scored(*rows, grid=grid), "abcd", radii)  # type: ignore[arg-type]


def flat(record: object) -> list:
    """All numbers and words of a report's summary, in order."""
    if isinstance(record, dict):
        return [v for value in record.values() for v in flat(value)]
    return [v for value in record for v in flat(value)] if isinstance(record, (list, tuple)) else [record]


def alike(a: LandmarkSummary, b: LandmarkSummary) -> bool:
    ours, theirs = flat(asdict(a)), flat(asdict(b))
    numbers = [(x, y) for x, y in zip(ours, theirs) if isinstance(x, float) and isinstance(y, float)]
    return (
        [x for x in ours if not isinstance(x, float)] == [y for y in theirs if not isinstance(y, float)]
        and [x for x, _ in numbers] == pytest.approx([y for _, y in numbers], rel=1e-6, abs=1e-6)
        and len(ours) == len(theirs)
    )


@given(st.integers(0, 2**31), st.floats(-500, 500))
def test_moving_both_changes_nothing(seed: int, shift: float) -> None:
    cases = made_up(seed)
    assert alike(report(cases).summary, report([(r + shift, p + shift) for r, p in cases]).summary)


@given(st.integers(0, 2**31), st.floats(0.1, 10))
def test_errors_scale_and_rates_do_not(seed: int, factor: float) -> None:
    cases = made_up(seed)
    one = report(cases).summary
    grid = Grid(GRID.shape, GRID.affine * np.array([factor, factor, factor, 1])[:, None])
    other = report([(factor * r, factor * p) for r, p in cases], grid, (2 * factor, 4 * factor)).summary
    if one.mean_macro.value is not None:
        assert other.mean_macro.value == pytest.approx(factor * one.mean_macro.value)
        assert other.errors.p95 == pytest.approx(factor * one.errors.p95)
        assert other.errors_voxels.p95 == pytest.approx(one.errors_voxels.p95)
    assert [e.value for e in other.detected] == pytest.approx([e.value for e in one.detected], nan_ok=True)
    assert (other.swapped.value, other.presence) == (one.swapped.value, one.presence)
    assert other.identified_near.value == one.identified_near.value


@given(st.integers(0, 2**31))
def test_the_order_of_cases_changes_no_value(seed: int) -> None:
    cases = made_up(seed)
    one, other = report(cases).summary, report(cases[::-1]).summary
    for a, b in ((one.mean_micro, other.mean_micro), (one.mean_macro, other.mean_macro), (one.mean_cases, other.mean_cases)):
        assert a.value == (None if b.value is None else pytest.approx(b.value))
    assert [p.detected for p in one.landmarks] == [p.detected for p in other.landmarks]
    assert [p.n_predicted for p in one.landmarks] == [p.n_predicted for p in other.landmarks]


@given(st.integers(0, 2**31))
def test_all_means_agree_where_nothing_is_missing(seed: int) -> None:
    found = report(made_up(seed, missing=0)).summary
    values = (found.mean_micro, found.mean_macro, found.mean_cases)
    assert [e.value for e in values] == pytest.approx([found.errors.mean] * 3)
    assert [(e.low, e.high) for e in values] == [pytest.approx((values[0].low, values[0].high))] * 3
    assert values[0].low <= values[0].value <= values[0].high
    assert found.detected[0].value <= found.detected[1].value
    assert found.presence.f1 == 1


def test_interval_agrees_with_scipy() -> None:
    cases = made_up(1, n_cases=40, missing=0)
    found = report(cases).summary
    means = [np.linalg.norm(p - r, axis=1).mean() for r, p in cases]
    oracle = stats.bootstrap((means,), np.mean, n_resamples=20_000, method="percentile", random_state=1).confidence_interval
    assert (found.mean_micro.low, found.mean_micro.high) == pytest.approx(
        (oracle.low, oracle.high), abs=0.1 * (oracle.high - oracle.low)
    )


def test_intervals_of_ratios_resample_both_parts() -> None:
    """Micro and macro means with missing points, against drawing the cases one by one."""
    cases = made_up(2, n_cases=6, missing=0.3)
    found = report(cases).summary
    errors = np.array([np.linalg.norm(p - r, axis=1) for r, p in cases])
    drawn = np.random.default_rng(0).integers(0, 6, (2000, 6))
    micro, macro = [], []
    for rows in drawn:
        table = errors[rows]
        known = np.isfinite(table)
        if known.any():
            micro.append(table[known].mean())
            macro.append(np.mean([c[k].mean() for c, k in zip(table.T, known.T) if k.any()]))
    assert (found.mean_micro.low, found.mean_micro.high) == pytest.approx(tuple(np.percentile(micro, (2.5, 97.5))))
    assert (found.mean_macro.low, found.mean_macro.high) == pytest.approx(tuple(np.percentile(macro, (2.5, 97.5))))
