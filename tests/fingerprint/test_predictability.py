"""Errors of predicted places: worked by hand, against leaving each case out in a loop, and where
they must not change.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoseg.fingerprint.predictability import N_PREDICTORS, SHRINKAGE, _ridge_errors, sd_from_image, sd_from_others
from autoseg.imaging.landmarks import mean_shape

SEEDS = st.integers(0, 2**31)


def together(seed: int, n_cases: int = 20, n_points: int = 6, noise: float = 0.1, ndim: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Cases of one shape, each moved by some 5 mm, its points by `noise`; a tenth of the points is
    missing.
    """
    rng = np.random.default_rng(seed)
    points = rng.normal(0, 20, (1, n_points, ndim)) + rng.normal(0, 5, (n_cases, 1, ndim))
    points = points + rng.normal(0, noise, (n_cases, n_points, ndim))
    return points, rng.random((n_cases, n_points)) > 0.1


def test_deviations_by_hand() -> None:
    # one axis; the first point at 0, 2, 4: said from the other two it is off by 3, 0 and 3. The
    # second goes along with it
    points = np.array([[[0.0], [10.0]], [[2.0], [12.0]], [[4.0], [14.0]]])
    everywhere = np.ones((3, 2), dtype=bool)
    assert sd_from_image(points, everywhere) == pytest.approx([6**0.5, 6**0.5])
    assert sd_from_others(points, everywhere) == pytest.approx([0, 0], abs=1e-12)
    assert np.diff(mean_shape(points, everywhere), axis=0) == pytest.approx(10)
    # the third pair is 3 mm wider: 0, 0 and 3 from their mean 1, times 3/2 for the case left out
    points[2, 1] += 3
    assert sd_from_others(points, everywhere) == pytest.approx([(1.5**2 * (1 + 1 + 4) / 3) ** 0.5] * 2)


def test_missing_points_do_not_move_the_mean_shape() -> None:
    shape = np.array([[0.0, 0.0], [3.0, 1.0], [5.0, -2.0]])
    points = shape + np.array([[[0.0, 0]], [[40, 7]], [[-9, 3]]])
    present = np.array([[True, True, False], [False, True, True], [True, False, True]])
    points[~present] = np.nan
    found = mean_shape(points, present)
    assert found - found[0] == pytest.approx(shape)
    assert sd_from_others(points, present) == pytest.approx([0, 0, 0], abs=1e-12)


def test_too_few_cases() -> None:
    points, present = np.zeros((2, 3, 3)), np.array([[True, True, False], [False, True, False]])
    assert np.isnan(sd_from_image(points, present)).tolist() == [True, False, True]
    assert np.isnan(sd_from_others(points, present)).all()
    assert np.isnan(sd_from_others(points[:, :1], present[:, 1:2])).all()  # there is no other
    assert np.isnan(sd_from_others(points[:0], present[:0])).all()


def test_the_regression_learns_from_enough_cases() -> None:
    """Sizes differ by a fifth: the shift of the neighbours leaves that open, the regression does
    not.
    """
    rng = np.random.default_rng(3)
    shape = rng.normal(0, 20, (1, 12, 3))
    points = shape * rng.normal(1, 0.2, (40, 1, 1)) + rng.normal(0, 0.1, (40, 12, 3))
    everywhere = np.ones((40, 12), dtype=bool)
    assert np.median(sd_from_others(points, everywhere)) < 0.2
    assert np.median(sd_from_others(points[:2], everywhere[:2])) > 1


def test_the_noise_of_a_point_is_recovered() -> None:
    points, present = together(0, n_cases=60, n_points=10, noise=1.0)
    # the mean of four neighbours is itself off by a half: sqrt(1 + 1/4); all nine would leave
    # sqrt(1 + 1/9)
    assert np.median(sd_from_others(points, present)) == pytest.approx(1.1, abs=0.1)
    assert np.median(sd_from_image(points, present)) == pytest.approx((25 + 1) ** 0.5, rel=0.1)


def test_closed_form_equals_leaving_each_case_out() -> None:
    rng = np.random.default_rng(1)
    features, left = rng.normal(size=(9, 4)), rng.normal(size=(9, 2))
    around = features - features.mean(0)
    scale = (around**2).sum() / 8
    for shrinkage, found in zip(SHRINKAGE, _ridge_errors(features, left)):
        errors = []
        for case in range(9):
            rest = np.arange(9) != case
            mean, level = features[rest].mean(0), left[rest].mean(0)
            x = features[rest] - mean
            if np.isfinite(shrinkage):
                weights = np.linalg.solve(x.T @ x + shrinkage * scale * np.eye(4), x.T @ (left[rest] - level))
            else:
                weights = np.zeros((4, 2))
            errors.append(left[case] - level - (features[case] - mean) @ weights)
        assert found == pytest.approx(np.sqrt(np.mean(np.square(errors))))


def test_distant_points_do_not_count() -> None:
    """At one end of a row of points nothing changes without the one at the other end."""
    rng = np.random.default_rng(4)
    points = np.arange(40.0)[None, :, None] * np.ones(3) * 10 + rng.normal(0, 1, (20, 40, 3))
    everywhere = np.ones((20, 40), dtype=bool)
    there = everywhere.copy()
    there[:, -1] = False
    assert N_PREDICTORS < 38
    assert sd_from_others(points, everywhere)[0] == pytest.approx(sd_from_others(points, there)[0])


@given(SEEDS)
def test_shifts_of_a_case_change_only_the_error_from_the_image(seed: int) -> None:
    points, present = together(seed)
    moved = points + np.random.default_rng(seed).normal(0, 100, (20, 1, 3))
    assert sd_from_others(moved, present) == pytest.approx(sd_from_others(points, present), rel=1e-6, abs=1e-9)
    assert sd_from_image(points + 7, present) == pytest.approx(sd_from_image(points, present))


@given(SEEDS, st.floats(0.1, 10))
def test_errors_scale_and_follow_the_order_of_points(seed: int, factor: float) -> None:
    points, present = together(seed, n_cases=8)
    order = np.random.default_rng(seed).permutation(6)
    for sd in (sd_from_image, sd_from_others):
        found = sd(points, present)
        assert sd(factor * points, present) == pytest.approx(factor * found, rel=1e-6, nan_ok=True)
        assert sd(points[:, order], present[:, order]) == pytest.approx(found[order], rel=1e-6, nan_ok=True)
        assert sd(points[::-1], present[::-1]) == pytest.approx(found, rel=1e-6, nan_ok=True)
