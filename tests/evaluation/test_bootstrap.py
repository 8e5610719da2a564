"""Resampled cases: shares that add up, the same draw each time, and the interval of hand-made values."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.evaluation.bootstrap import RESAMPLES, interval, resample_weights


def test_weights_are_the_shares_of_drawn_cases() -> None:
    drawn = np.random.default_rng(0).integers(0, 5, (RESAMPLES, 5))
    weights = resample_weights(5)
    assert weights.shape == (RESAMPLES, 5)
    assert weights[7] == pytest.approx(np.bincount(drawn[7], minlength=5) / 5)
    assert weights.sum(1) == pytest.approx(1)
    assert resample_weights(5) is weights


def test_interval_leaves_a_fortieth_on_either_side() -> None:
    assert interval(np.arange(41.0)) == pytest.approx((1, 39))
    assert resample_weights(1).tolist() == [[1]] * RESAMPLES
