"""Predicted label maps against reference label maps: a table of every case, a summary with confidence intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autoseg.dataset import case_name
from autoseg.errors import DataError, GeometryError, UsageError
from autoseg.evaluation.bootstrap import interval, resample_weights
from autoseg.evaluation.metrics import NSD_TOLERANCE_MM, STATES, StructureScore, score_case
from autoseg.imaging.alignment import reordered
from autoseg.imaging.labels import LabelSet
from autoseg.io import IMAGE_ENDINGS, image_ending, read_label_map
from autoseg.system.files import write_text
from autoseg.system.progress import number_of
from autoseg.system.records import to_json
from autoseg.system.tables import aligned, csv_text, rounded
from autoseg.system.workers import CaseReport, CaseRun, Failure

STAGE = "evaluate"
METRICS = ("dice", "iou", "hd95_mm", "assd_mm", "nsd", "volume_error")
_COLUMNS = ("structure", "state", "dice", "iou", "hd95_mm", "assd_mm", "nsd", "volume_reference_mm3", "volume_prediction_mm3")


@dataclass(frozen=True)
class Distribution:
    """A metric over the `n` cases in which it is defined; `low` and `high` bound the 95 % bootstrap interval of the mean.

    `std` is that of a sample (n - 1). None where there are too few cases: no mean of none, no
    deviation of one.
    """

    n: int
    mean: float | None
    std: float | None
    median: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class StructureSummary:
    """One structure over all cases: counts of cases by state (see `metrics`), and every metric."""

    structure: str
    n_both: int
    n_missed: int
    n_extra: int
    n_absent: int
    dice: Distribution
    iou: Distribution
    hd95_mm: Distribution
    assd_mm: Distribution
    nsd: Distribution
    volume_error: Distribution


@dataclass(frozen=True)
class Summary:
    """Content of summary.json. `mean_dice` is the mean over structures of their mean Dice, None if no structure occurs."""

    n_cases: int
    tolerance_mm: float
    mean_dice: float | None
    structures: tuple[StructureSummary, ...]


@dataclass(frozen=True)
class CaseScore:
    """One case: a score for each structure, in the order of the label set."""

    case: str
    structures: tuple[StructureScore, ...]


@dataclass(frozen=True)
class Report(CaseReport):
    """The summary and the cases behind it, ordered by name."""

    summary: Summary
    cases: tuple[CaseScore, ...]

    @property
    def n_cases(self) -> int:
        """Number of the cases that were compared."""
        return len(self.cases)


@dataclass(frozen=True)
class _ComparedFiles:
    name: str
    reference: Path
    prediction: Path


def evaluate_label_maps(
    references: Path | Mapping[str, Path],
    predictions: Path,
    labels: LabelSet,
    *,
    out: Path,
    tolerance_mm: float = NSD_TOLERANCE_MM,
    workers: int | None = None,
    only_predicted: bool = False,
) -> Report:
    """Score every reference label map against the prediction of the same case name.

    Writes `per_case.csv` (one row per case and structure, empty where undefined) and `summary.json` to
    the folder `out`. A missed or extra structure counts as Dice 0, an absent one does not count (see
    `metrics`). Predictions without a reference are ignored.

    Args:
        references, predictions: folders of label maps; formats may differ. References also by case name.
        tolerance_mm: of the normalised surface Dice; `metrics.NSD_TOLERANCE_MM` unless the dataset has its own.
        workers: threads, as in `CaseRun`.
        only_predicted: references without a prediction are no failures, as when one fold of a dataset was predicted.

    Returns:
        The scores; `failures` lists references without a prediction, unreadable files and label maps
        on different grids.

    Raises:
        UsageError: a folder is missing, holds no label map, or no case name is in both; a tolerance below 0.
        DataError: two files of one folder have the same case name.
    """
    if tolerance_mm < 0:
        raise UsageError("the tolerance of NSD must not be negative", found=tolerance_mm, allowed="0 mm or more")
    expected = _label_files(references) if isinstance(references, Path) else dict(references)
    predicted = _label_files(predictions)
    compared = [_ComparedFiles(name, path, predicted[name]) for name, path in expected.items() if name in predicted]
    if not compared:
        raise UsageError(
            "no prediction has the name of a reference",
            file=predictions,
            found=", ".join(list(predicted)[:5]),
            allowed=", ".join(list(expected)[:5]),
            fix="name each prediction like its reference, apart from the file ending",
        )
    missing = () if only_predicted else [name for name in expected if name not in predicted]
    reason = f"no prediction; file: {predictions}; fix: predict this case, or leave out -r"
    unpredicted = tuple(Failure(name, STAGE, f"case {name}: {reason}") for name in missing)

    def work(files: _ComparedFiles) -> CaseScore:
        return CaseScore(files.name, _score_files(files, labels, tolerance_mm))

    run = CaseRun(work, compared, STAGE, workers=workers)
    scored = sorted(run.finish(), key=lambda c: c.case)
    report = replace(summarize(scored, labels, tolerance_mm), failures=(*unpredicted, *run.failures))
    write_text(out / "per_case.csv", _csv(report.cases))
    write_text(out / "summary.json", to_json(report.summary))
    return report


def summarize(cases: Sequence[CaseScore], labels: LabelSet, tolerance_mm: float) -> Report:
    """Summarise cases that are already scored with `metrics.score_case` in a report."""
    structures = tuple(_summarize(name, [c.structures[i] for c in cases]) for i, name in enumerate(labels.names))
    means = [s.dice.mean for s in structures if s.dice.mean is not None]
    mean_dice = float(np.mean(means)) if means else None
    return Report(Summary(len(cases), float(tolerance_mm), mean_dice, structures), tuple(cases))


def report_table(report: Report) -> str:
    """Summary as aligned plain text: one row of means per structure, '--' where a metric is not defined in any case."""
    summary = report.summary
    head = ("structure", *STATES, "Dice", "95 % CI", "IoU", "HD95 mm", "ASSD mm", "NSD", "volume error")
    rows: list[tuple[str, ...]] = [head]
    for s in summary.structures:
        counts = (str(n) for n in (s.n_both, s.n_missed, s.n_extra, s.n_absent))
        interval = "--" if s.dice.low is None else f"{s.dice.low:.3f}–{s.dice.high:.3f}"
        values = (_number(s.iou.mean), _number(s.hd95_mm.mean, "{:.2f}"), _number(s.assd_mm.mean, "{:.2f}"), _number(s.nsd.mean))
        rows.append((s.structure, *counts, _number(s.dice.mean), interval, *values, _number(s.volume_error.mean, "{:+.1%}")))
    n_cases, mean_dice = number_of(summary.n_cases, "case"), _number(summary.mean_dice, "{:.4f}")
    mean = f"mean Dice {mean_dice} over {n_cases}; NSD at {summary.tolerance_mm:g} mm"
    return "\n".join((*aligned(rows), mean))


def _label_files(folder: Path) -> dict[str, Path]:
    """Label maps of a folder by case name, ordered."""
    if not folder.is_dir():
        raise UsageError("no such folder", file=folder)
    files: dict[str, Path] = {}
    for path in sorted(p for p in folder.iterdir() if image_ending(p)):
        name = case_name(path)
        if name in files:
            raise DataError("two label maps of one case", case=name, file=path, found=files[name].name, fix="remove one")
        files[name] = path
    if not files:
        raise UsageError("no label map in the folder", file=folder, allowed=", ".join(IMAGE_ENDINGS))
    return files


def _score_files(files: _ComparedFiles, labels: LabelSet, tolerance_mm: float) -> tuple[StructureScore, ...]:
    reference = read_label_map(files.reference, labels)
    grid = reference.grid
    prediction = reordered(read_label_map(files.prediction, labels), grid)
    # more than a voxel apart, voxels are not compared with their counterparts; score_case refuses other shapes
    if prediction.grid.shape == grid.shape and (gap := prediction.grid.corner_distance(grid)) > min(grid.spacing):
        raise GeometryError(
            "prediction and reference lie on different grids",
            file=files.prediction,
            found=f"corners {gap:.3g} mm apart",
            allowed=f"at most one voxel, {min(grid.spacing):.3g} mm",
            fix="correct origin, spacing or direction in the header of one of them, or resample it onto the other",
        )
    return score_case(reference.data, prediction.data, labels, grid.spacing, tolerance_mm)


def _summarize(name: str, scores: Sequence[StructureScore]) -> StructureSummary:
    both, missed, extra, absent = (sum(s.state == state for s in scores) for state in STATES)
    distributions = {m: _distribution([v for s in scores if (v := getattr(s, m)) is not None]) for m in METRICS}
    return StructureSummary(name, both, missed, extra, absent, **distributions)


def _distribution(defined: Sequence[float]) -> Distribution:
    values, n = np.array(defined, dtype=np.float64), len(defined)
    if n == 0:
        return Distribution(0, None, None, None, None, None)
    mean, median = float(values.mean()), float(np.median(values))
    if n == 1:
        return Distribution(1, mean, None, median, None, None)
    return Distribution(n, mean, float(values.std(ddof=1)), median, *interval(resample_weights(n) @ values))


def _csv(cases: Sequence[CaseScore]) -> str:
    rows = [rounded((case.case, *(getattr(s, column) for column in _COLUMNS))) for case in cases for s in case.structures]
    return csv_text([("case", *_COLUMNS), *rows])


def _number(value: float | None, form: str = "{:.3f}") -> str:
    return "--" if value is None else form.format(value)
