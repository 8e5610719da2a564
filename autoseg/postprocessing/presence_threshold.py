"""From what probability on a landmark counts as present."""

from __future__ import annotations

import numpy as np

DEFAULT_THRESHOLD = 0.5


def choose_threshold(presence: np.ndarray, there: np.ndarray) -> float | None:
    """The probability that tells best where a landmark is present and where it is absent.

    Best is how many cases are told right; among equals the threshold nearest to a half. None where only one kind is known: then
    nothing can be told. (The mean of the shares of both kinds would give up half of those that have it for one that lacks it.)

    Args:
        presence: (n,) predicted probability that it is there.
        there: (n,) whether it is.
    """
    if there.all() or not there.any():
        return None
    levels = np.unique(presence)
    tried = np.append((levels[1:] + levels[:-1]) / 2, DEFAULT_THRESHOLD)
    said = presence >= tried[:, None]
    right = (said == there).sum(1)
    best = tried[right == right.max()]
    return float(best[np.abs(best - DEFAULT_THRESHOLD).argmin()])
