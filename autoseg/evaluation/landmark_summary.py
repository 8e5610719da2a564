"""Scores of landmarks over all cases: errors, rates and counts, with intervals of a bootstrap over cases.

The table in `landmark_metrics` says what counts when a landmark is missed, extra or unlabelled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

from autoseg.errors import UsageError
from autoseg.evaluation.bootstrap import interval, resample_weights
from autoseg.evaluation.landmark_metrics import ROUNDING, CasePointScores
from autoseg.imaging.landmarks import Unit
from autoseg.system.workers import CaseReport

RADII: dict[Unit, tuple[float, ...]] = {"mm": (1.0, 2.0, 2.5, 3.0, 4.0), "px": (10.0, 20.0, 25.0, 30.0, 40.0)}
"""2, 2.5, 3 and 4 mm: Wang et al., IEEE TMI 2015. Their skull X-rays have pixels of 0.1 mm, so these radii
are 20 to 40 pixels."""
IDENTIFIED_MM = 20.0  # Glocker et al., MICCAI 2012, for vertebrae


@dataclass(frozen=True)
class ErrorStatistics:
    """Distribution of the errors of `n` predictions that have a reference.

    `sd` is that of a sample (n - 1); None where there are too few.
    """

    n: int
    mean: float | None
    sd: float | None
    median: float | None
    p90: float | None
    p95: float | None
    max: float | None


@dataclass(frozen=True)
class Estimate:
    """A mean or a rate with the 95 % interval of a bootstrap over cases; None where undefined, no interval of one case."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class PresenceScores:
    """Precision, recall and F1 of predicting that a landmark is present; None where the denominator is 0."""

    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class PointSummary:
    """One landmark over all cases.

    Args:
        n_reference, n_predicted: cases in which it is present, and in which it was predicted; unlabelled cases are left out.
        mean: of the errors, with its interval.
        detected: share of the references found within each radius of the report.
        identified: share of the references whose prediction is nearest to them and within 20 mm; None in pixels.
        identified_near: the same share within `near`, half the median distance to the nearest other
            landmark; None without others.
        swapped: share of the predictions with a reference that are nearer to another reference;
            `swap_partner` is the most frequent one.
    """

    landmark: str
    n_reference: int
    n_predicted: int
    missed: int
    extra: int
    mean: Estimate
    errors: ErrorStatistics
    errors_voxels: ErrorStatistics
    detected: tuple[float | None, ...]
    identified: float | None
    identified_near: float | None
    near: float | None
    swapped: float | None
    swap_partner: str | None
    presence: PresenceScores


@dataclass(frozen=True)
class LandmarkSummary:
    """All landmarks over all cases; rates as in `PointSummary`.

    Args:
        unit: of errors and radii.
        mean_micro: over all predictions with a reference.
        mean_macro: over the landmarks, of the mean of each.
        mean_cases: over the cases, of the mean of each.
        errors, errors_voxels: over all predictions with a reference.
    """

    n_cases: int
    n_reference: int
    n_predicted: int
    missed: int
    extra: int
    unit: Unit
    radii: tuple[float, ...]
    mean_micro: Estimate
    mean_macro: Estimate
    mean_cases: Estimate
    errors: ErrorStatistics
    errors_voxels: ErrorStatistics
    detected: tuple[Estimate, ...]
    identified: Estimate
    identified_near: Estimate
    swapped: Estimate
    presence: PresenceScores
    landmarks: tuple[PointSummary, ...]


@dataclass(frozen=True)
class LandmarkReport(CaseReport):
    """The summary and the cases behind it."""

    summary: LandmarkSummary
    cases: tuple[CasePointScores, ...]

    @property
    def n_cases(self) -> int:
        return len(self.cases)


def parse_radii(text: str) -> tuple[float, ...]:
    """Parse the radii that a user lists: '2,2.5,4'.

    Raises:
        UsageError: anything but numbers above 0.
    """
    try:
        radii = tuple(float(word) for word in text.split(","))
    except ValueError:
        radii = ()
    if not radii or not all(r > 0 and isfinite(r) for r in radii):
        raise UsageError("radii must be numbers above 0", found=text, allowed="such as 2,2.5,4")
    return radii


def summarize_points(
    cases: Sequence[CasePointScores], names: Sequence[str], radii: Sequence[float] | None = None, unit: Unit = "mm"
) -> LandmarkReport:
    """Summarise the scores of cases in a report.

    Args:
        names: of the landmarks that every case was scored for.
        radii: within which a landmark counts as found, in the unit; None for `RADII`.
        unit: of the errors; in pixels nothing is identified within 20 mm.

    Raises:
        UsageError: no radius, or one that is not above 0.
    """
    radii = RADII[unit] if radii is None else radii
    if not radii or not all(r > 0 and isfinite(r) for r in radii):
        raise UsageError("landmarks are found within radii", found=tuple(radii), allowed=f"one or more above 0 {unit}")
    radii = tuple(sorted({float(r) for r in radii}))
    table = _Table(cases, names)
    near = [_half_median(table.neighbour[:, i]) for i in range(len(names))]
    within = np.array([np.nan if n is None else n for n in near])
    detected = [table.found_within(r) for r in radii]
    identified = table.found_within(IDENTIFIED_MM) & table.nearest_to_own
    identified_near = table.found_within(within) & table.nearest_to_own
    counted_near = table.reference & np.isfinite(within)
    landmarks = []
    for i, name in enumerate(names):
        errors = table.error[:, i]
        landmarks.append(
            PointSummary(
                landmark=name,
                n_reference=table.count(table.reference[:, i]),
                n_predicted=table.count((table.both | table.extra)[:, i]),
                missed=table.count(table.missed[:, i]),
                extra=table.count(table.extra[:, i]),
                mean=_ratio(errors, table.both[:, i]),
                errors=_errors(errors),
                errors_voxels=_errors(table.voxels[:, i]),
                detected=tuple(_share(d[:, i], table.reference[:, i]) for d in detected),
                identified=_share(identified[:, i], table.reference[:, i]) if unit == "mm" else None,
                identified_near=_share(identified_near[:, i], counted_near[:, i]),
                near=near[i],
                swapped=_share((table.both & ~table.nearest_to_own)[:, i], table.both[:, i]),
                swap_partner=_partner(name, [c.points[i].nearest for c in cases]),
                presence=_presence(table.both[:, i], table.missed[:, i], table.extra[:, i]),
            )
        )
    summary = LandmarkSummary(
        n_cases=len(cases),
        n_reference=table.count(table.reference),
        n_predicted=table.count(table.both | table.extra),
        missed=table.count(table.missed),
        extra=table.count(table.extra),
        unit=unit,
        radii=radii,
        mean_micro=_ratio(table.error, table.both),
        mean_macro=_macro(table.error, table.both),
        mean_cases=_over_cases(table.error, table.both),
        errors=_errors(table.error),
        errors_voxels=_errors(table.voxels),
        detected=tuple(_ratio(d, table.reference) for d in detected),
        identified=_ratio(identified, table.reference) if unit == "mm" else Estimate(None, None, None),
        identified_near=_ratio(identified_near, counted_near),
        swapped=_ratio(table.both & ~table.nearest_to_own, table.both),
        presence=_presence(table.both, table.missed, table.extra),
        landmarks=tuple(landmarks),
    )
    return LandmarkReport(summary, tuple(cases))


class _Table:
    """Scores as (C, N) arrays: errors and distances with NaN where undefined, states as booleans."""

    def __init__(self, cases: Sequence[CasePointScores], names: Sequence[str]) -> None:
        shape = (len(cases), len(names))
        points = [p for c in cases for p in c.points]
        state = np.array([p.state for p in points], dtype=object).reshape(shape)
        self.both, self.missed, self.extra = state == "both", state == "missed", state == "extra"
        self.reference = self.both | self.missed
        self.error = _numbers([p.error for p in points]).reshape(shape)
        self.voxels = _numbers([p.error_voxels for p in points]).reshape(shape)
        self.neighbour = _numbers([p.neighbour for p in points]).reshape(shape)
        self.nearest_to_own = np.array([p.nearest == p.landmark for p in points], dtype=bool).reshape(shape)

    def found_within(self, radius: float | np.ndarray) -> np.ndarray:
        """Mask (C, N) of the errors within a radius; NaN as error or radius is within nothing."""
        mask: np.ndarray = self.error <= radius * ROUNDING
        return mask

    @staticmethod
    def count(flags: np.ndarray) -> int:
        return int(np.count_nonzero(flags))


def _numbers(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values], dtype=np.float64)


def _half_median(distances: np.ndarray) -> float | None:
    defined = distances[np.isfinite(distances)]
    return float(np.median(defined)) / 2 if defined.size else None


def _errors(values: np.ndarray) -> ErrorStatistics:
    defined = values[np.isfinite(values)]
    if not defined.size:
        return ErrorStatistics(0, None, None, None, None, None, None)
    median, p90, p95 = (float(q) for q in np.percentile(defined, (50, 90, 95)))
    sd = float(defined.std(ddof=1)) if defined.size > 1 else None
    return ErrorStatistics(defined.size, float(defined.mean()), sd, median, p90, p95, float(defined.max()))


def _share(hits: np.ndarray, counted: np.ndarray) -> float | None:
    n = np.count_nonzero(counted)
    return float(np.count_nonzero(hits & counted) / n) if n else None


def _partner(name: str, nearest: Sequence[str | None]) -> str | None:
    others = Counter(n for n in nearest if n not in (None, name))
    return others.most_common(1)[0][0] if others else None


def _presence(both: np.ndarray, missed: np.ndarray, extra: np.ndarray) -> PresenceScores:
    tp, fn, fp = (int(np.count_nonzero(flags)) for flags in (both, missed, extra))
    return PresenceScores(
        precision=tp / (tp + fp) if tp + fp else None,
        recall=tp / (tp + fn) if tp + fn else None,
        f1=2 * tp / (2 * tp + fp + fn) if tp + fp + fn else None,
    )


def _ratio(values: np.ndarray, counted: np.ndarray) -> Estimate:
    """Estimate the mean of the counted values of (C, …)."""
    rest = tuple(range(1, counted.ndim))
    return _estimate(np.where(counted, values, 0.0).sum(rest)[:, None], counted.sum(rest)[:, None])


def _macro(values: np.ndarray, counted: np.ndarray) -> Estimate:
    """Estimate the mean over landmarks of each one's mean over cases; landmarks that a resample lacks do not count in it."""
    return _estimate(np.where(counted, values, 0.0), counted)


def _over_cases(values: np.ndarray, counted: np.ndarray) -> Estimate:
    """Estimate the mean over cases of each one's mean over landmarks."""
    numbers = counted.sum(1)
    scored = numbers > 0
    means = np.where(counted, values, 0.0).sum(1)[scored] / numbers[scored]
    return _ratio(means, np.ones(len(means), dtype=bool))


def _estimate(sums: np.ndarray, numbers: np.ndarray) -> Estimate:
    """Estimate the mean over M groups of sum / number from (C, M) sums and numbers of each case, with resampled cases."""
    numbers = numbers.astype(np.float64)
    value = float(_mean_of_means(sums.sum(0), numbers.sum(0)))
    if not isfinite(value):
        return Estimate(None, None, None)
    if len(sums) == 1:
        return Estimate(value, None, None)
    weights = resample_weights(len(sums))
    resampled = _mean_of_means(weights @ sums, weights @ numbers)
    return Estimate(value, *interval(resampled[np.isfinite(resampled)]))


def _mean_of_means(sums: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Mean of sums / numbers over the last axis; NaN where every number is 0."""
    defined = numbers > 0
    means = np.divide(sums, numbers, out=np.zeros_like(sums), where=defined)
    groups = defined.sum(-1)
    mean: np.ndarray = np.divide(means.sum(-1), groups, out=np.full(groups.shape, np.nan), where=groups > 0)
    return mean
