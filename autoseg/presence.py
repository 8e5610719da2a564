"""From what probability on a landmark counts as present."""

from __future__ import annotations

import numpy as np

USUAL = 0.5


def choose_threshold(presence: np.ndarray, there: np.ndarray) -> float | None:
    """The probability that tells best where a landmark is present and where it is absent.

    Best is the mean of two shares: of the cases that have it and of those that lack it, how many are told right. Among equals
    the one nearest to a half. None where only one kind is known: then nothing can be told.

    Args:
        presence: (n,) predicted probability that it is there.
        there: (n,) whether it is.
    """
    if there.all() or not there.any():
        return None
    levels = np.unique(presence)
    tried = np.append((levels[1:] + levels[:-1]) / 2, USUAL)
    said = presence >= tried[:, None]
    right = said[:, there].mean(1) + (~said[:, ~there]).mean(1)
    best = tried[right >= right.max() - 1e-12]
    return float(best[np.abs(best - USUAL).argmin()])
