"""Evaluation on a workspace: whose references count, and what is told about cases that a model has learnt from."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.tiny import DATASET_NAME as NAME
from helpers.tiny import Tiny, TinyRuns

import autoseg
from autoseg.dataset import Case
from autoseg.dataset.phantoms import make_phantoms
from autoseg.dataset.predicted import Maker, Origin, image_stamp, makers, recorded
from autoseg.errors import UsageError
from autoseg.pipeline.evaluation import dataset_of_predictions, note_training_cases
from autoseg.pipeline.workspace import Workspace
from autoseg.runs.training_cases import image_sizes, load_training_cases, save_training_cases, trained_on
from autoseg.system.records import to_json

MAKER = Maker("12ab", NAME, (), mirror=True)


def write_predictions(folder: Path, cases: Sequence[Case], maker: Maker = MAKER) -> Path:
    for case in cases:
        assert case.label is not None
        with recorded(folder, Origin(case.label.name, case.name, maker, image_stamp(case))) as path:
            shutil.copy(case.label, path)
    return folder


@pytest.fixture
def root(tiny: Tiny, tmp_path: Path) -> Path:
    """A workspace that knows the tiny dataset, and in which another one was planned last."""
    root = tmp_path / "work"
    shutil.copytree(tiny.workspace.dataset_folder(NAME), root / "datasets" / NAME)
    Workspace(root).remember_dataset(make_phantoms(tmp_path / "Dataset002_Other", 1, 0, shape=(12, 32, 40)))
    return root


def test_predictions_are_compared_with_the_dataset_of_their_model(
    tiny: Tiny, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    masks = write_predictions(tmp_path / "masks", tiny.dataset.cases[:2])
    assert autoseg.evaluate(masks, root=root).mean_dice == 1
    first, second = caplog.messages
    assert first.startswith(f"note: the predictions are of a model of {NAME} and evaluated so, not as of {tmp_path}")
    assert second == f"note: no references are given, so they are those of {NAME}: {tiny.data / 'labelsTr'}"
    caplog.clear()
    unknown = shutil.copytree(masks, tmp_path / "unknown", ignore=shutil.ignore_patterns("*.jsonl"))
    assert dataset_of_predictions(unknown, Workspace(root), has_references=False).name == "Dataset002_Other"
    assert caplog.messages == []


def test_validation_cases_are_those_of_their_run(tiny_runs: TinyRuns, root: Path) -> None:
    assert dataset_of_predictions(tiny_runs.runs[0] / "validation", Workspace(root), has_references=False).name == NAME


def test_a_dataset_that_is_not_found_is_not_replaced_by_another(
    tiny: Tiny, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    masks = write_predictions(tmp_path / "masks", tiny.dataset.cases[:1], replace(MAKER, dataset="Dataset003_Gone"))
    message = r"is not found; file: .*masks; found: Dataset003_Gone; planned last: .*Dataset002_Other; fix: -d .*-r"
    with pytest.raises(UsageError, match=message):
        autoseg.evaluate(masks, root=root)
    assert autoseg.evaluate(masks, tiny.data / "labelsTr", root=root).mean_dice == 1  # the phantoms' names are the same
    assert "the predictions are of Dataset003_Gone, which is not found; structures are taken to be those of" in caplog.text
    write_predictions(masks, tiny.dataset.cases[1:2])
    with pytest.raises(UsageError, match=rf"of models of several datasets; .*found: {NAME}, Dataset003_Gone; fix: -d"):
        autoseg.evaluate(masks, root=root)
    assert autoseg.evaluate(masks, dataset=tiny.dataset, root=root).mean_dice == 1


def test_cases_that_a_model_has_learnt_from_are_told(
    tiny: Tiny, tiny_runs: TinyRuns, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    learnt = [case.name for case in tiny.job(tmp_path).training]
    assert sorted(load_training_cases(tiny_runs.runs[:1])) == learnt
    assert trained_on(tiny_runs.runs[:1], tiny.dataset.cases) == learnt
    maker = replace(MAKER, runs=(str(tiny_runs.runs[0]),))
    masks = write_predictions(tmp_path / "masks", tiny.dataset.cases, maker)
    for has_references in (True, False):
        caplog.clear()
        names = [case.name for case in tiny.dataset.cases]
        note_training_cases(tiny.dataset, Workspace(root), masks, names, has_references=has_references)
        assert caplog.messages == ["note: their model was trained on 4 of these 5 cases, whose scores say nothing about new ones"]
    caplog.clear()
    other = [replace(next(case for case in tiny.dataset.cases if case.name not in learnt), name=learnt[0])]
    assert load_training_cases(tiny_runs.runs[:1])[learnt[0]] not in ("", image_sizes(other[0]))
    assert trained_on(tiny_runs.runs[:1], other) == []  # another image of the same name
    masks = write_predictions(tmp_path / "other", other, maker)
    note_training_cases(tiny.dataset, Workspace(root), masks, learnt, has_references=False)
    assert caplog.messages == []


def test_training_cases_are_kept_when_a_run_goes_on(tiny: Tiny, tmp_path: Path) -> None:
    one, two = tiny.dataset.cases[:2]
    save_training_cases(tmp_path, [one])
    save_training_cases(tmp_path, [two, replace(one, name="gone", images=(tmp_path / "gone.nii.gz",))])
    assert list(load_training_cases([tmp_path, tmp_path / "none"])) == [one.name, two.name, "gone"]
    assert trained_on([tmp_path], [one, replace(one, name="gone", images=(tmp_path / "gone.nii.gz",))]) == [one.name]


def test_predicting_training_images_is_noted(
    tiny: Tiny, tiny_runs: TinyRuns, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    autoseg.predict(tiny.data / "imagesTr", tmp_path / "a", model=tiny_runs.runs[0], device="cpu")
    run = shutil.copytree(tiny_runs.runs[0], tmp_path / "fold_0")
    (run / "run.json").write_text(to_json(replace(tiny_runs.records[0], dataset="Dataset009_Renamed")), encoding="utf-8")
    autoseg.predict(tiny.data / "imagesTs", tmp_path / "b", model=run, device="cpu")
    assert [maker.dataset for folder in "ab" for maker in makers(tmp_path / folder)] == [NAME, "Dataset009_Renamed"]
    [note] = caplog.messages
    assert note.startswith("note: the model was trained on 4 of these 5 images (phantom_0")
