"""Fingerprint of a dataset: measurements by hand, statistics against brute force, faults, and a
cache that notices changes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.landmark_phantoms import make_dataset
from helpers.limits import HANGS
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.dataset import Case, Dataset, LandmarkRules, load_landmarks, open_dataset
from autoseg.dataset import reading as pairs
from autoseg.errors import DataError, PlanError, UsageError
from autoseg.fingerprint import cache as cache_module
from autoseg.fingerprint import case as case_module
from autoseg.fingerprint import dataset as module
from autoseg.fingerprint.cache import N_QUANTILES
from autoseg.fingerprint.dataset import Fingerprint, has_fingerprint, load_fingerprint, take_fingerprint
from autoseg.fingerprint.landmark_symmetry import AsymmetricPair
from autoseg.fingerprint.laterality import check_laterality
from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import LandmarkSet
from autoseg.io import read_grid, write_landmarks
from autoseg.system.records import from_json, to_json
from autoseg.system.workers import Failure

LABELS = LabelSet(("liver", "tumour"), (1, 2))


def write(path: Path, data: np.ndarray, spacing: tuple[float, ...] = (1.0, 1.0, 1.0), direction: str = "LPS") -> None:
    """Writes a (Z, Y, X) array; `spacing` is (x, y, z), `direction` names where the file's axes
    point.
    """
    image = sitk.GetImageFromArray(data)
    image.SetSpacing(spacing)
    signs = [1.0 if here == there else -1.0 for here, there in zip(direction, "LPS")]
    image.SetDirection(np.diag(signs).ravel().tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Two cases of 4×5×6 voxels with a frame of zeros of one voxel, spacing 3×2×1 mm."""
    cases = []
    for i, name in enumerate(("a", "b")):
        image = np.zeros((4, 5, 6), dtype=np.float32)
        image[1:-1, 1:-1, 1:-1] = np.arange(1, 25, dtype=np.float32).reshape(2, 3, 4) * (1 + 9 * i)
        label = np.zeros((4, 5, 6), dtype=np.uint8)
        label[1, 1, 1:5] = 1  # image values 1, 2, 3, 4 (times ten in b)
        paths = tmp_path / "data" / f"{name}.nii.gz", tmp_path / "data" / f"{name}_label.nii.gz"
        write(paths[0], image, (1, 2, 3))
        write(paths[1], label, (1, 2, 3))
        cases.append(Case(name, (paths[0],), paths[1]))
    return Dataset("Task99_Toy", tmp_path, ("MR",), LABELS, tuple(cases))


def take(dataset: Dataset) -> tuple[Fingerprint, tuple[Failure, ...], tuple[str, ...]]:
    report = take_fingerprint(dataset, dataset.root / "work")
    return report.fingerprint, report.failures, report.notices


@pytest.fixture
def read_cases(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the image files that are opened from now on."""
    seen: list[str] = []
    original = pairs.read_image

    def spy(paths: tuple[Path, ...], channels: tuple[str, ...]) -> object:
        seen.append(paths[0].name)
        return original(paths, channels)

    monkeypatch.setattr(pairs, "read_image", spy)
    return seen


def test_measurements_by_hand(dataset: Dataset) -> None:
    found, failures, notices = take(dataset)
    assert not failures
    assert notices == ("structure 'tumour' occurs in no case where the image is not 0: it cannot be learnt",)
    a, b = found.cases
    assert (a.name, a.spacing, a.shape, a.shape_after_crop, a.voxels) == ("a", (3, 2, 1), (4, 5, 6), (2, 3, 4), (4, 0))
    assert (a.intensities[0].mean, a.intensities[0].variance, a.intensities[0].max) == (2.5, 1.25, 4)
    assert b.intensities[0].mean == 25
    assert found.median_relative_size == pytest.approx(24 / 120)
    assert (found.structures[0].n_cases, found.structures[0].mean_voxels, found.structures[0].mean_volume_mm3) == (2, 4, 24)
    assert found.unseen_structures == ("tumour",)
    channel = found.intensities[0]
    values = np.array([1, 2, 3, 4, 10, 20, 30, 40])
    assert (channel.mean, channel.min, channel.max) == (values.mean(), 1, 40)
    assert channel.std == pytest.approx(values.std())
    assert channel.median == 7  # halfway between 4 and 10


def test_cases_weigh_the_same_whatever_their_size(dataset: Dataset) -> None:
    assert dataset.cases[1].label
    label = np.zeros((4, 5, 6), dtype=np.uint8)
    label[1, 1, 1] = 1  # one voxel of value 10 now stands against four
    write(dataset.cases[1].label, label, (1, 2, 3))
    channel = take(dataset)[0].intensities[0]
    assert channel.mean == (2.5 + 10) / 2
    assert channel.std == pytest.approx(np.std([1, 2, 3, 4, 10, 10, 10, 10]))


def test_axes_are_canonical(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(1 + np.arange(24, dtype=np.float32).reshape(2, 3, 4) % 2)
    image.SetSpacing((1, 2, 3))
    image.SetDirection((0, 0, 1, 1, 0, 0, 0, 1, 0))  # the file's x, y, z run along the body's y, z, x
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    sitk.WriteImage(sitk.Cast(image, sitk.sitkUInt8), str(tmp_path / "label.nrrd"))
    case = Case("a", (tmp_path / "a.nrrd",), tmp_path / "label.nrrd")
    found, _, notices = take(Dataset("D", tmp_path, ("MR",), LABELS, (case,)))
    assert (found.cases[0].shape, found.cases[0].spacing) == ((3, 4, 2), (2, 1, 3))
    assert "a single case: none remains for validation" in notices


def test_ignored_voxels_are_not_foreground(dataset: Dataset) -> None:
    assert dataset.cases[0].label
    label = np.zeros((4, 5, 6), dtype=np.uint8)
    label[1, 1, 1], label[2, 2, 2] = 1, 9
    write(dataset.cases[0].label, label, (1, 2, 3))
    found = take(replace(dataset, labels=replace(LABELS, ignore=9)))[0]
    assert found.cases[0].voxels == (1, 0)
    assert found.cases[0].intensities[0].max == 1


def test_fingerprint_on_disk(dataset: Dataset, tmp_path: Path) -> None:
    found = take(dataset)[0]
    path = dataset.root / "work" / "fingerprint.json"
    assert load_fingerprint(path) == found
    assert from_json(Fingerprint, to_json(found), "text") == found
    with pytest.raises(UsageError, match="no fingerprint"):
        load_fingerprint(tmp_path / "none.json")
    path.write_text(to_json(replace(found, schema_version=7)))
    with pytest.raises(PlanError, match=r"another schema version.*found: 7; allowed: 5"):
        load_fingerprint(path)


def test_a_fingerprint_of_an_older_schema(dataset: Dataset, read_cases: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """It lacks what is measured now, and so do the lines of its cache: both are told from broken
    files, and made anew.
    """
    found = take(dataset)[0]
    assert "taken by another version" not in caplog.text
    path, cache = dataset.root / "work" / "fingerprint.json", dataset.root / "work" / "cases.jsonl"
    old = json.loads(path.read_text())
    old["schema_version"] = 1
    lines = [json.loads(line) for line in cache.read_text().splitlines()]
    for case in (*old["cases"], *(line["fingerprint"] for line in lines)):
        del case["tails"], case["lateral_positions"]
    path.write_text(json.dumps(old))
    cache.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert not has_fingerprint(path)
    with pytest.raises(PlanError, match=r"another schema version.*found: 1; allowed: 5; fix: autoseg fingerprint -d DATASET"):
        load_fingerprint(path)
    read_cases.clear()
    caplog.set_level("INFO")
    assert take(dataset)[0] == found
    assert f"{path} was taken by another version of autoseg: it is taken anew" in caplog.text
    assert sorted(read_cases) == ["a.nii.gz", "b.nii.gz"]
    assert has_fingerprint(path)
    assert load_fingerprint(path) == found
    for broken in ("{", "[]", "{}"):
        path.write_text(broken)
        assert has_fingerprint(path)  # whatever it is, it is not older; loading it says what is wrong
        with pytest.raises(PlanError, match=r"not valid JSON|wrong type|missing key 'schema_version'"):
            load_fingerprint(path)


def test_notices_on_mirrored_sides(dataset: Dataset) -> None:
    sides = replace(dataset, labels=LabelSet(("left ear", "right ear"), (1, 2)))
    for case, direction in zip(sides.cases, ("LPS", "RPS")):
        assert case.label
        label = np.zeros((4, 5, 6), dtype=np.uint8)
        label[1, 1, 4], label[1, 1, 1] = 1, 2
        image = sitk.GetArrayFromImage(sitk.ReadImage(str(case.images[0])))
        write(case.images[0], image, (1, 2, 3), direction)
        write(case.label, label, (1, 2, 3), direction)
    found, _, notices = take(sides)
    assert [case.lateral_positions for case in found.cases] == [(0.75, 0.25), (0.25, 0.75)]
    assert "case b: left ear lies to the right of right ear, unlike in 1 of 2 cases: the header may be mirrored" in notices
    swapped = take(replace(sides, labels=LabelSet(("right ear", "left ear"), (1, 2)), cases=sides.cases[:1]))[2]
    assert any(n.startswith("in 1 of 1 cases the structures named left lie to the right: all headers may be") for n in swapped)


def test_faulty_cases_are_listed_and_the_rest_goes_on(dataset: Dataset, tmp_path: Path) -> None:
    good = np.ones((4, 5, 6), dtype=np.float32)

    def add(name: str, image: np.ndarray, label: np.ndarray, spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Case:
        write(tmp_path / f"{name}.nrrd", image)
        write(tmp_path / f"{name}_label.nrrd", label, spacing)
        return Case(name, (tmp_path / f"{name}.nrrd",), tmp_path / f"{name}_label.nrrd")

    nan = good.copy()
    nan[0, 0, 0] = np.nan
    broken = add("broken", good, good)
    broken.images[0].write_bytes(b"not an image")
    cases = (
        broken,
        add("label_value", good, good * 7),
        add("nan", nan, good),
        replace(add("no_image", good, good), images=(tmp_path / "absent.nrrd",)),
        replace(add("no_label", good, good), label=tmp_path / "absent.nrrd"),
        replace(add("folder", good, good), label=tmp_path),
        replace(add("too_long", good, good), images=(tmp_path / ("a" * 300 + ".nrrd"),)),
        replace(add("no_label_named", good, good), label=None),
        add("shape", good, np.ones((4, 5, 7), dtype=np.uint8)),
        add("spacing", good, good, (1, 1, 2)),
        add("zeros", good * 0, good),
    )
    found, failures, _ = take(replace(dataset, cases=(*dataset.cases, *cases)))
    assert [case.name for case in found.cases] == ["a", "b"]
    reasons = {f.case: f.reason for f in failures}
    for name, reason in {
        "broken": "cannot be read as an image",
        "label_value": "found: 7; allowed: 0, 1, 2",
        "nan": "NaN",
        "no_image": "the image file is missing",
        "no_label": "the label file is missing",
        "folder": "the label file is none; file: ",
        "too_long": "found: File name too long; fix: add it, or take the case out of the dataset",
        "no_label_named": "the case has no label file",
        "shape": "differ in shape",
        "spacing": "differ in spacing",
        "zeros": "the image is blank",
    }.items():
        assert reason in reasons.pop(name)
    assert not reasons
    assert {f.stage for f in failures} == {"fingerprint"}


def test_a_file_without_read_permission(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(cache_module, "sha256", refuse)
    with pytest.raises(DataError, match=r"no case can be used.*the file cannot be read.*Permission denied"):
        take(dataset)


def test_no_usable_case(dataset: Dataset) -> None:
    for case in dataset.cases:
        case.images[0].unlink()
    with pytest.raises(DataError, match=r"no case can be used.*2 faulty: case a: the image file is missing.*case b"):
        take(dataset)


def test_missing_label_maps_are_one_sentence(dataset: Dataset) -> None:
    for case in dataset.cases:
        case.label.unlink()
    with pytest.raises(
        DataError, match=r"^no case has a label map; file: .*; found: a\.nii.*; allowed: a_label.*; fix: training"
    ):
        take(dataset)
    elsewhere = [replace(case, label=dataset.root / "labelsTr" / case.label.name) for case in dataset.cases]
    with pytest.raises(
        DataError, match=r"^the folder of the label maps is missing; file: .*labelsTr; found: .*; allowed: a_label"
    ):
        take(replace(dataset, cases=tuple(elsewhere)))


def test_empty_label_maps(dataset: Dataset) -> None:
    empty = np.zeros((4, 5, 6), dtype=np.uint8)
    labels = [case.label for case in dataset.cases if case.label]
    write(labels[0], empty, (1, 2, 3))
    found, failures, notices = take(dataset)
    assert (found.n_empty_cases, found.cases[0].intensities, failures) == (1, (), ())
    assert "case a: no structure in the label map: kept as a negative example" in notices
    assert found.intensities[0].mean == 25
    write(labels[1], empty, (1, 2, 3))
    with pytest.raises(DataError, match=r"no label map contains a structure.*only background in 2 cases; allowed: values 1, 2"):
        take(dataset)


@pytest.mark.parametrize("maps", [False, True])
def test_landmarks_that_are_all_outside(tmp_path: Path, maps: bool) -> None:
    """RAS numbers in files that do not say so are taken as LPS."""
    landmarked = make_dataset(tmp_path / "data", 3, maps)
    for case in landmarked.cases:
        assert case.landmarks is not None
        found = load_landmarks(case, landmarked, read_grid(case.images[0]))
        case.landmarks.unlink()
        write_landmarks(
            case.landmarks.with_name(f"{case.name}.mrk.json"), replace(found, points_mm=found.points_mm * [-1, -1, 1])
        )
    with pytest.raises(
        DataError,
        match=r"no case shows a landmark; .*found: none in the images of 3 cases; case c0: landmarks outside the image: .*mm.*; "
        r"all would lie inside with x and y negated, as if LPS and RAS were mistaken for each other; "
        r"fix: state the coordinate system \(LPS, RAS or voxel\) in the files of landmarks: .*'coordinateSystem' of a .mrk.json",
    ):
        take(landmarked)


def test_landmarks_only_where_the_image_is_zero(tmp_path: Path) -> None:
    landmarked = make_dataset(tmp_path / "data", 2)
    for case in landmarked.cases:
        image = sitk.Image(sitk.ReadImage(str(case.images[0]))) * 0
        image[0, 0, 0] = 1
        sitk.WriteImage(image, str(case.images[0]))
    with pytest.raises(DataError, match="found: in 2 cases landmarks lie only where the images are 0; fix: check that images"):
        take(landmarked)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, r"no case shows a landmark; .*found: none in the images of 2 cases; fix: annotate landmarks"),
        (2, r"case c0: landmarks outside the image: nose \(899.5 mm\); fix: correct origin, spacing or direction in the headers"),
    ],
)
def test_label_maps_without_spots(tmp_path: Path, value: int, message: str) -> None:
    """Label maps without a spot, and some that lie elsewhere."""
    landmarked = make_dataset(tmp_path / "data", 2, maps=True)
    cases = []
    for case in landmarked.cases:
        spots = sitk.Cast(sitk.ReadImage(str(case.images[0])) * 0, sitk.sitkUInt8)
        spots[0, 0, 0] = value
        spots.SetOrigin([at - 900 * along for at, along in zip(spots.GetOrigin(), (1, 0, 0))])
        cases.append(replace(case, landmarks=tmp_path / f"{case.name}.nii.gz"))
        sitk.WriteImage(spots, str(cases[-1].landmarks))
    with pytest.raises(DataError, match=message):
        take(replace(landmarked, cases=tuple(cases), landmark_rules=LandmarkRules((1, 2, 3))))


def test_lengths_in_pictures_are_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asymmetric(landmarks: LandmarkSet, _: object) -> tuple[LandmarkSet, tuple[AsymmetricPair, ...]]:
        return landmarks, (AsymmetricPair(("nose",), 30.0, 2.0),)

    monkeypatch.setattr(module, "check_symmetry", asymmetric)
    for pictures, unit in ((False, "mm"), (True, "px")):
        drawn = make_dataset(tmp_path / unit, 2, pictures=pictures)
        assert drawn.unit == unit
        assert any(f"is 30 {unit} off, that of other landmarks 2 {unit}" in notice for notice in take(drawn)[2])


def test_a_second_run_reads_nothing(dataset: Dataset, read_cases: list[str]) -> None:
    first = take(dataset)
    stored = (dataset.root / "work" / "fingerprint.json").read_bytes()
    read_cases.clear()
    assert take(dataset) == first
    assert read_cases == []
    assert (dataset.root / "work" / "fingerprint.json").read_bytes() == stored


def test_only_what_changed_is_read_again(dataset: Dataset, read_cases: list[str]) -> None:
    before = take(dataset)[0]
    read_cases.clear()
    image, label = dataset.cases[0].images[0], dataset.cases[0].label
    assert label

    os.utime(image)  # touched but equal
    assert take(dataset)[0] == before
    assert read_cases == []

    data = sitk.GetArrayFromImage(sitk.ReadImage(str(label)))
    data[2, 2, 2] = 2
    write(label, data, (1, 2, 3))
    after = take(dataset)[0]
    assert read_cases == ["a.nii.gz"]
    assert after.cases[0].voxels == (4, 1)
    assert after.hash != before.hash

    read_cases.clear()
    take(replace(dataset, cases=dataset.cases[:1]))
    assert take(dataset)[0] == after  # a case that left is forgotten, and read when it is back
    assert read_cases == ["b.nii.gz"]

    read_cases.clear()
    renamed = replace(dataset, labels=LabelSet(("organ", "tumour"), (1, 2)))
    assert take(renamed)[0].hash != after.hash
    assert sorted(read_cases) == ["a.nii.gz", "b.nii.gz"]


def test_an_interrupted_run_resumes(dataset: Dataset, read_cases: list[str]) -> None:
    before = take(dataset)
    cache = dataset.root / "work" / "cases.jsonl"
    first, second = cache.read_text().splitlines()
    cache.write_text(f"{first}\n{second[: len(second) // 2]}")
    read_cases.clear()
    assert take(dataset) == before
    assert read_cases == ["b.nii.gz"]
    assert cache.read_text().splitlines() == [first, second]
    cache.write_bytes(f"{first}\n".encode() + "Müller".encode()[:2])  # cut inside a letter of two bytes
    assert take(dataset) == before


def test_cases_measured_before_a_crash_are_kept(dataset: Dataset, monkeypatch: pytest.MonkeyPatch, read_cases: list[str]) -> None:
    original = pairs.read_label_map

    def crash(path: Path, labels: LabelSet) -> object:
        if path.name.startswith("b"):
            raise ZeroDivisionError
        return original(path, labels)

    monkeypatch.setattr(pairs, "read_label_map", crash)
    with pytest.raises(RuntimeError, match="case b: ZeroDivisionError"):
        take_fingerprint(dataset, dataset.root / "work", workers=0)
    monkeypatch.setattr(pairs, "read_label_map", original)
    read_cases.clear()
    take(dataset)
    assert read_cases == ["b.nii.gz"]


def test_hash_is_of_the_content(dataset: Dataset, tmp_path: Path) -> None:
    found = take(dataset)[0]
    assert replace(found, cases=found.cases[::-1]).hash == found.hash
    moved = replace(dataset, root=tmp_path / "elsewhere")
    assert take(moved)[0].hash == found.hash
    assert replace(found, channels=("CT",)).hash != found.hash


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_pooled_intensity_equals_the_weighted_pool(sizes: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    cases = [np.sort(random.gamma(2, 10 ** random.uniform(0, 3), n)).astype(np.float32) for n in sizes]
    found = module._pooled_intensity(
        [case_module._moments(c) for c in cases], np.stack([case_module.quantiles(c, N_QUANTILES) for c in cases])
    )
    values, weights = np.concatenate(cases), np.concatenate([np.full(n, 1 / n / len(sizes)) for n in sizes])
    mean = float(weights @ values)
    assert found.mean == pytest.approx(mean, rel=1e-5)
    assert found.std == pytest.approx(float(np.sqrt(weights @ (values - mean) ** 2)), rel=1e-5)
    assert (found.min, found.max) == (values.min(), values.max())
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    for level, value in ((0.005, found.percentile_00_5), (0.5, found.median), (0.995, found.percentile_99_5)):
        slack = 1 / N_QUANTILES
        low, high = np.searchsorted(reached, (level - slack, level + slack))
        assert values[order][low] <= value <= values[order][min(high, len(values) - 1)]


@pytest.mark.real
def test_hippocampus(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    dataset = open_dataset(real_data("Task04_Hippocampus"))
    report = take_fingerprint(dataset, tmp_path)
    found = report.fingerprint
    assert (len(found.cases), report.failures, report.notices) == (208, (), ())
    assert {case.spacing for case in found.cases} == {(1.0, 1.0, 1.0)}
    assert found.median_relative_size > 0.99
    assert [s.n_cases for s in found.structures] == [208, 208]
    spreads = np.array([case.tails[0].tail_ratio for case in found.cases])
    assert (spreads.min(), np.median(spreads)) == pytest.approx((0.92, 0.99), abs=0.02)  # 1000 times in scale, but no outliers

    rng = np.random.default_rng(0)  # nnU-Net's way: as many voxels from every case
    drawn = []
    for case in dataset.cases:
        assert case.label
        image, label = (sitk.GetArrayFromImage(sitk.ReadImage(str(p))) for p in (case.images[0], case.label))
        drawn.append(rng.choice(image[label > 0].astype(np.float64), 5000))
    sample, seen = np.concatenate(drawn), found.intensities[0]
    assert seen.mean == pytest.approx(sample.mean(), rel=0.005)
    assert seen.std == pytest.approx(sample.std(), rel=0.005)
    expected = np.percentile(sample, (0.5, 50, 99.5))
    assert (seen.percentile_00_5, seen.median, seen.percentile_99_5) == pytest.approx(expected, rel=0.01)

    started = time.perf_counter()
    assert take_fingerprint(dataset, tmp_path).fingerprint == found
    assert time.perf_counter() - started < HANGS  # 0.1 s on an idle machine
    assert json.loads((tmp_path / "fingerprint.json").read_text())["dataset"] == "Task04_Hippocampus"


@pytest.mark.real
def test_laterality_of_mouse_brains(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    report = take_fingerprint(open_dataset(real_data("mouse_brain")), tmp_path)
    found, notices = report.fingerprint, report.notices
    sides = check_laterality(found.labels, found.cases)
    assert (sides.n_pairs, sides.n_cases, sides.n_reversed, sides.mismatches) == (20, 20, 20, ())
    unseen, last = notices[:-1], notices[-1]
    assert [n.split("'")[1] for n in unseen] == ["Right External Capsule", "Right Ventricles", "Right Brain Stem"]
    assert last.startswith("in 20 of 20 cases the structures named left lie to the right")  # no scanner wrote these headers
