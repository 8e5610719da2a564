"""Whether landmarks are mirror images of each other, as pairs say and as mirroring in training supposes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.fingerprint.landmarks import CasePoints
from autoseg.imaging.landmarks import LandmarkSet, Unit

FEWEST = 3  # pairs of a case, from which a plane between left and right is trusted
FAR = 5.0  # times as far off as the landmarks are in general; on 41 mouse skulls one pair is at 15 times, the others at 3 or less
NEGLIGIBLE = 0.03  # of the diagonal of the box around a case's landmarks (median): nobody is quite symmetric; a convention


@dataclass(frozen=True)
class AsymmetricPair:
    """A landmark or a pair that is no mirror image, other than the rest.

    Args:
        names: one or two.
        off_mm: how far from the partner's place, or its own, the mirror image lies (median of the cases).
        others_mm: the same of the landmarks in general.
        middle: those of the pair that lie in the plane between left and right.
        unit: of the lengths, for readers.
    """

    names: tuple[str, ...]
    off_mm: float
    others_mm: float
    middle: tuple[str, ...] = ()
    unit: Unit = "mm"

    def __str__(self) -> str:
        who = " and ".join(f"'{name}'" for name in self.names)
        apart = f"{self.off_mm:.2g} {self.unit} apart, other landmarks {self.others_mm:.2g} {self.unit}"
        sides = [name for name in self.names if name not in self.middle]
        kept = f"; {' and '.join(map(repr, sides))} will not be learnt from mirrored cases" if sides else ""
        if len(self.names) == 1:
            return f"landmark {who} has no partner and does not lie in the middle: mirrored, it is {apart}{kept}"
        lie = "lie" if len(self.middle) > 1 else "lies"
        between = f"; {' and '.join(map(repr, self.middle))} {lie} in the middle" if self.middle else ""
        return f"landmarks {who} are a pair, but no mirror images of each other: {apart}{between}{kept}"


def check_sides(landmarks: LandmarkSet, cases: Sequence[CasePoints]) -> tuple[LandmarkSet, tuple[AsymmetricPair, ...]]:
    """The landmarks with pairs that the cases bear out, and what was wrong with the others.

    The plane between left and right of a case is found from its pairs. A pair whose mirror images are far off is none: its
    members lie in that plane or are one-sided. So is a landmark without a partner that lies beside it.
    """
    if len(landmarks.pairs) < FEWEST:
        return landmarks, ()
    points = np.array([case.places for case in cases]).reshape(len(cases), len(landmarks), 3)
    partner, alone = np.array(landmarks.mirrored, dtype=np.int64), np.arange(len(landmarks))
    images = np.array([_mirror_image(case, landmarks) for case in points]).reshape(points.shape)
    off, off_itself = (_medians(np.linalg.norm(images - points[:, other], axis=-1)) for other in (partner, alone))
    known = off[np.isfinite(off)]
    if not len(known):
        return landmarks, ()
    usual = float(np.median(known))
    spread = float(np.median([np.linalg.norm(np.ptp(case.present, axis=0)) for case in cases if len(case.present)]))
    limit = max(FAR * usual, NEGLIGIBLE * spread)
    pairs, one_sided, odd = [], [], []
    for a, b in landmarks.pairs:
        i, j = landmarks.names.index(a), landmarks.names.index(b)
        if not off[i] > limit:
            pairs.append((a, b))
            continue
        middle = tuple(name for name, n in ((a, i), (b, j)) if off_itself[n] <= limit)
        one_sided += [name for name in (a, b) if name not in middle]
        odd.append(AsymmetricPair((a, b), float(off[i]), usual, middle))
    for lonely in np.flatnonzero((partner == alone) & (off > limit)):
        one_sided.append(landmarks.names[lonely])
        odd.append(AsymmetricPair((landmarks.names[lonely],), float(off[lonely]), usual))
    return LandmarkSet(landmarks.names, tuple(pairs), tuple(sorted(one_sided, key=landmarks.names.index))), tuple(odd)


def _mirror_image(points: np.ndarray, landmarks: LandmarkSet) -> np.ndarray:
    """(N, 3) where the landmarks of a case lie after mirroring; NaN where that is not known."""
    index = np.array([[landmarks.names.index(name) for name in pair] for pair in landmarks.pairs])
    left, right = points[index[:, 0]], points[index[:, 1]]
    there = np.isfinite(left - right).all(1)
    if np.count_nonzero(there) < FEWEST:
        return np.full(points.shape, np.nan)
    left, right = left[there], right[there]
    planes = [_plane(left[[i]], right[[i]]) for i in range(len(left))]
    off = np.array([np.linalg.norm(_reflected(left, plane) - right, axis=1) for plane in planes])
    best = off[np.median(off, axis=1).argmin()]
    good = best <= np.median(best)  # wrong pairs should not turn the plane
    return _reflected(points, _plane(left[good], right[good]))


def _plane(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, float]:
    """Normal and distance from the origin of the plane between (K, 3) points and their partners."""
    normal = np.linalg.svd(left - right, full_matrices=False)[2][0]
    return normal, float(np.median((left + right) @ normal) / 2)


def _reflected(points: np.ndarray, plane: tuple[np.ndarray, float]) -> np.ndarray:
    normal, offset = plane
    image: np.ndarray = points - 2 * np.outer(points @ normal - offset, normal)
    return image


def _medians(values: np.ndarray) -> np.ndarray:
    """(N,) of (C, N), over the cases that are known; NaN where none is."""
    return np.array([np.median(column[np.isfinite(column)]) if np.isfinite(column).any() else np.nan for column in values.T])
