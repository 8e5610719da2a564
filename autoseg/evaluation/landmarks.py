"""Predicted landmarks against reference landmarks: tables by case and by landmark, a summary with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autoseg.errors import AutosegError, DataError, UsageError
from autoseg.evaluation.landmark_metrics import CasePointScores, score_points
from autoseg.evaluation.landmark_summary import RADII, Estimate, LandmarkReport, LandmarkSummary, PointSummary, summarize_points
from autoseg.imaging.geometry import Grid
from autoseg.imaging.landmarks import Landmarks, Unit
from autoseg.system.files import write_text
from autoseg.system.progress import number_of
from autoseg.system.records import to_json
from autoseg.system.tables import aligned, csv_text, rounded
from autoseg.system.workers import Failure

STAGE = "evaluate"
SHOWN_RADII = {"mm": (2.0, 4.0), "px": (20.0, 40.0)}  # of `RADII`, in tables for people; other radii are all shown
PER_CASE, PER_LANDMARK, SUMMARY = "landmarks_per_case.csv", "landmarks_summary.csv", "landmarks_summary.json"
_CASE_COLUMNS = ("landmark", "state", "error", "error_voxels", "nearest")


@dataclass(frozen=True)
class ComparedLandmarks:
    """Reference and prediction of a case, and the grid of the image that both belong to."""

    name: str
    reference: Landmarks
    prediction: Landmarks
    grid: Grid


def evaluate_landmarks(
    cases: Iterable[ComparedLandmarks | Failure], out: Path, *, radii: Sequence[float] | None = None, unit: Unit = "mm"
) -> LandmarkReport:
    """Score every case, taking one at a time.

    Writes to the folder `out`: `landmarks_per_case.csv` (one row per case and landmark, empty where
    undefined), `landmarks_summary.csv` (one row per landmark) and `landmarks_summary.json`. The table in
    `landmark_metrics` says what counts when a landmark is missing.

    Args:
        cases: a case that cannot be compared is a failure, which the report lists.
        radii, unit: see `landmark_summary.summarize_points`.

    Returns:
        The scores; `failures` lists those of `cases`, and cases whose landmarks are not those of the first one that was scored.

    Raises:
        UsageError: no case, or none that can be scored; radii as in `summarize_points`.
        DataError: the same case twice.
    """
    names: tuple[str, ...] | None = None
    failures: list[Failure] = []
    scored: dict[str, CasePointScores] = {}
    for case in cases:
        if isinstance(case, Failure):
            failures.append(case)
            continue
        if case.name in scored:
            raise DataError("two predictions of one case", case=case.name, fix="remove one")
        try:
            if names is not None and case.reference.names != names:
                raise DataError(
                    "the reference has other landmarks than those of the cases before it",
                    found=", ".join(case.reference.names),
                    allowed=", ".join(names),
                )
            scored[case.name] = CasePointScores(case.name, score_points(case.reference, case.prediction, case.grid))
        except AutosegError as error:
            error.case = error.case or case.name
            failures.append(Failure(case.name, STAGE, str(error)))
            continue
        names = case.reference.names
    if names is None:
        raise UsageError("no case with landmarks can be scored", found=failures[0].reason if failures else "no pair of files")
    report = summarize_points([scored[name] for name in sorted(scored)], names, radii, unit)
    report = replace(report, failures=tuple(failures))
    write_text(out / PER_CASE, _per_case(report.cases))
    write_text(out / PER_LANDMARK, _per_landmark(report.summary))
    write_text(out / SUMMARY, to_json(report.summary))
    return report


def landmark_table(report: LandmarkReport) -> str:
    """Summary as aligned plain text: one row per landmark, '--' where a metric is not defined in any case."""
    summary = report.summary
    unit = summary.unit
    is_default = summary.radii == RADII[unit]
    shown = [i for i, r in enumerate(summary.radii) if not is_default or r in SHOWN_RADII[unit]]
    within = [f"<={summary.radii[i]:g} {unit}" for i in shown]
    head = (
        "landmark",
        "n",
        "predicted",
        "missed",
        "extra",
        f"mean {unit}",
        "95 % CI",
        "SD",
        "median",
        "P95",
        "max",
        *within,
        "swapped",
    )
    rows: list[tuple[str, ...]] = [head]
    for p in summary.landmarks:
        errors = p.errors
        numbers = (_number(v) for v in (errors.sd, errors.median, errors.p95, errors.max))
        counts = map(str, (p.n_reference, p.n_predicted, p.missed, p.extra))
        rates = (_number(p.detected[i], "{:.1%}") for i in shown)
        rows.append((p.landmark, *counts, _number(p.mean.value), _interval(p.mean), *numbers, *rates, _swapped(p)))
    return "\n".join((*aligned(rows), *_overall(summary)))


def _overall(summary: LandmarkSummary) -> list[str]:
    """Lines of the table on all landmarks together."""
    unit, errors = summary.unit, summary.errors
    means = ", ".join(
        f"{_with_interval(e, '{:.3f}')} {what}"
        for e, what in (
            (summary.mean_macro, "over landmarks"),
            (summary.mean_micro, "over points"),
            (summary.mean_cases, "over cases"),
        )
    )
    rates = [(f"<={r:g} {unit}", e) for r, e in zip(summary.radii, summary.detected)]
    rates += [("identified within 20 mm", summary.identified), ("within half the way to the next", summary.identified_near)]
    lines = [
        f"mean error {unit} (95 % CI): {means}; {number_of(errors.n, 'point')} of {number_of(summary.n_cases, 'case')}",
        f"median {_number(errors.median)}, P90 {_number(errors.p90)}, P95 {_number(errors.p95)}, "
        f"max {_number(errors.max)} {unit}; mean {_number(summary.errors_voxels.mean)} voxels",
        "found: " + ", ".join(f"{name} {_with_interval(e, '{:.1%}')}" for name, e in rates if e.value is not None),
    ]
    presence = summary.presence
    lines.append(
        f"missed {summary.missed} of {summary.n_reference}, extra {summary.extra}, nearer to another "
        f"{_number(summary.swapped.value, '{:.1%}')}; presence: precision {_number(presence.precision)}, "
        f"recall {_number(presence.recall)}, F1 {_number(presence.f1)}"
    )
    return lines


def _per_case(cases: Sequence[CasePointScores]) -> str:
    rows = [rounded((case.case, *(getattr(p, column) for column in _CASE_COLUMNS))) for case in cases for p in case.points]
    return csv_text([("case", *_CASE_COLUMNS), *rows])


def _per_landmark(summary: LandmarkSummary) -> str:
    head = (
        "landmark",
        "n_reference",
        "n_predicted",
        "missed",
        "extra",
        "unit",
        "mean",
        "low",
        "high",
        "sd",
        "median",
        "p90",
        "p95",
    )
    radii = tuple(f"within_{r:g}" for r in summary.radii)
    tail = ("identified_20mm", "identified_near", "near", "swapped", "swap_partner", "precision", "recall", "f1")
    rows = []
    for p in summary.landmarks:
        e = p.errors
        counts = (p.landmark, p.n_reference, p.n_predicted, p.missed, p.extra, summary.unit)
        errors = (p.mean.value, p.mean.low, p.mean.high, e.sd, e.median, e.p90, e.p95, e.max, p.errors_voxels.mean)
        rates = (*p.detected, p.identified, p.identified_near, p.near, p.swapped, p.swap_partner)
        rows.append(rounded((*counts, *errors, *rates, p.presence.precision, p.presence.recall, p.presence.f1)))
    return csv_text([(*head, "max", "mean_voxels", *radii, *tail), *rows])


def _swapped(point: PointSummary) -> str:
    """Share of the predictions that are nearer to another landmark, and which one: '4.0% l12'."""
    return " ".join(word for word in (_number(point.swapped, "{:.1%}"), point.swap_partner) if word)


def _with_interval(estimate: Estimate, form: str) -> str:
    interval = _interval(estimate, form)
    return _number(estimate.value, form) + ("" if interval == "--" else f" ({interval})")


def _interval(estimate: Estimate, form: str = "{:.2f}") -> str:
    if estimate.low is None or estimate.high is None:
        return "--"
    return f"{form.format(estimate.low)}–{form.format(estimate.high)}"


def _number(value: float | None, form: str = "{:.2f}") -> str:
    return "--" if value is None else form.format(value)
