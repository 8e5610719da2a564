"""Folders of predictions against references: label maps, landmarks, or both, and what is wrong with them."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.landmark_phantoms import make_dataset

from autoseg.dataset import Dataset, LandmarkRules, load_landmarks, load_predicted
from autoseg.errors import DataError, UsageError
from autoseg.evaluation.folder import Evaluation, evaluate_folder
from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import Landmarks
from autoseg.io import read_grid, write_landmark_table, write_landmarks


def moved(dataset: Dataset, by: float) -> dict[str, Landmarks]:
    """The landmarks of each case, all of them `by` mm away."""
    found = {}
    for case in dataset.cases:
        truth = load_landmarks(case, dataset, read_grid(case.images[0]))
        found[case.name] = replace(truth, points_mm=truth.points_mm + [by, 0, 0])
    return found


def score(dataset: Dataset, out: Path, **how: Path) -> Evaluation:
    return evaluate_folder(dataset, out, out=out, workers=0, **how)


@pytest.fixture
def alone(tmp_path: Path) -> Dataset:
    return make_dataset(tmp_path / "data", 3)


@pytest.fixture
def both(tmp_path: Path) -> Dataset:
    return make_dataset(tmp_path / "data", 3, maps=True)


@pytest.mark.parametrize("ending", [".mrk.json", ".fcsv", ".json", ".csv", "table"])
def test_files_of_every_format(alone: Dataset, tmp_path: Path, ending: str) -> None:
    out, found = tmp_path / "out", moved(alone, 2)
    if ending == "table":
        write_landmark_table(out / "landmarks.csv", found)
    for name, landmarks in found.items() if ending != "table" else ():
        write_landmarks(out / f"{name}{ending}", landmarks, name)
    for _ in range(2):  # the second time beside the first one's reports
        result = score(alone, out)
        assert result.label_maps is None
        assert result.landmarks is not None
        assert (result.n_cases, result.landmarks.summary.unit) == (3, "mm")
        assert result.landmarks.summary.mean_micro.value == pytest.approx(2)
        assert result.landmarks.summary.missed == 0
    assert json.loads((out / "landmarks_summary.json").read_text())["n_cases"] == 3


def test_label_maps_landmarks_or_both(both: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(both.root / "labelsTr", out)
    only_maps = score(both, out)
    assert only_maps.label_maps is not None
    assert (only_maps.label_maps.summary.mean_dice, only_maps.landmarks) == (1, None)
    write_landmarks(out / "c1.mrk.json", moved(both, 1)["c1"])
    found = score(both, out)
    assert found.label_maps is not None
    assert found.landmarks is not None
    assert (found.n_cases, found.label_maps.n_cases, found.landmarks.n_cases) == (3, 3, 1)
    for path in out.glob("*.nii.gz"):
        path.unlink()
    assert score(both, out).label_maps is None


def test_references_in_a_folder_of_their_own(both: Dataset, tmp_path: Path) -> None:
    """Images beside the dataset's, which are those of test cases; one of them was not predicted."""
    tests, given, out = both.root / "imagesTs", tmp_path / "given", tmp_path / "out"
    (both.root / "imagesTr").rename(tests)
    shutil.copytree(both.root / "landmarksTr", given)
    shutil.copytree(both.root / "landmarksTr", out)
    (out / "c2.mrk.json").unlink()
    (out / "c0.nii.gz").touch()  # a label map; there is none among the references
    trained = replace(both, cases=())
    found = score(trained, out, references=given)
    assert found.label_maps is None
    assert found.landmarks is not None
    assert (found.landmarks.n_cases, found.landmarks.summary.mean_micro.value) == (2, 0)
    assert [f.reason for f in found.failures] == ["case c2: no predicted landmarks; fix: predict this case"]
    tests.rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="no label map"):  # without images nothing is known of landmarks
        score(trained, out, references=given)
    other = score(trained, out, references=given, images=tmp_path / "elsewhere")
    assert other.landmarks == found.landmarks


def test_faulty_files_are_listed(alone: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name, landmarks in moved(alone, 1).items():
        write_landmarks(out / f"{name}.mrk.json", landmarks)
    (out / "c1.mrk.json").write_text("{}")
    found = score(alone, out)
    assert (found.n_cases, [f.case for f in found.failures]) == (2, ["c1"])
    assert "not a markup file" in found.failures[0].reason
    write_landmarks(out / "c0.fcsv", moved(alone, 1)["c0"])
    with pytest.raises(DataError, match="two files of landmarks have the same name"):
        score(alone, out)


def test_folders_that_cannot_be_compared(alone: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        score(alone, tmp_path / "nowhere")
    out = tmp_path / "out"
    write_landmarks(out / "other.mrk.json", moved(alone, 1)["c0"])
    with pytest.raises(UsageError, match=r"no landmarks of a known case in the folder; .*found: other\.mrk\.json; allowed: .*c0"):
        score(alone, out)
    write_landmarks(out / "c0.mrk.json", moved(alone, 1)["c0"])
    empty = tmp_path / "empty"
    write_landmarks(empty / "c1.mrk.json", moved(alone, 1)["c1"])
    with pytest.raises(UsageError, match="no file of predicted landmarks has the name of a reference; found: c0; allowed: c1"):
        score(alone, out, references=empty)


def test_references_as_spots_in_label_maps(alone: Dataset, tmp_path: Path) -> None:
    """Of test cases: values of the spots are known from the dataset."""
    tests, given, out = alone.root / "imagesTs", tmp_path / "given", tmp_path / "out"
    (alone.root / "imagesTr").rename(tests)
    given.mkdir()
    values = replace(alone, cases=(), landmark_rules=LandmarkRules((1, 2, 3)))
    for case in alone.cases:
        image = tests / case.images[0].name
        found = load_landmarks(case, alone, read_grid(image))
        spots = sitk.Image(sitk.ReadImage(str(image))) * 0
        for value, point in enumerate(found.points_mm, start=1):
            spots[spots.TransformPhysicalPointToIndex(point.tolist())] = value
        sitk.WriteImage(sitk.Cast(spots, sitk.sitkUInt8), str(given / f"{case.name}.nii.gz"))
        write_landmarks(out / f"{case.name}.mrk.json", found)
    result = score(values, out, references=given).landmarks
    assert result is not None
    assert result.n_cases == 3
    assert 0 < (result.summary.mean_micro.value or 0) < 1  # a spot is a voxel, so that its centre is off by a part of one
    write_landmarks(
        given / "c0.mrk.json",
        load_predicted(alone.cases[0], out / "c0.mrk.json", alone.landmarks, read_grid(tests / "c0_0000.nii.gz")),
    )
    assert score(values, out, references=given).n_cases == 1  # files of points come first


def test_spots_of_unknown_values(both: Dataset, tmp_path: Path) -> None:
    """Nobody says what the values in the label maps mean."""
    out = tmp_path / "out"
    write_landmarks(out / "c0.mrk.json", moved(both, 1)["c0"])
    message = r"no reference landmarks of a known case; .*found: c0\.nii\.gz, .*allowed: files such as c0\.mrk\.json, .*-d names"
    with pytest.raises(UsageError, match=message):
        score(both, out, references=both.root / "labelsTr")
    bare = replace(both, cases=tuple(replace(c, landmarks=None) for c in both.cases))
    with pytest.raises(UsageError, match=r"no reference landmarks of a known case; .*found: 3 cases"):
        score(replace(bare, labels=LabelSet((), ())), out)


def test_references_that_are_label_maps_of_structures(both: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where structures were predicted, label maps are no spots of landmarks, though their values may be the same."""
    out = tmp_path / "out"
    shutil.copytree(both.root / "labelsTr", out)
    for name, found in moved(both, 1).items():
        write_landmarks(out / f"{name}.mrk.json", found)
    for dataset, reason in (
        (both, r"note: landmarks are not scored: no file of them in .*labelsTr$"),
        (
            replace(both, landmark_rules=LandmarkRules((1, 2, 3))),
            r"note: landmarks are not scored: no file of them in .*labelsTr; its label maps are taken to show structures$",
        ),
    ):
        caplog.clear()
        result = score(dataset, out, references=both.root / "labelsTr")
        assert result.landmarks is None
        assert result.label_maps is not None
        assert result.label_maps.summary.mean_dice == 1
        assert [bool(re.match(reason, m)) for m in caplog.messages] == [True]


def test_volumes_and_pictures_are_not_scored_together(tmp_path: Path) -> None:
    volumes, pictures = make_dataset(tmp_path / "v", 1), make_dataset(tmp_path / "p", 2, pictures=True)
    mixed = replace(volumes, cases=(volumes.cases[0], pictures.cases[1]))
    out = tmp_path / "out"
    write_landmarks(out / "c0.mrk.json", moved(volumes, 0)["c0"])
    write_landmarks(out / "c1.csv", moved(pictures, 0)["c1"], pixels=True)
    with pytest.raises(
        UsageError, match=r"errors would be in mm for some cases and in pixels for others; found: c0.*gz and c1.*png"
    ):
        score(mixed, out)


def test_pictures_are_measured_in_pixels(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", 2, pictures=True)
    out = tmp_path / "out"
    write_landmark_table(out / "landmarks.csv", moved(dataset, 3), pixels=True)
    result = score(dataset, out).landmarks
    assert result is not None
    assert result.summary.unit == "px"
    assert result.summary.mean_macro.value == pytest.approx(3)
    assert np.isfinite(result.summary.errors_voxels.mean or np.nan)


def test_reason_of_the_first_failure_where_no_case_can_be_compared(alone: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for case in alone.cases:
        (out / f"{case.name}.mrk.json").write_text("{broken")
    found = rf"no case with landmarks can be scored; found: case {alone.cases[0].name}: .*{alone.cases[0].name}\.mrk\.json"
    with pytest.raises(UsageError, match=found):
        score(alone, out)
