from __future__ import annotations

from pathlib import Path

import pytest

from autoseg.errors import PlanError, UsageError
from autoseg.workspace import Last, Workspace


def test_paths(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert workspace.about("Task01_X") == tmp_path / "datasets" / "Task01_X"
    assert workspace.prepared("Task01_X", "2d") == tmp_path / "prepared" / "Task01_X" / "2d"
    assert workspace.run("Task01_X", "2d", "all") == tmp_path / "runs" / "Task01_X" / "2d" / "fold_all"
    assert list(tmp_path.iterdir()) == []  # asking makes nothing


def test_dataset_and_model_are_remembered_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(tmp_path / "work")
    assert workspace.last() == Last()
    monkeypatch.chdir(tmp_path)
    workspace.remember_dataset(Path("Task01_X"))
    workspace.remember_model(Path("run"))
    assert workspace.last_dataset() == tmp_path.resolve() / "Task01_X"  # absolute: it is found from anywhere
    assert workspace.last_model() == tmp_path.resolve() / "run"
    workspace.remember_dataset(Path("Task02_Y"))
    assert workspace.last_dataset().name == "Task02_Y"
    assert workspace.last_model().name == "run"


def test_nothing_to_remember(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with pytest.raises(UsageError, match=r"no dataset planned yet; file: .*; fix: autoseg plan_and_preprocess -d DATASET"):
        workspace.last_dataset()
    workspace.remember_dataset(tmp_path)
    with pytest.raises(UsageError, match=r"no finished model yet; file: .*; fix: autoseg train, or give -m MODEL"):
        workspace.last_model()


def test_a_damaged_note(tmp_path: Path) -> None:
    (tmp_path / "last.json").write_text("{")
    with pytest.raises(PlanError, match=r"not valid JSON; file: .*last\.json"):
        Workspace(tmp_path).last()
