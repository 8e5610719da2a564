"""Cases whose landmarks look as if RAS coordinates had been read as LPS, or the other way round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.fingerprint.landmarks import CasePoints

FEWEST_CASES, FEWEST_LANDMARKS = 3, 4  # from which a case can be told from the others
BETTER = 0.5  # times the distance to the others that is left with x and y negated; a convention
TOLD = 2 / 3  # of the cases must lie so much better one way or the other: of those turned at random about half do
NEGATED = np.array([1.0, -1.0, -1.0])  # along (z, y, x): what turns LPS into RAS


@dataclass(frozen=True)
class FlippedCase:
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


def misread_cases(cases: Sequence[CasePoints]) -> tuple[FlippedCase, ...]:
    """Volumes whose landmarks, their mean place taken away, fit the median of the cases better when turned by 180° about z.

    Nothing is said of cases that lie this way and that: they are no two groups. Of two halves the one without the first case is
    named.
    """
    volumes = [case for case in cases if case.shape[0] > 1]
    if len(volumes) < FEWEST_CASES:
        return ()
    points = np.array([case.places for case in volumes])
    known = np.isfinite(points).all(2)
    seen = known.any(0)  # landmarks of some case
    points, known = points[:, seen], known[:, seen]
    if not known.size:
        return ()
    usual = _usual(points, known)
    found = [
        FlippedCase(case.name, *(_distance(places[there] * sign, usual[there]) for sign in (np.ones(3), NEGATED)))
        for case, places, there in zip(volumes, points, known)
        if np.count_nonzero(there) >= FEWEST_LANDMARKS
    ]
    told = sum(min(m.off_mm, m.negated_mm) < BETTER * max(m.off_mm, m.negated_mm) for m in found)
    return tuple(m for m in found if m.negated_mm < BETTER * m.off_mm) if told >= TOLD * len(found) else ()


def _usual(points: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(N, 3) the median place of each landmark, each case turned as most of them are.

    Half of the cases may be turned. What tells the two groups apart is the sign of their part along the axis on which the x and
    y of all landmarks vary most: turned, all of these are negated, so that zero, and not the mean, lies between the groups.
    """
    centred = np.array([p - np.median(p[there], axis=0) if there.any() else p for p, there in zip(points, known)])
    in_plane = np.nan_to_num(centred[..., 1:]).reshape(len(points), -1)
    turned = np.linalg.svd(in_plane, full_matrices=False)[0][:, 0] < 0
    fewer = 2 * np.count_nonzero(turned) - len(turned)
    if fewer > 0 or (fewer == 0 and turned[0]):
        turned = ~turned
    usual: np.ndarray = np.nanmedian(centred * np.where(turned[:, None, None], NEGATED, 1.0), axis=0)
    return usual


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square, once both have the same mean."""
    return float(np.sqrt(((a - a.mean(0) - b + b.mean(0)) ** 2).sum(1).mean()))
