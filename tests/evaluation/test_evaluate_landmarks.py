"""The report of landmarks: files, table and failures, and real cephalograms against themselves."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from autoseg.errors import DataError, UsageError
from autoseg.evaluation.folder import Evaluation
from autoseg.evaluation.landmark_summary import LandmarkSummary, parse_radii
from autoseg.evaluation.landmarks import ComparedLandmarks, evaluate_landmarks, landmark_table
from autoseg.imaging.geometry import Grid
from autoseg.imaging.landmarks import Landmarks, State
from autoseg.system.records import from_json

GRID = Grid.from_spacing((10, 20, 20), (2.0, 1.0, 0.5))
Point = tuple[float, float, float]


def marks(*points: Point | None, names: tuple[str, ...] = ("nose", "chin")) -> Landmarks:
    where = np.array([(np.nan,) * 3 if p is None else p for p in points])
    return Landmarks(names, where, np.array([State.ABSENT if p is None else State.PRESENT for p in points]))


def pair(name: str, reference: Landmarks, prediction: Landmarks) -> ComparedLandmarks:
    return ComparedLandmarks(name, reference, prediction, GRID)


REFERENCE = marks((0, 0, 0), (0, 0, 10))
B = pair("b", REFERENCE, marks((0, 0, 1), (0, 0, 12)))
A = pair("a", REFERENCE, marks((0, 0, 3), None))


def test_files_and_report(tmp_path: Path) -> None:
    report = evaluate_landmarks(iter((B, A)), tmp_path / "out")
    assert report.failures == ()
    assert ([c.case for c in report.cases], report.n_cases) == (["a", "b"], 2)
    path = tmp_path / "out" / "landmarks_summary.json"
    assert from_json(LandmarkSummary, path.read_text(encoding="utf-8"), path) == report.summary
    assert report.summary.radii == (1, 2, 2.5, 3, 4)
    assert (tmp_path / "out" / "landmarks_per_case.csv").read_text(encoding="utf-8").splitlines() == [
        "case,landmark,state,error,error_voxels,nearest",
        "a,nose,both,3.0,1.5,nose",
        "a,chin,missed,,,",
        "b,nose,both,1.0,0.5,nose",
        "b,chin,both,2.0,1.0,chin",
    ]
    nose, chin = csv.DictReader((tmp_path / "out" / "landmarks_summary.csv").read_text(encoding="utf-8").splitlines())
    assert " ".join(nose) == (
        "landmark n_reference n_predicted missed extra unit mean low high sd median p90 p95 max mean_voxels "
        "within_1 within_2 within_2.5 within_3 within_4 "
        "identified_20mm identified_near near swapped swap_partner precision recall f1"
    )
    assert [nose[k] for k in ("landmark", "n_reference", "unit", "mean", "low", "high", "sd", "max", "mean_voxels")] == (
        ["nose", "2", "mm", "2.0", "1.0", "3.0", "1.414214", "3.0", "1.0"]
    )
    assert [nose[f"within_{r}"] for r in ("1", "2", "2.5", "3", "4")] == ["0.5", "0.5", "0.5", "1.0", "1.0"]
    assert [chin[k] for k in ("n_predicted", "missed", "sd", "identified_near", "near", "swap_partner", "recall", "f1")] == (
        ["1", "1", "", "0.5", "5.0", "", "0.5", "0.666667"]
    )
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "landmarks_per_case.csv",
        "landmarks_summary.csv",
        "landmarks_summary.json",
    ]


def test_evaluation_is_printed_in_a_few_lines(tmp_path: Path) -> None:
    report = evaluate_landmarks(iter((B, A)), tmp_path)
    assert repr(Evaluation(None, report)).splitlines() == ["Evaluation of 2 cases", "  mean error 2 mm: nose 2, chin 2"]


def test_table(tmp_path: Path) -> None:
    swap = pair("c", REFERENCE, marks((0, 0, 9), (0, 0, 10)))
    lines = landmark_table(evaluate_landmarks((A, B, swap), tmp_path)).splitlines()
    words = [" ".join(line.split()) for line in lines]
    assert words[0] == "landmark n predicted missed extra mean mm 95 % CI SD median P95 max <=2 mm <=4 mm swapped"
    assert words[2] == "nose 3 3 0 0 4.33 1.00–9.00 4.16 3.00 8.40 9.00 33.3% 66.7% 33.3% chin"
    assert words[3] == "chin 3 2 1 0 1.00 0.00–2.00 1.41 1.00 1.90 2.00 66.7% 66.7% 0.0%"
    assert lines[1] == "-" * max(map(len, (lines[0], *lines[2:4])))
    assert words[4].startswith("mean error mm (95 % CI): 2.667 (")
    assert words[4].endswith(" over cases; 5 points of 3 cases")
    assert words[5] == "median 2.00, P90 6.60, P95 7.80, max 9.00 mm; mean 1.50 voxels"
    assert words[6].startswith("found: <=1 mm 33.3% (")
    assert "identified within 20 mm 66.7% (" in words[6]
    assert words[7] == "missed 1 of 6, extra 0, nearer to another 20.0%; presence: precision 1.00, recall 0.83, F1 0.91"


def test_table_of_pixels_other_radii_and_one_case(tmp_path: Path) -> None:
    lines = landmark_table(evaluate_landmarks((A,), tmp_path, radii=(10, 5), unit="px")).splitlines()
    words = [" ".join(line.split()) for line in lines]
    assert words[0] == "landmark n predicted missed extra mean px 95 % CI SD median P95 max <=5 px <=10 px swapped"
    assert words[2] == "nose 1 1 0 0 3.00 -- -- 3.00 3.00 3.00 100.0% 100.0% 0.0%"
    assert words[3] == "chin 1 0 1 0 -- -- -- -- -- -- 0.0% 0.0% --"
    assert words[4] == "mean error px (95 % CI): 3.000 over landmarks, 3.000 over points, 3.000 over cases; 1 point of 1 case"
    assert words[6] == "found: <=5 px 50.0%, <=10 px 50.0%, within half the way to the next 50.0%"


def test_usual_radii(tmp_path: Path) -> None:
    for unit, radii in (("mm", (1, 2, 2.5, 3, 4)), ("px", (10, 20, 25, 30, 40))):
        report = evaluate_landmarks((A,), tmp_path, unit=unit)  # type: ignore[arg-type]
        assert report.summary.radii == radii
        head = landmark_table(report).splitlines()[0]
        assert [f"<={r:g} {unit}" in head for r in radii] == [r in radii[1::3] for r in radii]


def test_radii_that_a_user_lists() -> None:
    assert parse_radii("2,2.5, 4") == (2, 2.5, 4)
    for text in ("", "two", "2,", "0,1", "-1", "inf", "nan"):
        with pytest.raises(UsageError, match=r"radii must be numbers above 0; found: .*allowed: such as 2,2\.5,4"):
            parse_radii(text)


def test_one_bad_case_is_listed_and_the_rest_is_scored(tmp_path: Path) -> None:
    other = marks((0, 0, 0), (0, 0, 0), names=("chin", "nose"))
    report = evaluate_landmarks((pair("x", REFERENCE, other), B, pair("y", other, other)), tmp_path)
    assert [c.case for c in report.cases] == ["b"]
    assert [(f.case, f.stage) for f in report.failures] == [("x", "evaluate"), ("y", "evaluate")]
    assert report.failures[0].reason.startswith("case x: prediction and reference have different landmarks; found: chin, nose")
    assert report.failures[1].reason.startswith(
        "case y: the reference has other landmarks than those of the cases before it; found: chin, nose"
    )


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="case b: two predictions of one case"):
        evaluate_landmarks((B, B), tmp_path)
    with pytest.raises(UsageError, match="no case with landmarks can be scored; found: no pair of files"):
        evaluate_landmarks((), tmp_path)
    other = marks((0, 0, 0), (0, 0, 0), names=("chin", "nose"))
    with pytest.raises(UsageError, match="no case with landmarks can be scored; found: case x: prediction and reference have"):
        evaluate_landmarks((pair("x", REFERENCE, other),), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.real
def test_real_cephalograms_moved_by_five_pixels(real_data, tmp_path: Path) -> None:
    rows = list(csv.DictReader((real_data("ceph") / "landmarks.csv").read_text(encoding="utf-8").splitlines()))
    names = tuple(dict.fromkeys(r["landmark"] for r in rows))
    grid = Grid.from_spacing((1, 1671, 1340), (1.0, 1.0, 1.0))
    pairs = []
    for case in dict.fromkeys(r["case"] for r in rows):
        known = {r["landmark"]: (float(r["x"]), float(r["y"]), 0.0) for r in rows if r["case"] == case}
        reference = marks(*(known.get(n) for n in names), names=names)
        prediction = Landmarks(names, reference.points_mm + (3.0, 4.0, 0.0), reference.state)
        pairs.append(ComparedLandmarks(case, reference, prediction, grid))
    summary = evaluate_landmarks(pairs, tmp_path, radii=(4, 5), unit="px").summary
    assert (summary.n_cases, summary.n_reference, summary.missed, summary.extra) == (32, len(rows), 0, 0)
    assert (summary.mean_macro.value, summary.errors.max, summary.errors.sd) == pytest.approx((5, 5, 0))
    assert [e.value for e in summary.detected] == [0, 1]
    assert summary.swapped.value == 0
