"""Symmetry of landmarks: checks that pairs are mirror images of each other, as mirroring in
training supposes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.fingerprint.landmarks import CasePoints
from autoseg.imaging.landmarks import LandmarkSet, Unit

MIN_PAIRS = 3  # of a case, for the plane between left and right to be trusted
FAR_FACTOR = (
    5.0  # times as far off as the landmarks are in general; on 41 mouse skulls one pair is at 15 times, the others at 3 or less
)
NEGLIGIBLE_SHARE = 0.03  # of the diagonal of the box around a case's landmarks (median): nobody is quite symmetric; a convention


@dataclass(frozen=True)
class AsymmetricPair:
    """A pair whose members are not mirror images, or a landmark without partner beside the middle,
    unlike the rest.

    Args:
        names: one or two.
        off_mm: distance of the mirror image from the partner, or from the landmark itself (median
            of the cases).
        others_mm: this distance for the landmarks in general.
        middle: those of the pair that lie in the plane between left and right.
        unit: of the lengths, for readers.
    """

    names: tuple[str, ...]
    off_mm: float
    others_mm: float
    middle: tuple[str, ...] = ()
    unit: Unit = "mm"

    def __str__(self) -> str:
        names = " and ".join(f"'{name}'" for name in self.names)
        off, others = f"{self.off_mm:.2g} {self.unit} off", f"{self.others_mm:.2g} {self.unit}"
        one_sided = [name for name in self.names if name not in self.middle]
        consequence = f"; {' and '.join(map(repr, one_sided))} will not be learnt from mirrored cases" if one_sided else ""
        if len(self.names) == 1:
            return (
                f"landmark {names} has no partner and does not lie in the middle: "
                f"its mirror image is {off}, that of other landmarks {others}{consequence}"
            )
        lie = "lie" if len(self.middle) > 1 else "lies"
        middle = f"; {' and '.join(map(repr, self.middle))} {lie} in the middle" if self.middle else ""
        fault = f"are listed as a pair but are not mirror images: {off}, other landmarks {others}"
        return f"landmarks {names} {fault}{middle}{consequence}"


def check_symmetry(landmarks: LandmarkSet, cases: Sequence[CasePoints]) -> tuple[LandmarkSet, tuple[AsymmetricPair, ...]]:
    """The landmarks with those pairs that are mirror images in the cases, and what was wrong with
    the others.

    The plane between left and right of a case is fitted to its pairs. A pair whose mirror images
    are far off is dropped: its members lie in that plane or are one-sided. A landmark without a
    partner that lies beside the plane is one-sided, too.
    """
    if len(landmarks.pairs) < MIN_PAIRS:
        return landmarks, ()
    points = np.array([case.points_mm for case in cases]).reshape(len(cases), len(landmarks), 3)
    partner, itself = np.array(landmarks.mirror_partners, dtype=np.int64), np.arange(len(landmarks))
    images = np.array([_mirror_image(case, landmarks) for case in points]).reshape(points.shape)
    off, off_itself = (_medians(np.linalg.norm(images - points[:, target], axis=-1)) for target in (partner, itself))
    measured = off[np.isfinite(off)]
    if not len(measured):
        return landmarks, ()
    typical = float(np.median(measured))
    diagonals = [np.linalg.norm(np.ptp(case.present_points, axis=0)) for case in cases if len(case.present_points)]
    limit = max(FAR_FACTOR * typical, NEGLIGIBLE_SHARE * float(np.median(diagonals)))
    pairs, one_sided, asymmetric = [], [], []
    index = {name: i for i, name in enumerate(landmarks.names)}
    for a, b in landmarks.pairs:
        i, j = index[a], index[b]
        if not off[i] > limit:
            pairs.append((a, b))
            continue
        middle = tuple(name for name, n in ((a, i), (b, j)) if off_itself[n] <= limit)
        one_sided += [name for name in (a, b) if name not in middle]
        asymmetric.append(AsymmetricPair((a, b), float(off[i]), typical, middle))
    for i in np.flatnonzero((partner == itself) & (off > limit)).tolist():
        one_sided.append(landmarks.names[i])
        asymmetric.append(AsymmetricPair((landmarks.names[i],), float(off[i]), typical))
    one_sided.sort(key=index.__getitem__)
    return LandmarkSet(landmarks.names, tuple(pairs), tuple(one_sided)), tuple(asymmetric)


def _mirror_image(points: np.ndarray, landmarks: LandmarkSet) -> np.ndarray:
    """Position (N, 3) of the landmarks of a case after mirroring; NaN where that is not known."""
    positions = {name: i for i, name in enumerate(landmarks.names)}
    index = np.array([[positions[name] for name in pair] for pair in landmarks.pairs])
    left, right = points[index[:, 0]], points[index[:, 1]]
    complete = np.isfinite(left - right).all(1)
    if np.count_nonzero(complete) < MIN_PAIRS:
        return np.full(points.shape, np.nan)
    left, right = left[complete], right[complete]
    planes = [_plane(left[[i]], right[[i]]) for i in range(len(left))]
    off = np.array([np.linalg.norm(_reflected(left, plane) - right, axis=1) for plane in planes])
    best = off[np.median(off, axis=1).argmin()]
    better_half = best <= np.median(best)  # wrong pairs should not turn the plane
    return _reflected(points, _plane(left[better_half], right[better_half]))


def _plane(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, float]:
    """Normal and distance from the origin of the plane between (K, 3) points and their partners."""
    normal = np.linalg.svd(left - right, full_matrices=False)[2][0]
    return normal, float(np.median((left + right) @ normal) / 2)


def _reflected(points: np.ndarray, plane: tuple[np.ndarray, float]) -> np.ndarray:
    """Mirror images (N, 3) of points; plane as `_plane` gives it."""
    normal, offset = plane
    image: np.ndarray = points - 2 * np.outer(points @ normal - offset, normal)
    return image


def _medians(values: np.ndarray) -> np.ndarray:
    """Median (N,) of (C, N) values over the cases in which they are finite; NaN where none is."""
    return np.array([np.median(column[np.isfinite(column)]) if np.isfinite(column).any() else np.nan for column in values.T])
