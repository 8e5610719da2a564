"""What is measured of landmarks: how often each is there, how far they spread, and how well their places follow from each other.

Everything is relative to the centre of the image and along its canonical (z, y, x) axes, as a patch is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.errors import LabelError
from autoseg.fingerprint.predictability import sd_from_image, sd_from_others
from autoseg.imaging.geometry import Grid, Triple
from autoseg.imaging.landmarks import Landmarks, State

EXTENT_PERCENTILE = 95.0  # of the cases; a single odd case should not decide how large a patch must be
MOST_KAPPA = 1000.0  # where the others tell a place exactly, as in made-up data
FEWEST_TO_VARY = 3  # cases that tell how much a distance varies
DIGITS = 6  # of predicted spreads: further ones differ between processors, and so would fingerprints


@dataclass(frozen=True)
class CasePoints:
    """The landmarks of a case on its canonical axes (z, y, x).

    Args:
        spacing: mm.
        shape: voxels.
        state: a `State` for each landmark.
        points: mm from the centre of the image; None unless present.
    """

    name: str
    spacing: tuple[float, float, float]
    shape: Triple
    state: tuple[int, ...]
    points: tuple[tuple[float, float, float] | None, ...]

    @property
    def extent(self) -> np.ndarray:
        """(3,) mm from voxel edge to voxel edge."""
        return np.array(self.spacing) * self.shape

    @property
    def places(self) -> np.ndarray:
        """(N, 3) mm: a row for each landmark, NaN unless present."""
        return np.array([(np.nan,) * 3 if p is None else p for p in self.points]).reshape(-1, 3)

    @property
    def present(self) -> np.ndarray:
        """(n, 3) mm: the points that are known, in order."""
        return np.array([p for p in self.points if p is not None]).reshape(-1, 3)

    @property
    def outside(self) -> np.ndarray:
        """(N,) whether a landmark lies outside the image, farther than rounding can be: a millionth of the image."""
        beyond = (np.abs(self.places) - self.extent / 2).clip(0)
        far: np.ndarray = np.linalg.norm(beyond, axis=1) > 1e-6 * self.extent.max()  # NaN is not
        return far

    @property
    def shows_any(self) -> bool:
        """Whether a landmark lies in the image."""
        return int(np.count_nonzero(self.outside)) < len(self.present)


@dataclass(frozen=True)
class PointFacts:
    """One landmark over all cases. None where too few cases tell.

    Args:
        n_present, n_absent, n_unlabelled: cases of each state.
        n_outside: cases in which it lies outside the image.
        neighbour: the landmark that is nearest to it in most cases.
        neighbour_mm: median distance to the nearest other landmark of the case.
        sd_mm: how far off the mean place relative to the image is, for a case left out; standard deviation along one axis.
        sd_from_others_mm: the same of its prediction from the other landmarks of the case (`predictability`).
        rho: share of the variance that the others explain, 1 - (sd_from_others_mm / sd_mm)²; below 0 where they tell nothing.
        kappa: neighbour_mm / sd_from_others_mm, at most 1000: above about 2 the others tell it from its neighbour.
    """

    name: str
    n_present: int
    n_absent: int
    n_unlabelled: int
    n_outside: int
    neighbour: str | None
    neighbour_mm: float | None
    sd_mm: float | None
    sd_from_others_mm: float | None
    rho: float | None
    kappa: float | None


@dataclass(frozen=True)
class LandmarkStatistics:
    """All landmarks over all cases.

    Args:
        absent, unlabelled: share of all landmarks of all cases that the anatomy lacks, and of which nothing is known.
        extent_mm: along (z, y, x), how far the landmarks of a case spread; 95th percentile of the cases with two or more.
        diameter_mm: the same of the largest distance between two of them.
        close_mm: how far from its nearest neighbour a landmark is that is closer to it than nine in ten; None without neighbours.
        median_rho, median_kappa: over the landmarks; None where it is None for all of them.
        distance_mm: between two landmarks, median over pairs of the mean over cases; None without a pair.
        distance_variation: standard deviation over cases of that distance, as a share of it; median over the pairs that three
            cases show, None without one.
    """

    n_cases: int
    absent: float
    unlabelled: float
    extent_mm: tuple[float, float, float]
    diameter_mm: float
    close_mm: float | None
    median_rho: float | None
    median_kappa: float | None
    landmarks: tuple[PointFacts, ...]
    distance_mm: float | None = None
    distance_variation: float | None = None


def place_points(name: str, landmarks: Landmarks, grid: Grid) -> CasePoints:
    """The landmarks of a case relative to its image."""
    axes = grid.canonical_axes()
    canonical = grid.reoriented(axes)
    places = (canonical.world_to_index(landmarks.points_mm) - (np.array(canonical.shape) - 1) / 2) * canonical.spacing
    return CasePoints(
        name=name,
        spacing=canonical.spacing,
        shape=canonical.shape,
        state=tuple(int(s) for s in landmarks.state),
        points=tuple(tuple(p.tolist()) if there else None for p, there in zip(places, landmarks.present)),
    )


def measure_landmarks(names: Sequence[str], cases: Sequence[CasePoints]) -> LandmarkStatistics:
    """The facts of landmarks `names` over `cases`, every one of which has them in that order.

    Raises:
        LabelError: a case has another number of landmarks.
    """
    for case in cases:
        if len(case.state) != len(names):
            raise LabelError("a case has other landmarks", case=case.name, found=len(case.state), allowed=len(names))
    state = np.array([case.state for case in cases], dtype=np.int64).reshape(len(cases), len(names))
    present = state == State.PRESENT
    points = np.array([case.places for case in cases]).reshape(len(cases), len(names), 3)
    deep = np.array([case.shape for case in cases]).reshape(-1, 3).max(0, initial=0) > 1
    spreads = sd_from_image(points[..., deep], present), sd_from_others(points[..., deep], present)
    sd, left = (np.array([_rounded(mm) for mm in spread]) for spread in spreads)
    neighbours = _neighbours(points)
    distance, variation = _pairwise(points)
    far = [case.present for case in cases if len(case.present) > 1]
    outside = np.array([case.outside for case in cases]).reshape(len(cases), len(names)).sum(0)
    facts = tuple(
        _facts(name, state[:, i], int(outside[i]), names, neighbours[0][:, i], neighbours[1][:, i], sd[i], left[i])
        for i, name in enumerate(names)
    )
    n_all = max(1, state.size)
    z, y, x = np.percentile([np.ptp(p, axis=0) for p in far], EXTENT_PERCENTILE, axis=0).tolist() if far else (0.0, 0.0, 0.0)
    return LandmarkStatistics(
        n_cases=len(cases),
        absent=np.count_nonzero(state == State.ABSENT) / n_all,
        unlabelled=np.count_nonzero(state == State.UNLABELLED) / n_all,
        extent_mm=(z, y, x),
        diameter_mm=float(np.percentile([_distances(p).max() for p in far], EXTENT_PERCENTILE)) if far else 0.0,
        close_mm=_quantile([p.neighbour_mm for p in facts], 0.1),
        median_rho=_quantile([p.rho for p in facts], 0.5),
        median_kappa=_quantile([p.kappa for p in facts], 0.5),
        landmarks=facts,
        distance_mm=distance,
        distance_variation=variation,
    )


def _pairwise(points: np.ndarray) -> tuple[float | None, float | None]:
    """Typical distance of two landmarks, and how much it varies from case to case.

    Args:
        points: (cases, N, 3), NaN unless present.
    """
    n = points.shape[1]
    total, squares, shown = (np.zeros((n, n)) for _ in range(3))
    for case in points:
        apart = _distances(case)
        known = np.isfinite(apart)
        shown += known
        total += np.where(known, apart, 0)
        squares += np.where(known, apart, 0) ** 2
    pairs = np.triu(np.ones((n, n), dtype=bool), 1)
    seen, often = (pairs & (shown >= least) for least in (1, FEWEST_TO_VARY))
    if not seen.any():
        return None, None
    mean = total[seen] / shown[seen]
    middle = _rounded(float(np.median(mean)))
    times, mean = shown[often], total[often] / shown[often]
    variance = (squares[often] / times - mean**2).clip(min=0) * times / (times - 1)
    apart_at_all = mean > 0
    if not apart_at_all.any():
        return middle, None
    return middle, _rounded(float(np.median(np.sqrt(variance[apart_at_all]) / mean[apart_at_all])))


def covisibility(cases: Sequence[CasePoints], patch_mm: Sequence[float]) -> float | None:
    """Share of the pairs of landmarks of a case that a patch around one of them, drawn at random, shows.

    The patch is moved so that it lies inside the image, as in training. None where no case has two landmarks.

    Args:
        patch_mm: along (z, y, x).
    """
    shares = []
    for case in cases:
        n, half = len(case.present), np.array(patch_mm) / 2
        if n < 2:
            continue
        inside = case.present.clip(-case.extent / 2, case.extent / 2)
        room = (case.extent / 2 - half).clip(0)
        centres = inside.clip(-room, room)
        off = np.abs(inside[None] - centres[:, None])
        shown = (off <= half * (1 + 1e-9)).all(-1).sum(1)
        shares.append((shown * (shown - 1)).mean() / (n * (n - 1)))
    return float(np.mean(shares)) if shares else None


def size_needed(cases: Sequence[CasePoints], patch_mm: Sequence[float], margin: float) -> np.ndarray:
    """(C,) how many times as large a patch must be to show all landmarks of a case at once, with that margin along every axis.

    A patch as large as the image shows all there is, so there the margin does not count.

    Args:
        patch_mm: along (z, y, x).
        margin: 1.2 for a patch 1.2 times as large as the landmarks spread.
    """
    needed: np.ndarray = (extent_needed(cases, margin) / np.array(patch_mm)).max(1)
    return needed


def extent_needed(cases: Sequence[CasePoints], margin: float) -> np.ndarray:
    """(C, 3) mm along (z, y, x) that a patch needs for all landmarks of a case, with that margin; never more than the image."""
    spread = np.array([np.ptp(c.present, axis=0) if len(c.present) else np.zeros(3) for c in cases]).reshape(-1, 3)
    extent = np.array([c.extent for c in cases]).reshape(-1, 3)
    needed: np.ndarray = np.minimum(margin * spread, extent)
    return needed


def _facts(
    name: str,
    state: np.ndarray,
    n_outside: int,
    names: Sequence[str],
    nearest: np.ndarray,
    distance: np.ndarray,
    sd: float,
    left: float,
) -> PointFacts:
    """
    Args:
        state, nearest, distance: (C,) of the landmark; the number of its neighbour, -1 for none, and how far that is, mm.
        sd, left: mm; NaN where unknown.
    """
    known = nearest >= 0
    neighbour_mm = float(np.median(distance[known])) if known.any() else None
    kappa = None
    if neighbour_mm is not None and np.isfinite(left):
        kappa = min(MOST_KAPPA, float(neighbour_mm / left)) if left > 0 else MOST_KAPPA
    return PointFacts(
        name=name,
        n_present=int(np.count_nonzero(state == State.PRESENT)),
        n_absent=int(np.count_nonzero(state == State.ABSENT)),
        n_unlabelled=int(np.count_nonzero(state == State.UNLABELLED)),
        n_outside=n_outside,
        neighbour=names[int(np.bincount(nearest[known]).argmax())] if known.any() else None,
        neighbour_mm=neighbour_mm,
        sd_mm=float(sd) if np.isfinite(sd) else None,
        sd_from_others_mm=float(left) if np.isfinite(left) else None,
        rho=float(1 - (left / sd) ** 2) if np.isfinite(left) and sd > 0 else None,
        kappa=kappa,
    )


def _neighbours(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(C, N) number of the nearest other landmark of the case, -1 for none, and the distance to it, mm."""
    nearest, distance = np.full(points.shape[:2], -1), np.full(points.shape[:2], np.nan)
    for row, far, case in zip(nearest, distance, points):
        there = np.flatnonzero(np.isfinite(case).all(1))
        if len(there) > 1:
            table = _distances(case[there])
            np.fill_diagonal(table, np.inf)
            row[there], far[there] = there[table.argmin(1)], table.min(1)
    return nearest, distance


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _distances(points: np.ndarray) -> np.ndarray:
    """(n, n) mm between all of (n, 3) points."""
    table: np.ndarray = np.linalg.norm(points[:, None] - points[None], axis=-1)
    return table


def _quantile(values: Sequence[float | None], level: float) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.quantile(known, level)) if known else None
