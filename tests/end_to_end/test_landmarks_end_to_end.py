"""Landmarks from a dataset to files and scores: alone, beside label maps, in pictures. Plans are made by hand, the latter
two with a spatial configuration branch."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from helpers.landmark_phantoms import NAMES, Phantoms, make_dataset, make_landmark_plan, preprocess_phantoms
from helpers.runs import history, interrupt_at
from helpers.slicer_schema import MARKUPS
from PIL import Image as Pillow
from safetensors.torch import load_file
from typer.testing import CliRunner

from autoseg.cli import app
from autoseg.dataset import images_in, load_landmarks, open_dataset
from autoseg.dataset.predicted import PREDICTED
from autoseg.errors import UsageError
from autoseg.imaging.geometry import Grid
from autoseg.imaging.image import Image
from autoseg.imaging.landmarks import Landmarks, State
from autoseg.inference.model import load_model
from autoseg.inference.predict import PredictReport, predict
from autoseg.inference.trained_model import TrainedModel
from autoseg.io import read_grid, read_points, write_image, write_landmarks
from autoseg.nets.device import Device
from autoseg.plan import ScnPlan, load_plan, save_plan
from autoseg.preprocessing.placement import Prepared
from autoseg.preprocessing.store import StoredCase, write_case
from autoseg.runs.budget import RunBudget
from autoseg.runs.options import TrainingOptions
from autoseg.runs.record import RunRecord, load_run
from autoseg.training.checkpoint import load_state
from autoseg.training.train import train
from autoseg.training.validation import case_scores, validate

CONVOLUTIONS = ScnPlan("convolutions", (4, 4), 3, 2, 8, "gate")
UNET = ScnPlan("unet", (2, 4, 4), 3, 2, 8, "gate")  # maps of 6, 6 and 7 cells, which do not halve
LACKING = {0: ("nose",), 3: ("nose",), 5: ("nose",), 9: ("nose",)}  # the last two cases are those to validate on


@dataclass(frozen=True)
class TrainedPhantoms:
    phantoms: Phantoms
    record: RunRecord

    @property
    def run(self) -> Path:
        return self.phantoms.job.run

    @property
    def images(self) -> Path:
        return self.phantoms.dataset.root / "imagesTr"


def truth(trained: TrainedPhantoms, case: str) -> Landmarks:
    dataset = trained.phantoms.dataset
    found = next(c for c in dataset.cases if c.name == case)
    return load_landmarks(found, dataset, read_grid(found.images[0]))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, float32_cpu: Device) -> TrainedPhantoms:
    """Ten volumes, half of them oblique, of which four lack the nose."""
    root = tmp_path_factory.mktemp("alone")
    dataset = make_dataset(root / "data", 10, lacking=LACKING)
    phantoms = preprocess_phantoms(root, dataset, make_landmark_plan(dataset, epochs=5))
    return TrainedPhantoms(phantoms, train(phantoms.job, TrainingOptions(), float32_cpu))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, float32_cpu: Device) -> TrainedPhantoms:
    root = tmp_path_factory.mktemp("both")
    dataset = make_dataset(root / "data", 8, maps=True)
    phantoms = preprocess_phantoms(root, dataset, make_landmark_plan(dataset, scn=UNET, epochs=6))
    return TrainedPhantoms(phantoms, train(phantoms.job, TrainingOptions(), float32_cpu))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, float32_cpu: Device) -> TrainedPhantoms:
    root = tmp_path_factory.mktemp("pictures")
    dataset = make_dataset(root / "data", 8, pictures=True)
    phantoms = preprocess_phantoms(root, dataset, make_landmark_plan(dataset, pictures=True, scn=CONVOLUTIONS, epochs=6))
    return TrainedPhantoms(phantoms, train(phantoms.job, TrainingOptions(), float32_cpu))


def test_landmarks_alone_are_learnt(alone: TrainedPhantoms) -> None:
    record = alone.record
    assert (record.case_dice, record.structure_dice, record.postprocess, record.unit) == (None, {}, (), "mm")
    assert list(record.landmark_mre) == list(NAMES)
    assert record.mre is not None
    assert record.mre < 0.6  # of voxels of 1.5×1×1 mm
    assert record.mre == pytest.approx(np.mean([m for m in record.landmark_mre.values() if m is not None]))
    assert load_run(alone.run) == record
    rows = history(alone.run)
    assert [row["case_dice"] for row in rows] == [""] * 5
    errors = [float(row["case_mre"]) for row in rows]
    assert errors[-1] < 0.6
    assert load_state(alone.run / "last.safetensors").best == pytest.approx(-min(errors), rel=1e-5)
    assert (alone.run / "best.safetensors").is_file()
    assert np.load(alone.run / "shape_prior.npy", allow_pickle=False).shape == (8, 3, 3)


def test_what_some_cases_lack_has_a_threshold_and_is_found_absent(alone: TrainedPhantoms) -> None:
    assert set(alone.record.thresholds) == {"nose"}
    for case in alone.phantoms.validation:
        points = read_points(alone.run / "validation" / f"{case.name}.mrk.json").cases[""]
        assert [p.state for p in points] == truth(alone, case.name).state.tolist()
        assert all(p.confidence is not None for p in points)
    assert {tuple(truth(alone, c.name).state) for c in alone.phantoms.validation} == {(2, 2, 2), (2, 1, 2)}


def test_errors_are_those_of_the_files(alone: TrainedPhantoms) -> None:
    errors = []
    for case in alone.phantoms.validation:
        file = alone.run / "validation" / f"{case.name}.mrk.json"
        found = load_landmarks(replace(case, landmarks=file), alone.phantoms.dataset, read_grid(case.images[0]))
        errors.append(np.linalg.norm(found.points_mm - truth(alone, case.name).points_mm, axis=1))
    means = [np.nanmean(column) for column in np.transpose(errors)]
    assert list(alone.record.landmark_mre.values()) == pytest.approx(means, abs=1e-6)


def test_an_interrupted_validation_finds_landmarks_again(alone: TrainedPhantoms, float32_cpu: Device, tmp_path: Path) -> None:
    model, _ = load_model([alone.run], float32_cpu)
    job = alone.phantoms.job
    model = replace(model, thresholds=())
    first = validate(model, job.validation, tmp_path, prepared=job.prepared, lacking=("nose",))
    assert (first.mre, first.thresholds) == (alone.record.mre, alone.record.thresholds)
    file = tmp_path / "validation" / f"{job.validation[0].name}.mrk.json"
    before = file.read_text()
    file.write_text("half a fi")
    assert validate(model, job.validation, tmp_path, prepared=job.prepared, lacking=("nose",)) == first
    assert file.read_text() == before


def test_what_lies_outside_the_image_does_not_count(
    alone: TrainedPhantoms, float32_cpu: Device, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, _ = load_model([alone.run], float32_cpu)
    job, folder = alone.phantoms.job, tmp_path / "prepared"
    names = [case.name for case in job.validation]
    for name in names:
        case = StoredCase.open(job.prepared, name)
        points = case.points.copy()
        points[0] += (0, 0, 500)
        write_case(folder, name, Prepared(case.read()[0], None, case.placement, points, case.state), "")
    stored = [StoredCase.open(folder, name) for name in names]
    assert [case.inside.tolist() for case in stored] == [
        [False, *(s == State.PRESENT for s in case.state[1:])] for case in stored
    ]
    record = validate(replace(model, thresholds=()), job.validation, tmp_path, prepared=folder, lacking=("nose",))
    assert record.landmark_mre == {**alone.record.landmark_mre, "left ear": None}
    assert f"2 landmarks lie outside their images and do not count: {', '.join(names)}" in caplog.text
    scores = case_scores(model, stored)
    assert scores.mre is not None
    assert scores.mre < 1


def test_what_is_missed_and_what_is_extra_is_counted(alone: TrainedPhantoms, float32_cpu: Device, tmp_path: Path) -> None:
    """Whatever the threshold, a mean over found landmarks alone does not tell it."""
    model, _ = load_model([alone.run], float32_cpu)
    job = alone.phantoms.job
    assert (alone.record.missed, alone.record.extra) == (0, 0)
    silent = replace(model, thresholds=(1.1, 0.0, 0.0))  # never the left ear, always the nose, which one case of two lacks
    record = validate(silent, job.validation, tmp_path, prepared=job.prepared)
    assert (record.missed, record.extra) == (2, 1)
    assert record.landmark_mre["left ear"] is None


@pytest.mark.parametrize("n", [1, 2, 200])
def test_any_number_of_landmarks_from_files_to_scores(tmp_path: Path, n: int) -> None:
    """Spots of a lattice, each of which has a name, planned and trained for a moment by the commands."""
    rng, shape = np.random.default_rng(0), (20, 40, 44)
    along = (np.linspace(3, size - 4, m) for size, m in zip(shape, (4, 5, 10)))
    lattice = np.stack(np.meshgrid(*along, indexing="ij"), -1).reshape(-1, 3)[:n]
    names = tuple(f"lm{i + 1}" for i in range(n))
    for name in ("imagesTr", "landmarksTr"):
        (tmp_path / "data" / name).mkdir(parents=True)
    grid = Grid.from_spacing(shape, (1.5, 1, 1), (-20, 5, 100))
    for i in range(6):
        points = lattice + rng.uniform(-1, 1, lattice.shape)
        image = rng.normal(0, 0.1, shape).astype(np.float32)
        image[tuple(np.rint(points).astype(int).T)] += 1
        write_image(tmp_path / "data" / "imagesTr" / f"c{i}.nii.gz", Image(image[None], grid, ("MR",)))
        found = Landmarks(names, grid.index_to_world(points), np.full(len(names), State.PRESENT))
        write_landmarks(tmp_path / "data" / "landmarksTr" / f"c{i}.mrk.json", found)
    data, root = str(tmp_path / "data"), ("--root", str(tmp_path / "work"), "-q")
    autoseg("plan_and_preprocess", "-d", data, "--device", "cpu", "--workers", "0", *root)
    file = tmp_path / "work" / "datasets" / "data" / "plan.json"
    plan = load_plan(file)
    name, configuration = plan.configuration(None)
    patch, training = replace(configuration.patch, batch_size=2), replace(configuration.training, epochs=1, steps_per_epoch=3)
    short = replace(configuration, patch=patch, training=training, footprint=None)
    save_plan(replace(plan, configurations={**plan.configurations, name: short}), file)
    autoseg("train", "--device", "cpu", *root)
    out = tmp_path / "out"
    autoseg("predict", "-i", f"{data}/imagesTr", "-o", str(out), "--device", "cpu", *root)
    assert {p.name for p in out.iterdir()} == {"landmarks.csv", PREDICTED, *(f"c{i}.mrk.json" for i in range(6))}
    table = read_points(out / "landmarks.csv").cases
    for case, points in table.items():
        assert [p.label for p in points] == list(names)
        (alone,) = read_points(out / f"{case}.mrk.json").cases.values()
        assert [p.position for p in alone] == [p.position for p in points]
    assert len(table) == 6
    report = json.loads(autoseg("evaluate", "-p", str(out), "--json", *root))
    assert [p["landmark"] for p in report["summary"]["landmarks"]] == list(names)
    assert report["summary"]["n_reference"] == 6 * n
    assert np.isfinite(report["summary"]["mean_macro"]["value"])


def test_both_are_learnt_at_once(both: TrainedPhantoms) -> None:
    record = both.record
    assert record.case_dice is not None
    assert record.mre is not None
    assert record.case_dice > 0.9
    assert record.mre < 0.8
    assert record.thresholds == {}
    assert {p.name for p in (both.run / "validation").iterdir()} == {
        f"{c.name}{e}" for c in both.phantoms.validation for e in (".nii.gz", ".mrk.json")
    }
    rows = history(both.run)
    best = max(float(row["case_dice"]) for row in rows)  # Dice decides what is best
    assert load_state(both.run / "last.safetensors").best == pytest.approx(best, rel=1e-5)
    assert all(row["case_mre"] for row in rows)


def test_some_cases_have_one_of_the_two(float32_cpu: Device, tmp_path: Path) -> None:
    """To learn from and to validate on: cases without label map, and cases without landmarks."""
    root = make_dataset(tmp_path / "data", 6, maps=True).root
    for part in ("labelsTr/c0.nii.gz", "labelsTr/c4.nii.gz", "landmarksTr/c1.mrk.json", "landmarksTr/c5.mrk.json"):
        (root / part).unlink()
    dataset = open_dataset(root)
    assert [(bool(c.label), bool(c.landmarks)) for c in dataset.cases] == [
        (False, True),
        (True, False),
        *[(True, True)] * 2,
        (False, True),
        (True, False),
    ]
    phantoms = preprocess_phantoms(tmp_path, dataset, make_landmark_plan(dataset, epochs=1, steps_per_epoch=10))
    record = train(phantoms.job, TrainingOptions(), float32_cpu)
    assert record.case_dice == record.structure_dice["ball"] is not None
    assert record.mre is not None
    assert {p.name for p in (phantoms.job.run / "validation").iterdir()} == {
        f"{name}{ending}" for name in ("c4", "c5") for ending in (".nii.gz", ".mrk.json")
    }


def test_landmarks_of_pictures(pictures: TrainedPhantoms) -> None:
    record = pictures.record
    assert record.unit == "px"
    assert record.mre is not None
    assert record.mre < 1.5
    file = pictures.run / "validation" / f"{pictures.phantoms.validation[0].name}.csv"
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert list(rows[0]) == ["case", "landmark", "x", "y", "space", "state", "confidence"]
    assert {row["space"] for row in rows} == {"pixel"}


def test_picture_in_memory_is_predicted_and_saved_as_its_file_is(
    pictures: TrainedPhantoms, float32_cpu: Device, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """SimpleITK takes the dots per inch of a TIFF for a spacing, which files of pictures do not have."""
    model = TrainedModel.load([pictures.run], float32_cpu)
    source = sorted(pictures.images.iterdir())[0]
    with Pillow.open(source) as picture:
        picture.save(tmp_path / "a.tif", dpi=(300, 300))
    in_memory = sitk.ReadImage(str(tmp_path / "a.tif"))
    assert in_memory.GetSpacing()[0] < 0.1
    from_file = model.predict(tmp_path / "a.tif")
    array = sitk.GetArrayFromImage(in_memory)
    assert not caplog.records
    results = (model.predict(in_memory), model.predict(array, spacing=(0.5, 0.5)))
    assert caplog.text.count("counts as 1: the model has learnt from pictures without spacing") == 2
    for result in results:
        assert from_file.landmarks is not None
        assert result.landmarks is not None
        np.testing.assert_array_equal(result.landmarks.points_mm, from_file.landmarks.points_mm)
        for ending in ("csv", "json", "mrk.json", "fcsv"):
            texts = [r.save(tmp_path / f"case.{ending}").read_text() for r in (from_file, result)]
            assert texts[0] == texts[1]


def test_a_run_of_landmarks_that_is_interrupted_comes_to_the_same_weights(
    pictures: TrainedPhantoms, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = replace(pictures.phantoms.job, run=tmp_path / "run")
    interrupt_at(monkeypatch, 100)
    with pytest.raises(KeyboardInterrupt):
        train(job, TrainingOptions(), float32_cpu)
    monkeypatch.undo()
    assert train(job, TrainingOptions(), float32_cpu).landmark_mre == pictures.record.landmark_mre
    first, second = (load_file(run / "last.safetensors") for run in (job.run, pictures.run))
    assert all(torch.equal(first[name], second[name]) for name in first | second)


def test_prediction_writes_files_and_a_table_and_skips_what_is_there(
    alone: TrainedPhantoms, float32_cpu: Device, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, _ = load_model([alone.run], float32_cpu)
    assert model.thresholds == (0.0, alone.record.thresholds["nose"], 0.0)
    cases = images_in(alone.images, 1)
    assert predict(model, (), cases, tmp_path) == PredictReport(10, 0)
    assert {p.name for p in tmp_path.iterdir()} == {"landmarks.csv", PREDICTED, *(f"c{i}.mrk.json" for i in range(10))}
    written = [json.loads((tmp_path / f"{case.name}.mrk.json").read_text()) for case in cases]
    for whole in written:
        jsonschema.validate(whole, MARKUPS)
    status = [p["positionStatus"] for whole in written for p in whole["markups"][0]["controlPoints"]]
    assert set(status) == {"defined", "undefined"}  # what is absent has been written, and judged, too
    table = read_points(tmp_path / "landmarks.csv").cases
    assert list(table) == [c.name for c in cases]
    errors, right = [], 0
    for case in cases:
        reference = truth(alone, case.name)
        for point, place, state in zip(table[case.name], reference.points_mm, reference.state):
            right += point.state == state
            if point.position is not None and state == State.PRESENT:
                errors.append(np.linalg.norm(np.array(point.position) - place))
    assert np.mean(errors) < 0.6
    assert right >= 29
    before = (tmp_path / "landmarks.csv").read_text()
    (tmp_path / "c3.mrk.json").unlink()
    assert predict(model, (), cases, tmp_path) == PredictReport(1, 9)
    assert "9 of 10 cases are there already" in caplog.text
    assert (tmp_path / "landmarks.csv").read_text() == before
    (tmp_path / "c5.mrk.json").write_text(before)  # not by this model, so what is in it is not read
    assert predict(replace(model, thresholds=(1.0, 1.0, 1.0)), (), cases, tmp_path).failures[0].case == "c5"
    assert "c5" not in read_points(tmp_path / "landmarks.csv").cases
    assert predict(model, (), cases, tmp_path, overwrite=True) == PredictReport(10, 0)
    assert (tmp_path / "landmarks.csv").read_text() == before
    (tmp_path / "c4.mrk.json").write_text("{")
    report = predict(model, (), cases, tmp_path)
    assert (report.done, report.skipped, [f.case for f in report.failures]) == (0, 10, ["c4"])
    assert list(read_points(tmp_path / "landmarks.csv").cases) == [c.name for c in cases if c.name != "c4"]


def test_both_are_predicted_into_one_folder(both: TrainedPhantoms, float32_cpu: Device, tmp_path: Path) -> None:
    model, _ = load_model([both.run], float32_cpu)
    cases = images_in(both.images, 1)[:2]
    files = ("c0.mrk.json", "c0.nii.gz", "c1.mrk.json", "c1.nii.gz")
    predict(model, (), cases, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"landmarks.csv", PREDICTED, *files}
    stamps = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    (tmp_path / "c1.mrk.json").unlink()
    assert predict(model, (), cases, tmp_path) == PredictReport(1, 1)
    assert (tmp_path / "c1.mrk.json").is_file()
    assert (tmp_path / "c1.nii.gz").stat().st_mtime_ns == stamps["c1.nii.gz"]  # it may have been corrected by hand


def test_predictions_that_cannot_be(
    alone: TrainedPhantoms, pictures: TrainedPhantoms, float32_cpu: Device, tmp_path: Path
) -> None:
    model, _ = load_model([alone.run], float32_cpu)
    with pytest.raises(UsageError, match="landmarks only, so there are no class probabilities; fix: no --save_probabilities"):
        predict(model, (), images_in(alone.images, 1), tmp_path, save_probabilities=True)
    flat, _ = load_model([pictures.run], float32_cpu)
    case = replace(images_in(pictures.images, 1)[0], name="landmarks")
    (tmp_path / "landmarks.csv").write_text("a person's")
    with pytest.raises(UsageError, match=r"beside it does not say which model has made this file.*landmarks\.csv"):
        predict(model, (), images_in(alone.images, 1), tmp_path)
    with pytest.raises(UsageError, match=r"would be named landmarks\.csv, as those of all cases"):
        predict(flat, (), [case], tmp_path)


def autoseg(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_from_the_command_line(alone: TrainedPhantoms, both: TrainedPhantoms, pictures: TrainedPhantoms, tmp_path: Path) -> None:
    for trained, form in ((alone, "json"), (both, "fcsv"), (pictures, "mrk.json")):
        out = tmp_path / form
        usual = ("--device", "cpu", "--root", str(tmp_path / "work"), "-q")
        autoseg("predict", "-m", str(trained.run), "-i", str(trained.images), "-o", str(out), "--landmarks-format", form, *usual)
        assert (out / f"c1.{form}").is_file()
        data = str(trained.phantoms.dataset.root)
        table = autoseg("evaluate", "-p", str(out), "-d", data, "--root", str(tmp_path / "work"), "-q")
        assert "mean error " + ("px" if trained is pictures else "mm") in table
        assert ("Dice" in table) == (trained is both)
        report = json.loads(autoseg("evaluate", "-p", str(out), "-d", data, "--root", str(tmp_path / "work"), "-q", "--json"))
        points = report["landmarks"] if trained is both else report
        assert points["summary"]["unit"] == ("px" if trained is pictures else "mm")
        assert points["summary"]["mean_macro"]["value"] < 1.5
        assert (trained is both) == ("label_maps" in report)
        assert (out / "landmarks_summary.json").is_file()
    result = CliRunner().invoke(app, ["predict", "-i", "x", "-o", "y", "--landmarks-format", "mrk"])
    assert isinstance(result.exception, UsageError)
    assert "unknown format of landmarks; found: mrk; allowed: mrk.json, fcsv, json, csv" in str(result.exception)


def test_a_finished_run_says_its_error(
    alone: TrainedPhantoms, both: TrainedPhantoms, float32_cpu: Device, caplog: pytest.LogCaptureFixture
) -> None:
    train(alone.phantoms.job, TrainingOptions(RunBudget(epochs=1)), float32_cpu)
    assert f"already trained (MRE {alone.record.mre:.3g} mm); --extend" in caplog.text
    train(both.phantoms.job, TrainingOptions(RunBudget(epochs=1)), float32_cpu)
    assert f"already trained (case Dice {both.record.case_dice:.3f}  MRE {both.record.mre:.3g} mm); --extend" in caplog.text
