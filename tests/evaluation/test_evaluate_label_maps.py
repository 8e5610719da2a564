"""Evaluation of folders: small files made on the spot, the interval against scipy, and real label maps against themselves."""

import csv

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from autoseg.errors import DataError, UsageError
from autoseg.evaluation.label_maps import Summary, _distribution, evaluate_label_maps, report_table
from autoseg.imaging.labels import LabelSet
from autoseg.system.records import from_json

TWO = LabelSet(("liver", "tumour"), (1, 5))


def write(path, values, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0)):
    """A label file; `values` (Z, Y, X) file values, spacing and origin (x, y, z)."""
    path.parent.mkdir(exist_ok=True)
    image = sitk.GetImageFromArray(np.asarray(values, dtype=np.uint8))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    sitk.WriteImage(image, str(path))


def block(value: int, width: int = 4) -> np.ndarray:
    data = np.zeros((4, 6, 8), dtype=np.uint8)
    data[1:3, 1:5, 1 : 1 + width] = value
    return data


@pytest.fixture
def folders(tmp_path):
    return tmp_path / "references", tmp_path / "predictions", tmp_path / "out"


def run(folders, tolerance_mm=1.0, **options):
    references, predictions, out = folders
    return evaluate_label_maps(references, predictions, TWO, out=out, tolerance_mm=tolerance_mm, workers=0, **options)


def test_files_and_report(folders):
    references, predictions, out = folders
    write(references / "b.nii.gz", block(1) + 4 * (block(1) & block(1, 1)), spacing=(0.5, 1, 2))
    write(predictions / "b.nrrd", block(1), spacing=(0.5, 1, 2))
    write(references / "a.nii.gz", block(1, 4))
    write(predictions / "a.mha", block(1, 2))
    write(predictions / "not_asked_for.nii.gz", block(1))
    report = run(folders)
    assert report.failures == ()
    assert [c.case for c in report.cases] == ["a", "b"]
    liver, tumour = report.summary.structures
    assert (liver.n_both, liver.n_missed, liver.n_extra, liver.n_absent) == (2, 0, 0, 0)
    assert (tumour.n_both, tumour.n_missed, tumour.n_extra, tumour.n_absent) == (0, 1, 0, 1)
    assert liver.dice.mean == pytest.approx((2 / 3 + 48 / 56) / 2)
    assert (tumour.dice.n, tumour.dice.mean, tumour.dice.std, tumour.dice.low) == (1, 0.0, None, None)
    assert (tumour.hd95_mm.n, tumour.hd95_mm.mean) == (0, None)
    assert report.summary.mean_dice == pytest.approx(liver.dice.mean / 2)
    summary = out / "summary.json"
    assert from_json(Summary, summary.read_text(encoding="utf-8"), summary) == report.summary

    rows = list(csv.DictReader((out / "per_case.csv").read_text(encoding="utf-8").splitlines()))
    assert [(r["case"], r["structure"], r["state"]) for r in rows] == [
        ("a", "liver", "both"),
        ("a", "tumour", "absent"),
        ("b", "liver", "both"),
        ("b", "tumour", "missed"),
    ]
    columns = "case structure state dice iou hd95_mm assd_mm nsd volume_reference_mm3 volume_prediction_mm3"
    assert " ".join(rows[0]) == columns
    assert [rows[1][k] for k in ("dice", "iou", "hd95_mm", "assd_mm", "nsd")] == [""] * 5
    assert (float(rows[0]["dice"]), float(rows[0]["volume_reference_mm3"])) == (0.666667, 32)
    assert (float(rows[2]["volume_reference_mm3"]), float(rows[2]["volume_prediction_mm3"])) == (24, 32)
    assert sorted(p.name for p in out.iterdir()) == ["per_case.csv", "summary.json"]


def test_one_bad_case_is_listed_and_the_rest_is_scored(folders):
    references, predictions, _ = folders
    for name in ("good", "shape", "moved", "values", "gone"):
        write(references / f"{name}.nii.gz", block(1))
    write(predictions / "good.nii.gz", block(1))
    write(predictions / "shape.nii.gz", block(1)[:, :, :7])
    write(predictions / "moved.nii.gz", block(1), origin=(0, 0, 30.0))
    write(predictions / "values.nii.gz", block(2))
    report = run(folders)
    assert [c.case for c in report.cases] == ["good"]
    reasons = {f.case: f.reason for f in report.failures}
    assert set(reasons) == {"shape", "moved", "values", "gone"}
    assert {f.stage for f in report.failures} == {"evaluate"}
    assert "prediction and reference differ in shape; found: prediction (4, 6, 7)" in reasons["shape"]
    assert "lie on different grids" in reasons["moved"]
    assert "corners 30 mm apart" in reasons["moved"]
    assert "values that no structure has" in reasons["values"]
    assert reasons["gone"].startswith("case gone: no prediction")


def test_only_predicted_cases_on_request(folders):
    references, predictions, _ = folders
    for name in ("a", "b"):
        write(references / f"{name}.nii.gz", block(1))
    write(predictions / "b.nii.gz", block(1))
    report = run(folders, only_predicted=True)
    assert ([c.case for c in report.cases], report.n_cases, report.failures) == (["b"], 1, ())


def test_a_header_off_by_rounding_is_no_other_grid(folders):
    references, predictions, _ = folders
    write(references / "a.nii.gz", block(1))
    write(predictions / "a.nii.gz", block(1), origin=(0.001, 0, 0), spacing=(1.0001, 1, 1))
    report = run(folders)
    assert (report.summary.mean_dice, report.failures) == (1, ())


def test_table(folders):
    references, predictions, _ = folders
    write(references / "a.nii.gz", block(1))
    write(predictions / "a.nii.gz", block(1))
    lines = report_table(run(folders, tolerance_mm=2)).splitlines()
    words = [" ".join(line.split()) for line in lines]
    assert words[0] == "structure both missed extra absent Dice 95 % CI IoU HD95 mm ASSD mm NSD volume error"
    assert words[2] == "liver 1 0 0 0 1.000 -- 1.000 0.00 0.00 1.000 +0.0%"
    assert words[3] == "tumour 0 0 0 1 -- -- -- -- -- -- --"
    assert lines[4] == "mean Dice 1.0000 over 1 case; NSD at 2 mm"
    assert len({len(line) for line in lines[:4]}) == 1


def test_nothing_scored_has_no_mean(folders):
    references, predictions, _ = folders
    write(references / "a.nii.gz", block(1))
    write(predictions / "a.nii.gz", block(2))
    report = run(folders)
    assert (report.summary.n_cases, report.summary.mean_dice, len(report.failures)) == (0, None, 1)
    assert report_table(report).endswith("mean Dice -- over 0 cases; NSD at 1 mm")


def test_errors(folders):
    references, predictions, _ = folders
    with pytest.raises(UsageError, match="no such folder"):
        run(folders)
    write(references / "a.nii.gz", block(1))
    predictions.mkdir()
    with pytest.raises(UsageError, match="no label map in the folder"):
        run(folders)
    write(predictions / "b.nii.gz", block(1))
    with pytest.raises(UsageError, match=r"no prediction has the name of a reference; .*found: b; allowed: a"):
        run(folders)
    with pytest.raises(UsageError, match="tolerance of NSD must not be negative; found: -1"):
        run(folders, tolerance_mm=-1)
    write(predictions / "b.mha", block(1))
    with pytest.raises(DataError, match="case b: two label maps of one case"):
        run(folders)


# the interval


def test_interval_agrees_with_scipy():
    values = np.random.default_rng(3).beta(8, 2, size=60)
    spread = _distribution(list(values))
    oracle = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", random_state=1).confidence_interval
    assert (spread.low, spread.high) == pytest.approx((oracle.low, oracle.high), abs=0.1 * (oracle.high - oracle.low))
    assert (spread.mean, spread.median, spread.std) == pytest.approx((values.mean(), np.median(values), stats.tstd(values)))


def test_interval_is_that_of_resampled_means():
    values = np.array([0.2, 0.5, 0.9])
    drawn = np.random.default_rng(0).integers(0, 3, (2000, 3))
    spread = _distribution(list(values))
    assert (spread.low, spread.high) == pytest.approx(tuple(np.percentile(values[drawn].mean(axis=1), (2.5, 97.5))))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_interval_lies_within_the_values_and_is_reproducible(values):
    spread = _distribution(values)
    assert min(values) - 1e-12 <= spread.low <= spread.high <= max(values) + 1e-12
    assert _distribution(values) == spread


# real label maps


@pytest.mark.real
def test_real_folder_against_itself(real_data, tmp_path):
    source = real_data("Task04_Hippocampus") / "labelsTr"
    paths = sorted(source.glob("hippocampus_*.nii.gz"))[:6]
    references, predictions = tmp_path / "references", tmp_path / "predictions"
    references.mkdir()
    predictions.mkdir()
    for i, path in enumerate(paths):
        image = sitk.ReadImage(str(path))
        sitk.WriteImage(image, str(references / path.name))
        # the last prediction is one voxel off, and its header still the right one
        moved = sitk.GetImageFromArray(np.roll(sitk.GetArrayFromImage(image), int(i == 5), axis=1))
        moved.CopyInformation(image)
        sitk.WriteImage(moved, str(predictions / path.name))
    labels = LabelSet(("anterior", "posterior"), (1, 2))
    report = evaluate_label_maps(references, predictions, labels, out=tmp_path / "out", workers=2)
    assert [c.case for c in report.cases] == [p.name[: -len(".nii.gz")] for p in paths]
    for structure in report.summary.structures:
        assert structure.n_both == 6
        assert structure.dice.median == 1
        assert 0.9 < structure.dice.low < structure.dice.mean < structure.dice.high == 1
        assert structure.nsd.mean == 1  # one voxel of 1 mm
        assert structure.hd95_mm.mean == pytest.approx(1 / 6)
    anterior = report.cases[5].structures[0]
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*(sitk.ReadImage(str(f / paths[5].name), sitk.sitkUInt8) for f in (references, predictions)))
    assert anterior.dice == pytest.approx(overlap.GetDiceCoefficient(1), abs=1e-4)
    assert anterior.iou == pytest.approx(overlap.GetJaccardCoefficient(1), abs=1e-4)
