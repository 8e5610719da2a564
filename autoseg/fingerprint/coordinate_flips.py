"""Cases whose landmarks look as if RAS coordinates had been read as LPS, or the other way round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.fingerprint.landmarks import CasePoints

MIN_CASES, MIN_LANDMARKS = 3, 4  # fewer do not tell a case from the others
MAX_DISTANCE_RATIO = 0.5  # of the distance to the others, the better way by the worse way round; a convention
MIN_CLEAR_SHARE = 2 / 3  # of the cases must lie so much better one way or the other; turned at random, about half do
LPS_TO_RAS = np.array([1.0, -1.0, -1.0])  # factors along (z, y, x)


@dataclass(frozen=True)
class FlippedCase:
    """A case that agrees with the others once x and y of its landmarks are negated.

    Args:
        off_mm, negated_mm: root mean square distance from the median positions in all cases, as
            read and negated.
    """

    case: str
    off_mm: float
    negated_mm: float

    def __str__(self) -> str:
        return (
            f"case {self.case}: the landmarks agree with those of the other cases if x and y are negated "
            f"({self.negated_mm:.2g} mm apart, now {self.off_mm:.2g} mm): does their file name the right one of LPS and RAS?"
        )


def find_flipped_cases(cases: Sequence[CasePoints]) -> tuple[FlippedCase, ...]:
    """Volumes whose landmarks, once centred, fit the median of the cases better when turned by 180°
    about z.

    Cases that lie in all directions do not form two groups, and then none is returned. Of two equal
    groups the one without the first case is returned.
    """
    volumes = [case for case in cases if case.shape[0] > 1]
    if len(volumes) < MIN_CASES:
        return ()
    points = np.array([case.points_mm for case in volumes])
    present = np.isfinite(points).all(2)
    in_some_case = present.any(0)
    points, present = points[:, in_some_case], present[:, in_some_case]
    if not present.size:
        return ()
    shape = _median_shape(points, present)
    candidates = [
        FlippedCase(
            case.name,
            off_mm=_rms_distance(row[mask], shape[mask]),
            negated_mm=_rms_distance(row[mask] * LPS_TO_RAS, shape[mask]),
        )
        for case, row, mask in zip(volumes, points, present)
        if np.count_nonzero(mask) >= MIN_LANDMARKS
    ]
    n_clear = sum(min(c.off_mm, c.negated_mm) < MAX_DISTANCE_RATIO * max(c.off_mm, c.negated_mm) for c in candidates)
    if n_clear < MIN_CLEAR_SHARE * len(candidates):
        return ()
    return tuple(c for c in candidates if c.negated_mm < MAX_DISTANCE_RATIO * c.off_mm)


def _median_shape(points: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Median position (N, 3) of each landmark, each case turned as most of them are.

    Half of the cases may be turned. The two groups differ in the sign of their score on the first
    principal axis of the x and y of all landmarks: turned, all of these are negated, so that zero,
    and not the mean, lies between the groups.
    """
    centred = np.array([p - np.median(p[mask], axis=0) if mask.any() else p for p, mask in zip(points, present)])
    in_plane = np.nan_to_num(centred[..., 1:]).reshape(len(points), -1)
    turned = np.linalg.svd(in_plane, full_matrices=False)[0][:, 0] < 0
    surplus = 2 * np.count_nonzero(turned) - len(turned)
    if surplus > 0 or (surplus == 0 and turned[0]):
        turned = ~turned
    shape: np.ndarray = np.nanmedian(centred * np.where(turned[:, None, None], LPS_TO_RAS, 1.0), axis=0)
    return shape


def _rms_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square distance between (n, 3) points and their partners, once both have the same
    mean.
    """
    return float(np.sqrt(((a - a.mean(0) - b + b.mean(0)) ** 2).sum(1).mean()))
