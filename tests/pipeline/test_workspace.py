from __future__ import annotations

from pathlib import Path

import pytest

from autoseg.errors import UsageError
from autoseg.pipeline.workspace import Last, Workspace


def test_paths(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert workspace.dataset_folder("Task01_X") == tmp_path / "datasets" / "Task01_X"
    assert workspace.prepared("Task01_X", "2d") == tmp_path / "prepared" / "Task01_X" / "2d"
    assert workspace.run("Task01_X", "2d", "all") == tmp_path / "runs" / "Task01_X" / "2d" / "fold_all"
    assert workspace.prepared("Task01_X") == tmp_path / "prepared" / "Task01_X"
    assert list(tmp_path.iterdir()) == []  # asking makes nothing


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../..", "/tmp/a", "a\\b", "a\nb", "a\0b", "a" * 256])
def test_no_name_leads_out_of_the_workspace(tmp_path: Path, name: str) -> None:
    workspace = Workspace(tmp_path)
    message = r"a {} needs a name that can be a file's; file: .*; found: .*; allowed: 1 to 220 bytes"
    for ask in (workspace.dataset_folder, workspace.label_values, workspace.prepared, workspace.runs):
        with pytest.raises(UsageError, match=message.format("dataset")):
            ask(name)
    with pytest.raises(UsageError, match=message.format("dataset")):
        workspace.run(name, "2d", "0")
    with pytest.raises(UsageError, match=message.format("configuration")):
        workspace.prepared("Task01_X", name)
    with pytest.raises(UsageError, match=message.format("configuration")):
        workspace.run("Task01_X", name, "0")
    with pytest.raises(UsageError, match=message.format("fold")):
        workspace.run("Task01_X", "2d", name)


def test_the_workspace_may_be_given_in_any_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Workspace(Path("../work")).dataset_folder("a") == Path("../work/datasets/a")
    assert Workspace(Path()).runs("a") == Path("runs/a")


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
    with pytest.raises(UsageError, match=r"no model yet; file: .*; fix: autoseg train, or give -m MODEL"):
        workspace.last_model()


def test_a_model_that_is_still_there(tmp_path: Path) -> None:
    workspace, run = Workspace(tmp_path), tmp_path / "runs" / "X" / "3d_fullres" / "fold_0"
    assert not workspace.has_model()
    for remembered in (run, run.parent):  # one fold, or all of them
        workspace.remember_model(remembered)
        assert not workspace.has_model()
        run.mkdir(parents=True, exist_ok=True)
        (run / "run.json").touch()
        assert workspace.has_model()
        (run / "run.json").unlink()


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b'{"dataset": 3}',
        '{"dataset": "/Köln"}'.encode("latin-1"),
        b'{"model": "' + b"a" * 5000 + b'"}',
        b'{"dataset": "/a\\u0000b"}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_note_is_begun_anew(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    workspace = Workspace(tmp_path)
    (tmp_path / "last.json").write_bytes(content)
    assert workspace.last() == Last()
    assert "note: nothing is remembered: " in caplog.text
    assert f"file: {tmp_path / 'last.json'}" in caplog.text
    workspace.remember_model(tmp_path)
    caplog.clear()
    assert workspace.last_model() == tmp_path.resolve()
    assert not caplog.text


def test_damaged_speeds_are_measured_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    workspace = Workspace(tmp_path)
    (tmp_path / "speeds.json").write_text('{"cpu": NaN}')
    assert workspace.speeds() == {}
    assert "note: nothing is remembered: 'cpu' cannot be used; file: " in caplog.text
    workspace.remember_speed("cpu", 12.5)
    assert workspace.speeds() == {"cpu": 12.5}
    (tmp_path / "speeds.json").write_text('{"cpu": 12.5, "cuda": -1, "mps": 0}')
    assert workspace.speeds() == {"cpu": 12.5}


@pytest.mark.parametrize("root", ["a" * 300, "a/" * 2500, "a\0b", "a\nb", "\x1b[2J"])
def test_a_root_that_is_no_path(root: str) -> None:
    with pytest.raises(UsageError, match=r"^--root is no path; found: '.*; allowed: up to 255 bytes between two slashes"):
        Workspace(Path(root))
