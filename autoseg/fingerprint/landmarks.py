"""Statistics of landmarks: how often each is present, how far they spread, and how well each is
predicted from the others.

Everything is relative to the centre of the image and along its canonical (z, y, x) axes, as a patch
is.
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
MAX_KAPPA = 1000.0  # where the others tell a position exactly, as in made-up data
MIN_CASES_FOR_VARIATION = 3  # cases that tell how much a distance varies
SIGNIFICANT_DIGITS = 6  # of predicted deviations: further ones differ between processors, and so would fingerprints


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
        """Size of the image, (3,) mm from voxel edge to voxel edge."""
        return np.array(self.spacing) * self.shape

    @property
    def points_mm(self) -> np.ndarray:
        """The points as array, (N, 3) mm: a row for each landmark, NaN unless present."""
        return np.array([(np.nan,) * 3 if p is None else p for p in self.points]).reshape(-1, 3)

    @property
    def present_points(self) -> np.ndarray:
        """The points of the n landmarks that are present, (n, 3) mm, in order."""
        return np.array([p for p in self.points if p is not None]).reshape(-1, 3)

    @property
    def outside(self) -> np.ndarray:
        """Mask (N,) of the landmarks outside the image, farther than rounding can be: a millionth
        of the image.
        """
        excess = (np.abs(self.points_mm) - self.extent / 2).clip(0)
        outside: np.ndarray = np.linalg.norm(excess, axis=1) > 1e-6 * self.extent.max()  # NaN is not
        return outside

    @property
    def any_inside(self) -> bool:
        """True if a landmark lies in the image."""
        return int(np.count_nonzero(self.outside)) < len(self.present_points)


@dataclass(frozen=True)
class PointStatistics:
    """One landmark over all cases. None where too few cases tell.

    Args:
        n_present, n_absent, n_unlabelled: cases of each state.
        n_outside: cases in which it lies outside the image.
        neighbour: the landmark that is nearest to it in most cases.
        neighbour_mm: median distance to the nearest other landmark of the case.
        sd_mm: error of the mean position relative to the image, for a case left out; standard
            deviation along one axis.
        sd_from_others_mm: error of its prediction from the other landmarks of the case
            (`predictability`), in the same way.
        rho: share of the variance that the others explain, 1 - (sd_from_others_mm / sd_mm)²; below
            0 where they tell nothing.
        kappa: neighbour_mm / sd_from_others_mm, at most 1000: above about 2 the others tell it from
            its neighbour.
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
        absent_share, unlabelled_share: share of all landmarks of all cases that the anatomy lacks,
            and of which nothing is known.
        extent_mm: along (z, y, x), how far the landmarks of a case spread; 95th percentile of the
            cases with two or more.
        diameter_mm: largest distance between two landmarks of a case; 95th percentile of these
            cases.
        neighbour_mm_p10: 10th percentile of `neighbour_mm` over the landmarks; None without
            neighbours.
        median_rho, median_kappa: over the landmarks; None where it is None for all of them.
        distance_mm: between two landmarks, median over pairs of the mean over cases; None without a
            pair.
        distance_variation: standard deviation over cases of that distance, as a share of it; median
            over the pairs that three cases show, None without one.
    """

    n_cases: int
    absent_share: float
    unlabelled_share: float
    extent_mm: tuple[float, float, float]
    diameter_mm: float
    neighbour_mm_p10: float | None
    median_rho: float | None
    median_kappa: float | None
    landmarks: tuple[PointStatistics, ...]
    distance_mm: float | None = None
    distance_variation: float | None = None


def case_points(name: str, landmarks: Landmarks, grid: Grid) -> CasePoints:
    """The landmarks of a case relative to its image."""
    axes = grid.canonical_axes()
    canonical = grid.reoriented(axes)
    points = (canonical.world_to_index(landmarks.points_mm) - (np.array(canonical.shape) - 1) / 2) * canonical.spacing
    return CasePoints(
        name=name,
        spacing=canonical.spacing,
        shape=canonical.shape,
        state=tuple(int(s) for s in landmarks.state),
        points=tuple(tuple(p.tolist()) if present else None for p, present in zip(points, landmarks.present)),
    )


def measure_landmarks(names: Sequence[str], cases: Sequence[CasePoints]) -> LandmarkStatistics:
    """Statistics of the landmarks `names` over `cases`, every one of which has them in that order.

    Raises:
        LabelError: a case has another number of landmarks.
    """
    for case in cases:
        if len(case.state) != len(names):
            raise LabelError("a case has other landmarks", case=case.name, found=len(case.state), allowed=len(names))
    state = np.array([case.state for case in cases], dtype=np.int64).reshape(len(cases), len(names))
    present = state == State.PRESENT
    points = np.array([case.points_mm for case in cases]).reshape(len(cases), len(names), 3)
    volume_axes = np.array([case.shape for case in cases]).reshape(-1, 3).max(0, initial=0) > 1
    sd, residual = (
        [_rounded(mm) for mm in measure(points[..., volume_axes], present)] for measure in (sd_from_image, sd_from_others)
    )
    neighbours, neighbour_mm = _nearest_neighbours(points)
    distance, variation = _pairwise_distance(points)
    outside = np.array([case.outside for case in cases]).reshape(len(cases), len(names)).sum(0)
    landmarks = tuple(
        _point_statistics(
            name,
            state[:, i],
            n_outside=int(outside[i]),
            neighbour=_most_frequent(neighbours[:, i], names),
            neighbour_mm=neighbour_mm[neighbours[:, i] >= 0, i],
            sd=sd[i],
            residual=residual[i],
        )
        for i, name in enumerate(names)
    )
    several = [case.present_points for case in cases if len(case.present_points) > 1]
    z, y, x = (0.0, 0.0, 0.0)
    if several:
        z, y, x = np.percentile([np.ptp(p, axis=0) for p in several], EXTENT_PERCENTILE, axis=0).tolist()
    n_states = max(1, state.size)
    return LandmarkStatistics(
        n_cases=len(cases),
        absent_share=np.count_nonzero(state == State.ABSENT) / n_states,
        unlabelled_share=np.count_nonzero(state == State.UNLABELLED) / n_states,
        extent_mm=(z, y, x),
        diameter_mm=float(np.percentile([_distances(p).max() for p in several], EXTENT_PERCENTILE)) if several else 0.0,
        neighbour_mm_p10=_quantile([p.neighbour_mm for p in landmarks], 0.1),
        median_rho=_quantile([p.rho for p in landmarks], 0.5),
        median_kappa=_quantile([p.kappa for p in landmarks], 0.5),
        landmarks=landmarks,
        distance_mm=distance,
        distance_variation=variation,
    )


def _point_statistics(
    name: str,
    state: np.ndarray,
    *,
    n_outside: int,
    neighbour: str | None,
    neighbour_mm: np.ndarray,
    sd: float,
    residual: float,
) -> PointStatistics:
    """Statistics of one landmark.

    Args:
        state: (C,) in each case.
        neighbour: the landmark that is nearest to it in most cases.
        neighbour_mm: distance to the nearest other landmark, in the cases with one.
        sd, residual: error of the mean position, and of the prediction from the others, mm; NaN
            where unknown.
    """
    distance = float(np.median(neighbour_mm)) if neighbour_mm.size else None
    kappa = None
    if distance is not None and np.isfinite(residual):
        kappa = min(MAX_KAPPA, float(distance / residual)) if residual > 0 else MAX_KAPPA
    return PointStatistics(
        name=name,
        n_present=int(np.count_nonzero(state == State.PRESENT)),
        n_absent=int(np.count_nonzero(state == State.ABSENT)),
        n_unlabelled=int(np.count_nonzero(state == State.UNLABELLED)),
        n_outside=n_outside,
        neighbour=neighbour,
        neighbour_mm=distance,
        sd_mm=float(sd) if np.isfinite(sd) else None,
        sd_from_others_mm=float(residual) if np.isfinite(residual) else None,
        rho=float(1 - (residual / sd) ** 2) if np.isfinite(residual) and sd > 0 else None,
        kappa=kappa,
    )


def _pairwise_distance(points: np.ndarray) -> tuple[float | None, float | None]:
    """Typical distance of two landmarks, and how much it varies from case to case; see
    `LandmarkStatistics`.

    Args:
        points: (cases, N, 3), NaN unless present.
    """
    n = points.shape[1]
    total, squares, n_cases = (np.zeros((n, n)) for _ in range(3))
    for case in points:
        distance = _distances(case)
        measured = np.isfinite(distance)
        n_cases += measured
        total += np.where(measured, distance, 0)
        squares += np.where(measured, distance, 0) ** 2
    pairs = np.triu(np.ones((n, n), dtype=bool), 1)
    in_one_case, in_several = (pairs & (n_cases >= least) for least in (1, MIN_CASES_FOR_VARIATION))
    if not in_one_case.any():
        return None, None
    typical = _rounded(float(np.median(total[in_one_case] / n_cases[in_one_case])))
    times, mean = n_cases[in_several], total[in_several] / n_cases[in_several]
    variance = (squares[in_several] / times - mean**2).clip(min=0) * times / (times - 1)
    distinct = mean > 0
    if not distinct.any():
        return typical, None
    return typical, _rounded(float(np.median(np.sqrt(variance[distinct]) / mean[distinct])))


def covisibility(cases: Sequence[CasePoints], patch_mm: Sequence[float]) -> float | None:
    """Share of the pairs of landmarks of a case that a patch around one of them, drawn at random,
    shows.

    The patch is moved so that it lies inside the image, as in training. None where no case has two
    landmarks.

    Args:
        patch_mm: along (z, y, x).
    """
    shares = []
    half_patch = np.array(patch_mm) / 2
    for case in cases:
        n = len(case.present_points)
        if n < 2:
            continue
        points = case.present_points.clip(-case.extent / 2, case.extent / 2)
        max_shift = (case.extent / 2 - half_patch).clip(0)
        centres = points.clip(-max_shift, max_shift)
        offsets = np.abs(points[None] - centres[:, None])
        n_shown = (offsets <= half_patch * (1 + 1e-9)).all(-1).sum(1)
        shares.append((n_shown * (n_shown - 1)).mean() / (n * (n - 1)))
    return float(np.mean(shares)) if shares else None


def patch_scale_needed(cases: Sequence[CasePoints], patch_mm: Sequence[float], margin: float) -> np.ndarray:
    """Factor (C,) by which a patch must grow to show all landmarks of a case at once, with that
    margin along every axis.

    A patch as large as the image shows all there is, so there the margin does not count.

    Args:
        patch_mm: along (z, y, x).
        margin: 1.2 for a patch 1.2 times as large as the landmarks spread.
    """
    scale: np.ndarray = (extent_needed(cases, margin) / np.array(patch_mm)).max(1)
    return scale


def extent_needed(cases: Sequence[CasePoints], margin: float) -> np.ndarray:
    """Extent (C, 3) mm of a patch for all landmarks of a case, with that margin; never more than
    the image's.

    Along (z, y, x).
    """
    extents = [np.ptp(c.present_points, axis=0) if len(c.present_points) else np.zeros(3) for c in cases]
    images = np.array([c.extent for c in cases]).reshape(-1, 3)
    needed: np.ndarray = np.minimum(margin * np.array(extents).reshape(-1, 3), images)
    return needed


def _nearest_neighbours(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index (C, N) of the nearest other landmark of the case, -1 for none, and the distance to it,
    mm.
    """
    neighbours, neighbour_mm = np.full(points.shape[:2], -1), np.full(points.shape[:2], np.nan)
    for row, row_mm, case in zip(neighbours, neighbour_mm, points):
        present = np.flatnonzero(np.isfinite(case).all(1))
        if len(present) > 1:
            table = _distances(case[present])
            np.fill_diagonal(table, np.inf)
            row[present], row_mm[present] = present[table.argmin(1)], table.min(1)
    return neighbours, neighbour_mm


def _most_frequent(indices: np.ndarray, names: Sequence[str]) -> str | None:
    """The name whose index occurs most often, of equals the first name; None without any index of 0
    or more.
    """
    counts = np.bincount(indices[indices >= 0])
    return names[int(counts.argmax())] if counts.size else None


def _rounded(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def _distances(points: np.ndarray) -> np.ndarray:
    """Distance (n, n) mm between all of (n, 3) points."""
    table: np.ndarray = np.linalg.norm(points[:, None] - points[None], axis=-1)
    return table


def _quantile(values: Sequence[float | None], level: float) -> float | None:
    numbers = [v for v in values if v is not None]
    return float(np.quantile(numbers, level)) if numbers else None
