"""Percentile bootstrap over cases: the variation of a mean with other cases, all resamples in one matrix product."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

RESAMPLES = 2000  # a percentile interval needs a thousand or more (Efron & Tibshirani, An Introduction to the Bootstrap, 1993)
CONFIDENCE = 0.95


@lru_cache(maxsize=8)
def resample_weights(n: int) -> np.ndarray:
    """Share (RESAMPLES, n) of each case in each resample; times (n, …) values it gives all the resampled means.

    The draw is the same for the same number of cases, so that a report can be reproduced.
    """
    cases = np.random.default_rng(0).integers(0, n, (RESAMPLES, n))
    rows = np.arange(RESAMPLES)[:, None] * n
    weights: np.ndarray = np.bincount((cases + rows).ravel(), minlength=RESAMPLES * n).reshape(RESAMPLES, n) / n
    return weights


def interval(resampled: np.ndarray) -> tuple[float, float]:
    """Bounds between which 95 % of the resampled values lie."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, (tail, 1 - tail))
    return float(low), float(high)
