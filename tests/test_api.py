"""The Python door on the tiny dataset: what a user types, and what a wrong argument says."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.tiny import Tiny, TinyRuns
from typer.testing import CliRunner

import autoseg
from autoseg.cli import app
from autoseg.pipeline.training import TrainReport
from autoseg.pipeline.workspace import Workspace
from autoseg.runs.record import load_run
from autoseg.system.records import to_json
from autoseg.system.workers import Failure, read_failures


@pytest.fixture
def model(tiny_runs: TinyRuns) -> autoseg.TrainedModel:
    return autoseg.load_model(str(tiny_runs.runs[0]), device="cpu")


@pytest.fixture
def image(tiny: Tiny) -> str:
    return str(sorted((tiny.data / "imagesTs").iterdir())[0])


def test_from_a_dataset_to_scores(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user would: names and strings, the default root, nothing prepared."""
    monkeypatch.chdir(tmp_path)
    dataset = autoseg.open_dataset(str(tiny.data))
    plan = autoseg.plan_dataset(dataset, device="cpu")
    assert str(plan).startswith("Plan of Dataset001_Phantom: segmentation, for cpu")
    autoseg.save_plan(tiny.plan, "autoseg_work/datasets/Dataset001_Phantom/plan.json")
    run = autoseg.train(dataset, epochs=1, device="cpu", workers=0)
    assert (run.record.steps, run.failures, run.n_untrained) == (3, (), 0)
    report = autoseg.predict(str(tiny.data / "imagesTs"), "masks")
    assert (report.done, report.skipped, report.failures) == (2, 0, ())
    scores = autoseg.evaluate("masks", tiny.data / "labelsTs")
    assert scores.n_cases == 2
    assert scores.mean_dice == scores.label_maps.summary.mean_dice
    assert scores["left kidney"].n_both + scores["left kidney"].n_missed == 2
    scores.raise_if_failed()
    of_numpy = autoseg.evaluate("masks", tiny.data / "labelsTs", tolerance_mm=np.float32(1), radii=[np.int64(2)])
    assert of_numpy.mean_dice == scores.mean_dice
    with pytest.raises(KeyError, match=r"no scores of 'left kidny' - did you mean 'left kidney'\?"):
        scores["left kidny"]
    assert autoseg.train(epochs=1, device="cpu").model == run.model  # the last one, which is finished
    assert autoseg.train(epochs=np.int64(1), fold=np.int64(0), seed=np.uint8(0), device="cpu").model == run.model


def test_report_and_table_list_the_cases_that_could_not_be_measured(tiny: Tiny, tmp_path: Path) -> None:
    data = tmp_path / tiny.data.name
    shutil.copytree(tiny.data, data)
    sorted((data / "imagesTr").iterdir())[0].write_bytes(b"no image")
    work = tmp_path / "work"
    dataset = autoseg.open_dataset(data, root=work)
    with pytest.MonkeyPatch.context() as patched:  # a plan for two minutes of training is too large for a test
        patched.setattr("autoseg.api.plan_in_workspace", lambda *_, **__: autoseg.save_plan(tiny.plan, folder / "plan.json"))
        folder = work / "datasets" / dataset.name
        report = autoseg.train(dataset, epochs=1, device="cpu", workers=0, root=work)
    [failure] = report.failures
    assert (failure.case, failure.stage) == (dataset.cases[0].name, "fingerprint")
    assert "cannot be read as an image" in failure.reason
    assert (report.n_cases, read_failures(folder / "failed.csv")) == (3, [failure])
    with pytest.raises(autoseg.DataError, match="1 case failed; found: case phantom_000: the file cannot be read"):
        report.raise_if_failed()


def test_training_shows_its_progress_unless_logging_is_configured(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logging.getLogger("autoseg")
    shutil.copytree(tiny.workspace.root, tmp_path / "work", ignore=shutil.ignore_patterns("runs"))
    with monkeypatch.context() as patched:
        patched.setattr(logging.getLogger(), "handlers", [])  # pytest's
        log.setLevel(logging.NOTSET)
        autoseg.train(tiny.data, epochs=1, device="cpu", root=tmp_path / "work")
        shown = capsys.readouterr().err
        assert "fold 0: 4 cases to train on, 1 to validate on" in shown
        assert "epoch 1/1  step 3  loss " in shown
        assert (log.handlers, log.level) == ([], logging.NOTSET)
        log.setLevel(logging.WARNING)
        autoseg.train(tiny.data, epochs=1, device="cpu", root=tmp_path / "work", restart=True)
        assert capsys.readouterr().err == ""
    log.setLevel(logging.NOTSET)
    autoseg.train(tiny.data, epochs=1, device="cpu", root=tmp_path / "work", restart=True)
    assert capsys.readouterr().err == ""


def test_objects_are_printed_in_a_few_lines(
    model: autoseg.TrainedModel, tiny: Tiny, tiny_runs: TinyRuns, image: str, tmp_path: Path
) -> None:
    structures = "structures: 4 (left kidney, right kidney, left stone, right stone)"
    assert repr(tiny.dataset) == (f"Dataset Dataset001_Phantom: 5 cases in {tiny.dataset.root}\n  channels: MRI\n  {structures}")
    assert str(model).splitlines()[:3] == [
        f"TrainedModel of Dataset001_Phantom, 3d_fullres: {tiny_runs.runs[0]}",
        "  channels: MRI",
        f"  {structures}",
    ]
    record = model.records[0]
    scores = f"  fold 0: Dice {record.case_dice:.4f} of 1 case not trained on"
    assert str(model).splitlines()[3:] == [scores]
    failure = Failure("b", "preprocess", "no such file")
    trained = TrainReport(tiny_runs.runs[0], (record,), 0, 4, False, failures=(failure,))
    assert repr(trained).splitlines() == [
        "TrainReport: Dataset001_Phantom, 3d_fullres, trained on 4 cases",
        scores,
        f"  model: {tiny_runs.runs[0]}",
        "  not prepared: 1 case",
    ]
    result = model.predict(image, probabilities=True)
    assert result.label_map is not None
    n_voxels = int((result.label_map.data == 1).sum())
    name, voxels, probabilities = repr(result).splitlines()
    assert name == f"Result of {image}"
    assert voxels.startswith(f"  label map {result.label_map.data.shape}, voxels: left kidney {n_voxels}, right kidney ")
    assert probabilities == f"  probabilities (5, {', '.join(map(str, result.label_map.data.shape))})"
    points = autoseg.Landmarks(("tip", "base"), np.array([[0, 0, 0], [np.nan] * 3]), np.array([2, 1]))
    assert repr(autoseg.Result(None, points, np.ones(2), None)) == "Result\n  landmarks: 1 of 2 present"
    report = model.predict_folder(tiny.data / "imagesTs", tmp_path)
    assert repr(report) == "PredictReport: 2 cases predicted, 0 skipped, 0 failed"
    scored = autoseg.evaluate(tmp_path, tiny.data / "labelsTs", dataset=tiny.dataset)
    head, dice = repr(scored).splitlines()
    assert head == "Evaluation of 2 cases"
    assert dice.startswith(f"  mean Dice {scored.mean_dice:.3g}: left kidney {scored['left kidney'].dice.mean:.3g}, right kid")


def test_path_image_and_array_are_predicted_alike(model: autoseg.TrainedModel, image: str) -> None:
    from_file = model.predict(image)
    itk = sitk.ReadImage(image)
    as_itk = model.predict(itk)
    as_array = model.predict(sitk.GetArrayFromImage(itk), spacing=itk.GetSpacing()[::-1])
    as_list = model.predict([Path(image)])
    as_image = model.predict(autoseg.read_image((Path(image),), model.channels))
    assert from_file.label_map is not None
    assert from_file.label_map.data.any()
    for other in (as_itk, as_array, as_list, as_image):
        assert other.label_map is not None
        np.testing.assert_array_equal(other.label_map.data, from_file.label_map.data)
    assert as_itk.label_map.grid == from_file.label_map.grid


def test_result_is_saved_on_its_own_grid_whatever_its_file_is_by_then(
    model: autoseg.TrainedModel, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after os.chdir, or when the file was deleted or overwritten."""
    first = sitk.ReadImage(image)
    for name in ("here", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    shutil.copy(image, "ct.nii.gz")
    other = sitk.Image(first)
    other.SetSpacing((9.0, 9.0, 9.0))
    other.SetOrigin((500.0, 0.0, 0.0))
    sitk.WriteImage(other, str(tmp_path / "elsewhere" / "ct.nii.gz"))
    result = model.predict("ct.nii.gz")
    with pytest.raises(autoseg.UsageError, match=r"the prediction would replace its image; file: ct\.nii\.gz"):
        result.save("ct.nii.gz")
    monkeypatch.chdir(tmp_path / "elsewhere")
    masks = [result.save("a.nii.gz")]
    shutil.copy("ct.nii.gz", tmp_path / "here" / "ct.nii.gz")
    masks.append(result.save("b.nii.gz"))
    (tmp_path / "here" / "ct.nii.gz").unlink()
    masks.append(result.save("c.nii.gz"))
    for mask in masks:
        written = sitk.ReadImage(str(mask))
        np.testing.assert_allclose(written.GetSpacing(), first.GetSpacing(), rtol=1e-6)
        np.testing.assert_allclose(written.GetOrigin(), first.GetOrigin(), atol=1e-4)
        assert result.label_map is not None
        np.testing.assert_array_equal(autoseg.read_label_map(mask, result.label_map.labels).data, result.label_map.data)


def test_result_is_what_the_command_writes(model: autoseg.TrainedModel, tiny_runs: TinyRuns, image: str, tmp_path: Path) -> None:
    words = ["predict", "-i", image, "-o", str(tmp_path / "a"), "-m", str(tiny_runs.runs[0]), "--device", "cpu"]
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    [written] = (tmp_path / "a").glob("*.nii.gz")
    saved = model.predict(image).save(tmp_path / "b" / written.name)
    assert saved.read_bytes() == written.read_bytes()
    from_memory = model.predict(sitk.ReadImage(image)).save(str(tmp_path / "c.mha"))
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(sitk.ReadImage(str(from_memory))), sitk.GetArrayFromImage(sitk.ReadImage(str(written)))
    )


def test_probabilities_sum_to_one(model: autoseg.TrainedModel, image: str) -> None:
    assert model.predict(image).probabilities is None
    probabilities = model.predict(image, probabilities=True).probabilities
    assert probabilities is not None
    assert len(probabilities) == len(model.structures) + 1
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)


def test_folder_lists_what_cannot_be_read(model: autoseg.TrainedModel, tiny: Tiny, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for source in (tiny.data / "imagesTs").iterdir():
        (images / source.name).write_bytes(source.read_bytes())
    (images / "broken_0000.nii.gz").write_bytes(b"no image")
    report = model.predict_folder(str(images), str(tmp_path / "masks"))
    assert (report.done, [f.case for f in report.failures]) == (2, ["broken"])
    with pytest.raises(autoseg.DataError, match="1 case failed; found: case broken: "):
        report.raise_if_failed()


def test_several_folds_are_one_model(tiny_runs: TinyRuns, image: str) -> None:
    both = autoseg.load_model(tiny_runs.folder, device="cpu")
    assert both.runs == tiny_runs.runs
    assert both.predict(image).label_map is not None


def test_evaluation_says_what_it_compares_with(
    tiny: Tiny, tiny_runs: TinyRuns, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "work"
    shutil.copytree(tiny.workspace.dataset_folder(tiny.dataset.name), root / "datasets" / tiny.dataset.name)
    (tmp_path / "masks").mkdir()
    for label in (tiny.data / "labelsTr").iterdir():
        shutil.copy(label, tmp_path / "masks" / label.name)
    references = f"note: no references are given, so they are those of Dataset001_Phantom: {tiny.dataset.root / 'labelsTr'}"
    autoseg.evaluate(tmp_path / "masks", dataset=tiny.dataset, root=root)
    assert caplog.messages == [references]  # no model, so nothing is known of what it has learnt from
    caplog.clear()
    Workspace(root).remember_model(tiny_runs.runs[0])
    autoseg.evaluate(tmp_path / "masks", dataset=tiny.dataset, root=root)
    first, second = caplog.messages
    assert first == references
    assert second.startswith(
        f"note: {tiny_runs.runs[0]} was trained on 4 of these 5 cases; if it has predicted them, their scores"
    )
    caplog.clear()
    validated = shutil.copytree(tiny_runs.runs[1], tmp_path / "fold_1") / "validation"  # on a case that fold 0 has learnt from
    autoseg.evaluate(validated, dataset=tiny.dataset, root=root, out=tmp_path / "scores")
    autoseg.evaluate(tmp_path / "masks", tiny.data / "labelsTr", dataset=tiny.dataset, root=root)
    assert caplog.messages == [references]


def test_the_fold_of_all_cases_is_left_out_beside_numbered_ones(
    tiny_runs: TinyRuns, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for run, fold in zip(tiny_runs.runs, ("0", "all")):
        shutil.copytree(run, tmp_path / f"fold_{fold}")
        record = replace(load_run(run), fold=fold)
        (tmp_path / f"fold_{fold}" / "run.json").write_text(to_json(record), encoding="utf-8")
    alone = autoseg.load_model(tmp_path / "fold_all", device="cpu")
    assert (alone.runs, caplog.messages) == ((tmp_path / "fold_all",), [])
    assert autoseg.load_model(tmp_path, device="cpu").runs == (tmp_path / "fold_0",)
    assert caplog.messages == [f"note: fold_all is left out beside the numbered folds; -m {tmp_path / 'fold_all'} takes it"]
    shutil.rmtree(tmp_path / "fold_0")
    assert autoseg.load_model(tmp_path, device="cpu").runs == (tmp_path / "fold_all",)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: autoseg.open_dataset(7), "dataset must be a path; found: int; allowed: a string or an os.PathLike"),
        (lambda: autoseg.train(7), r"dataset must be a path; found: int; allowed: .*, or what autoseg.open_dataset returned"),
        (lambda: autoseg.train("x", time=[1]), "time must be a number of seconds or words; found: list; allowed: 600, '10m'"),
        (lambda: autoseg.train("x", time="soon"), "not a duration; found: soon"),
        (lambda: autoseg.train("x", time=60, epochs=3), "give either --time or --epochs"),
        (lambda: autoseg.load_model(7), r"model must be a path; found: int; allowed: .*, or what autoseg.train returned"),
        (lambda: autoseg.predict(None, "out"), "images must be a path; found: NoneType"),
        (lambda: autoseg.evaluate(3), "predictions must be a path; found: int"),
        (lambda: autoseg.open_dataset("x", root=3), "root must be a path; found: int"),
        (lambda: autoseg.plan_dataset("x", memory_gb="a"), "memory_gb has the wrong type; found: str; allowed: a number of GB"),
        (lambda: autoseg.train("x", fold=[1]), "fold has the wrong type; found: list; allowed: 0 to 4, 'all', or several"),
        (lambda: autoseg.train("x", epochs=True), "epochs has the wrong type; found: True; allowed: a number of epochs"),
        (lambda: autoseg.load_model("x", device=1), "device has the wrong type; found: 1; allowed: 'auto', 'cpu'"),
        (lambda: autoseg.evaluate("x", radii="2"), "radii has the wrong type; found: str; allowed: a list of numbers"),
        (lambda: autoseg.evaluate("x", radii=["2"]), "radii has the wrong type; found: str; allowed: a list of numbers"),
        (lambda: autoseg.train("x", settings=["a"]), r'settings has the wrong type; found: list; allowed: a dict such as {"trai'),
        (lambda: autoseg.plan_dataset("x", settings="a"), "settings has the wrong type; found: str; allowed: a dict such as"),
        (lambda: autoseg.load_plan(3), "path must be a path; found: int"),
        (lambda: autoseg.save_plan(3, "x"), "plan has the wrong type; found: 3; allowed: an autoseg.Plan"),
        (lambda: autoseg.load_plugin(3), "path must be a path; found: int"),
        (
            lambda: autoseg.read_image(3, ("MR",)),
            "paths must be a path; found: int; allowed: .*, or a list of them, one per channel",
        ),
        (lambda: autoseg.train("x", time=float("nan")), "time must be a number of seconds or words; found: nan; allowed: 600"),
        (lambda: autoseg.plan_dataset("x", time=float("inf")), "time must be a number of seconds or words; found: inf"),
        (lambda: autoseg.plan_dataset("x", family=5), "family has the wrong type; found: 5; allowed: 'plain', 'residual'"),
        (lambda: autoseg.plan_dataset("x", recipe=[]), "recipe has the wrong type; found: list; allowed: 'adamw_constant'"),
        (lambda: autoseg.train("x", seed=-1), "the seed is negative; found: -1; allowed: 0 or more"),
        (lambda: autoseg.train("x", workers=-1), "the number of threads is negative; found: -1; allowed: 0 or more"),
        (lambda: autoseg.evaluate("x", workers=-1), "the number of threads is negative; found: -1; allowed: a number of thr"),
        (lambda: autoseg.make_phantoms(3, 1, 1), "folder must be a path; found: int"),
    ],
)
def test_a_wrong_argument_is_one_sentence(call: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(autoseg.UsageError, match=message):
        call()
    assert not list(tmp_path.iterdir())


def test_wrong_options_of_a_folder(model: autoseg.TrainedModel, tiny: Tiny, tmp_path: Path) -> None:
    images = tiny.data / "imagesTs"
    with pytest.raises(autoseg.UsageError, match="the number of threads is negative; found: -1; allowed: a number of threads"):
        model.predict_folder(images, tmp_path, workers=-1)
    with pytest.raises(autoseg.UsageError, match=r"landmarks_format has the wrong type; found: 3; allowed: 'mrk\.json'"):
        model.predict_folder(images, tmp_path, landmarks_format=3)
    assert not list(tmp_path.iterdir())


def test_several_processes_train_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(autoseg.UsageError, match=r"on the command line only; found: 2 processes; fix: torchrun .*autoseg train"):
        autoseg.train("x")


def test_wrong_images_and_endings(model: autoseg.TrainedModel, tiny: Tiny, image: str, tmp_path: Path) -> None:
    for wrong, message in (
        (3, "an image must be a path"),
        (tiny.data, r"a folder is no image; .*fix: predict_folder\(images, out\)"),
        ([], "an image must be a path"),
    ):
        with pytest.raises(autoseg.UsageError, match=message):
            model.predict(wrong)
    with pytest.raises(autoseg.UsageError, match="spacing is for numpy arrays, files have their own"):
        model.predict(image, spacing=(1, 1, 1))
    result = model.predict(image)
    with pytest.raises(autoseg.UsageError, match=r"the model has learnt no landmarks; .*allowed: a label map: "):
        result.save(tmp_path / "points.mrk.json")
    with pytest.raises(autoseg.UsageError, match=r"no known ending; .*\.nii\.gz, .* for a label map, \.mrk\.json"):
        result.save(tmp_path / "mask.docx")


def test_strings_are_paths_everywhere(tiny: Tiny, image: str, tmp_path: Path) -> None:
    folder = str(tmp_path)
    scan = autoseg.read_image(image, ("MR",))
    autoseg.write_image(f"{folder}/scan.mha", scan)
    labels = autoseg.LabelMap((scan.data[0] > 0).astype(np.uint8), scan.grid, autoseg.LabelSet(("bright",), (1,)))
    autoseg.write_label_map(f"{folder}/mask.nrrd", labels)
    autoseg.write_label_map(f"{folder}/mask.nii.gz", labels, image)
    assert autoseg.read_label_map(f"{folder}/mask.nrrd", labels.labels).grid.corner_distance(scan.grid) < 1e-4
    points = autoseg.Landmarks(("tip",), np.zeros((1, 3)), np.ones(1, int))
    autoseg.write_landmarks(f"{folder}/tip.fcsv", points)
    autoseg.save_plan(tiny.plan, f"{folder}/plan.json")
    assert autoseg.load_plan(f"{folder}/plan.json") == tiny.plan
    assert autoseg.make_phantoms(f"{folder}/phantoms", 1, 0, shape=(4, 16, 16)).is_dir()
