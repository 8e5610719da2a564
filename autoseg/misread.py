"""Cases whose landmarks look as if RAS coordinates had been read as LPS, or the other way round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.landmark_facts import CasePoints

FEWEST_CASES, FEWEST_LANDMARKS = 3, 4  # from which a case can be told from the others
BETTER = 0.5  # times the distance to the others that is left with x and y negated; a convention
NEGATED = np.array([1.0, -1.0, -1.0])  # along (z, y, x): what turns LPS into RAS


@dataclass(frozen=True)
class Misread:
    """A case that agrees with the others once x and y of its landmarks are negated.

    Args:
        off_mm, negated_mm: root mean square distance from the median place in all cases, as read and negated.
    """

    case: str
    off_mm: float
    negated_mm: float

    def __str__(self) -> str:
        return (
            f"case {self.case}: the landmarks agree with those of the other cases if x and y are negated "
            f"({self.negated_mm:.2g} mm apart, now {self.off_mm:.2g} mm): does their file name the right one of LPS and RAS?"
        )


def misread_cases(cases: Sequence[CasePoints]) -> tuple[Misread, ...]:
    """Volumes whose landmarks, their mean place taken away, fit the median of the cases better when turned by 180° about z."""
    volumes = [case for case in cases if case.shape[0] > 1]
    if len(volumes) < FEWEST_CASES:
        return ()
    points = np.array([case.places for case in volumes])
    known = np.isfinite(points).all(2)
    seen = known.any(0)  # landmarks of some case
    points, known = points[:, seen], known[:, seen]
    usual = _usual(points, known)
    found = []
    for case, places, there in zip(volumes, points, known):
        if np.count_nonzero(there) >= FEWEST_LANDMARKS:
            off, negated = (_distance(places[there] * sign, usual[there]) for sign in (np.ones(3), NEGATED))
            if negated < BETTER * off:
                found.append(Misread(case.name, off, negated))
    return tuple(found)


def _usual(points: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(N, 3) the median place of each landmark, each case turned as most of them are.

    Half of the cases may be turned, so they are first compared with one of them, which knows most landmarks.
    """
    if not known.size:
        return np.empty((0, 3))
    centred = np.array([p - np.median(p[there], axis=0) if there.any() else p for p, there in zip(points, known)])
    model = int(known.sum(1).argmax())
    signs = np.ones((len(points), 3))
    for i, (places, there) in enumerate(zip(centred, known & known[model])):
        if np.count_nonzero(there) >= FEWEST_LANDMARKS:
            off, negated = (_distance(places[there] * sign, centred[model][there]) for sign in (np.ones(3), NEGATED))
            if negated < BETTER * off:
                signs[i] = NEGATED
    turned = 2 * np.count_nonzero(signs[:, 1] < 0) > len(points)
    usual: np.ndarray = np.nanmedian(centred * signs[:, None], axis=0) * (NEGATED if turned else 1)
    return usual


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square, once both have the same mean."""
    return float(np.sqrt(((a - a.mean(0) - b + b.mean(0)) ** 2).sum(1).mean()))
