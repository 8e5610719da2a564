"""The probability from which a landmark counts as present."""

from __future__ import annotations

import numpy as np

DEFAULT_THRESHOLD = 0.5


def choose_threshold(probability: np.ndarray, present: np.ndarray) -> float | None:
    """Choose the probability that best separates cases in which a landmark is present from those in which it is absent.

    Best is the highest number of correct cases; among equals the threshold nearest to a half. None where
    all cases are of one kind: then there is nothing to choose by. (The mean of the shares of both kinds
    would give up half of the cases that have the landmark for one that lacks it.)

    Args:
        probability: (n,) predicted probability that the landmark is present.
        present: (n,) bool, True where it is.
    """
    if present.all() or not present.any():
        return None
    levels = np.unique(probability)
    candidates = np.append((levels[1:] + levels[:-1]) / 2, DEFAULT_THRESHOLD)
    predicted = probability >= candidates[:, None]
    n_correct = (predicted == present).sum(1)
    best = candidates[n_correct == n_correct.max()]
    return float(best[np.abs(best - DEFAULT_THRESHOLD).argmin()])
