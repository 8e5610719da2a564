"""Two datasets whose folders have the same name, and one that was moved."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from helpers.tiny import DATASET_NAME as NAME
from helpers.tiny import Tiny
from typer.testing import CliRunner

from autoseg.cli import app
from autoseg.dataset import Dataset, open_dataset
from autoseg.errors import DataError, PlanError, UsageError
from autoseg.pipeline.fingerprint import ensure_fingerprint, fingerprint_dataset
from autoseg.pipeline.ownership import check_owner, remember_owner
from autoseg.pipeline.plan import find_plan, plan_dataset
from autoseg.pipeline.preprocess import preprocess_dataset
from autoseg.pipeline.training import training_job
from autoseg.pipeline.workspace import Workspace


@pytest.fixture
def other(dataset: Dataset, tmp_path: Path) -> Dataset:
    """Another dataset of the same name."""
    shutil.copytree(dataset.root, tmp_path / "other" / NAME)
    return open_dataset(tmp_path / "other" / NAME)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_no_stage_touches_the_work_on_another_dataset(dataset: Dataset, other: Dataset, workspace: Workspace) -> None:
    fingerprint_dataset(dataset, workspace, workers=0)
    preprocess_dataset(dataset, workspace, workers=0)
    before = contents(workspace.root)
    message = (
        rf"two datasets are called '{NAME}', .*; file: {other.root}; found: work on {dataset.root}; fix: give another --root, or "
        rf"rename the folder; .*delete {workspace.dataset_folder(NAME) / 'source.json'}"
    )
    for stage in (
        lambda: fingerprint_dataset(other, workspace, workers=0),
        lambda: ensure_fingerprint(other, workspace),
        lambda: plan_dataset(other, workspace, replan=True),
        lambda: preprocess_dataset(other, workspace, workers=0),
        lambda: training_job(other, workspace, None, "0"),
        lambda: find_plan(other.root, workspace),
    ):
        with pytest.raises(UsageError, match=message):
            stage()
    assert contents(workspace.root) == before


@pytest.mark.parametrize("command", ["plan_and_preprocess", "fingerprint", "plan", "preprocess", "train"])
def test_no_command_does(dataset: Dataset, other: Dataset, workspace: Workspace, command: str) -> None:
    """Not even while the dataset is opened, when values of label maps are kept."""
    fingerprint_dataset(dataset, workspace, workers=0)
    (other.root / "dataset.json").unlink()
    before = contents(workspace.root)
    done = CliRunner().invoke(app, [command, "-d", str(other.root), "--root", str(workspace.root)])
    assert isinstance(done.exception, UsageError)
    assert str(dataset.root) in str(done.exception)
    assert contents(workspace.root) == before


def test_a_dataset_that_was_moved(
    dataset: Dataset, other: Dataset, workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    fingerprint_dataset(dataset, workspace, workers=0)
    assert caplog.messages == []
    shutil.rmtree(dataset.root)
    dataset.root.mkdir()  # an empty folder is no dataset
    fingerprint_dataset(other, workspace, workers=0)
    assert caplog.messages == [f"note: {NAME} has moved from {dataset.root} to {other.root}"]
    fingerprint_dataset(other, workspace, workers=0)
    assert len(caplog.messages) == 1
    shutil.copytree(other.root, dataset.root, dirs_exist_ok=True)
    with pytest.raises(UsageError, match=f"two datasets are called '{NAME}'.*found: work on {other.root}"):
        check_owner(NAME, dataset.root, workspace)


def test_work_from_before_roots_were_remembered_and_a_move_before_preparing(
    dataset: Dataset, other: Dataset, workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    assert not (workspace.dataset_folder(NAME) / "source.json").exists()
    preprocess_dataset(dataset, workspace, workers=0)
    assert (workspace.dataset_folder(NAME) / "source.json").read_text() == f'{{\n  "root": "{dataset.root.resolve()}"\n}}\n'
    shutil.rmtree(dataset.root)
    assert preprocess_dataset(other, workspace, workers=0).removed == ()
    assert caplog.messages == [f"note: {NAME} has moved from {dataset.root} to {other.root}"]


def test_one_folder_under_several_paths(
    dataset: Dataset, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    link = tmp_path / "links" / NAME
    link.parent.mkdir()
    os.symlink(dataset.root, link)
    monkeypatch.chdir(tmp_path)
    for root in (Path(NAME), link, dataset.root, Path("links") / ".." / NAME):
        remember_owner(NAME, root, workspace)
        check_owner(NAME, root, workspace)
    assert (workspace.dataset_folder(NAME) / "source.json").read_text() == f'{{\n  "root": "{dataset.root.resolve()}"\n}}\n'
    assert caplog.messages == []


def test_a_dataset_without_a_usable_case_claims_nothing(dataset: Dataset, other: Dataset, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "new")
    for file in (dataset.root / "imagesTr").iterdir():
        file.write_bytes(b"broken")
    with pytest.raises(DataError, match="no case can be used"):
        fingerprint_dataset(dataset, workspace, workers=0)
    fingerprint_dataset(other, workspace, workers=0)


def test_a_damaged_note(tiny: Tiny, workspace: Workspace) -> None:
    (workspace.dataset_folder(NAME) / "source.json").write_text("{")
    with pytest.raises(PlanError, match=r"not valid JSON; file: .*source\.json; .*fix: the text ends too early"):
        check_owner(NAME, tiny.data, workspace)
    (workspace.dataset_folder(NAME) / "source.json").write_text('{"root": 3}')
    with pytest.raises(
        PlanError, match=r"'root' has the wrong type; .*source\.json; .*fix: undo the last edit, or delete it if the"
    ):
        check_owner(NAME, tiny.data, workspace)
    (workspace.dataset_folder(NAME) / "source.json").write_text(f'{{"root": "/{"a" * 300}"}}')
    with pytest.raises(PlanError, match=r"'root' is no path; file: .*source\.json"):
        check_owner(NAME, tiny.data, workspace)
