"""The train command, as it is typed: several folds, going on, anew, and what cannot be asked for."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.limits import HANGS
from helpers.tiny import Tiny, TinyRuns
from typer.testing import CliRunner, Result

from autoseg.cli import app
from autoseg.dataset import Case
from autoseg.errors import AutosegError, UsageError
from autoseg.nets.device import Device
from autoseg.pipeline import plan as planning
from autoseg.pipeline.training import train_dataset
from autoseg.pipeline.workspace import Workspace
from autoseg.runs.budget import RunBudget
from autoseg.runs.job import TrainingJob
from autoseg.runs.options import TrainingOptions
from autoseg.system import workers as batch
from autoseg.training import distributed as parallel
from autoseg.training import loader
from autoseg.training import tensorboard as events
from autoseg.training import train as train_module
from autoseg.training.train import FoldResult


def typed(tiny: Tiny, root: Path, *words: str) -> Result:
    """`autoseg train` on a copy of the tiny dataset's workspace, without its runs."""
    if not (root / "datasets").exists():
        shutil.copytree(tiny.workspace.root, root, ignore=shutil.ignore_patterns("runs"), dirs_exist_ok=True)
    command = ["train", "-d", str(tiny.data), "--root", str(root), "--device", "cpu", *words]
    return CliRunner().invoke(app, command, catch_exceptions=False)


def test_folds_in_turn_then_one_further_then_anew(tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "work"
    runs = root / "runs" / "Dataset001_Phantom" / "3d_fullres"
    done = typed(tiny, root, "-f", "0,1", "--epochs", "1", "--json")
    assert done.exit_code == 0
    assert [record["fold"] for record in json.loads(done.stdout)] == ["0", "1"]
    assert Workspace(root).last_model() == runs.resolve()
    done = typed(tiny, root, "-f", "1", "--extend", "1")
    assert done.exit_code == 0
    assert "left kidney" in done.stdout
    assert Workspace(root).last_model() == (runs / "fold_1").resolve()
    done = typed(tiny, root, "-f", "1", "--epochs", "1", "--json")
    assert json.loads(done.stdout)["steps"] == 6
    assert "already trained" in caplog.text
    done = typed(tiny, root, "-f", "1", "--epochs", "1", "--restart", "--json", "--pretrained", str(runs / "fold_0"))
    assert json.loads(done.stdout)["steps"] == 3
    assert str(runs / "fold_0") in json.loads(done.stdout)["pretrained"]
    assert (runs / "fold_1.previous" / "run.json").is_file()
    for name in ("fold_1", "fold_1.previous"):
        with pytest.raises(UsageError, match="weights to begin with lie in a run that --restart takes away"):
            typed(tiny, root, "-f", "0,1", "--epochs", "1", "--restart", "--pretrained", str(runs / name))
    assert sorted(p.name for p in runs.glob("[!.]*")) == ["fold_0", "fold_1", "fold_1.previous"]


@pytest.mark.parametrize("is_listed", [True, False])
def test_cases_that_cannot_be_used_are_told(
    tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture, is_listed: bool
) -> None:
    root, missing = tmp_path / "work", tmp_path / "broken.nii.gz"
    shutil.copytree(tiny.workspace.root, root, ignore=shutil.ignore_patterns("runs"))
    failed = root / "datasets" / tiny.dataset.name / "failed.csv"
    if is_listed:
        failed.write_text("case,stage,reason\nbroken,fingerprint,no such file\n", encoding="utf-8")
    dataset = replace(tiny.dataset, cases=(*tiny.dataset.cases, Case("broken", (missing,), missing)))
    train_dataset(dataset, Workspace(root), options=TrainingOptions(RunBudget(epochs=1)), device="cpu")
    reason = f"could not be prepared: see {failed}" if is_listed else "are not in the fingerprint: autoseg fingerprint"
    assert f"note: not trained on: broken; 1 of 6 cases {reason}" in caplog.messages


def test_only_what_is_trained_now_tells_the_speed(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "multiply_accumulates", lambda *_: 10**12)  # the tiny network's steps would tell nothing
    root = tmp_path / "work"
    typed(tiny, root, "--epochs", "1")
    assert Workspace(root).speeds()["cpu"] > 0
    Workspace(root).remember_speed("cpu", 0.5)
    typed(tiny, root, "--epochs", "1")  # skipped, since it is finished
    assert Workspace(root).speeds() == {"cpu": 0.5}
    typed(tiny, root, "--extend", "1")
    assert Workspace(root).speeds()["cpu"] > 0.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--extend", "5", "--time", "1h"), "--extend says how much is added"),
        (("--extend", "5", "--restart"), "found: --extend 5 with --restart"),
        (("--deterministic", "--time", "1h", "--restart"), "limited by time cannot be repeated exactly"),
        (("--freeze",), "--freeze keeps the weights of another model"),
        (("--pretrained", "nowhere"), "no weights to begin with"),
        (("-f", "0,,1"), "a fold without name"),
        (("-f", "0,7", "--restart"), "no fold '7'"),
        (("--time", "", "--restart"), "not a duration"),
        (("--restart",), "more memory than is free"),
    ],
)
def test_what_cannot_be_asked_for_costs_no_run(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.setattr(Device, "free_gb", lambda _: 1e-6)
    root = tmp_path / "work"
    run = root / "runs" / "Dataset001_Phantom" / "3d_fullres" / "fold_0"
    run.mkdir(parents=True)
    with pytest.raises(AutosegError, match=message):
        typed(tiny, root, *words)
    assert run.is_dir()  # --restart has not moved it


@pytest.mark.parametrize("words", [("--time", "soon"), ("-f", "0,,1"), ("--extend", "5", "--time", "1h")])
def test_a_misspelt_option_is_refused_before_torch_is_loaded(words: tuple[str, ...]) -> None:
    """That takes seconds; on a busy machine a quarter of a minute."""
    code = "import sys\nfrom autoseg.cli import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "train", *words], capture_output=True, text=True, timeout=HANGS, check=False
    )
    assert (done.returncode, done.stdout) == (2, "False\n")


def test_folds_that_were_left_untrained_are_told_by_the_exit_code(
    tiny: Tiny, tiny_runs: TinyRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tiny_runs.records[0]
    monkeypatch.setattr(train_module, "train_folds", lambda jobs, *_: iter([FoldResult(jobs[0], record, told_to_stop=True)]))
    assert typed(tiny, tmp_path, "-f", "0,1").exit_code == 4
    assert typed(tiny, tmp_path, "-f", "0").exit_code == 0


def test_no_workers_means_no_thread(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (batch, loader):
        monkeypatch.setattr(module, "ThreadPoolExecutor", None)
    root = tmp_path / "work"
    typed(tiny, root, "--epochs", "1", "--workers", "0")
    shutil.rmtree(root / "prepared")
    images = tiny.data / "imagesTs"
    for words in (["preprocess", "-d", str(tiny.data)], ["predict", "-i", str(images), "-o", str(tmp_path / "masks")]):
        command = [*words, "--root", str(root), "--workers", "0"]
        assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    with pytest.raises(TypeError, match="not callable"):
        typed(tiny, root, "--epochs", "1", "--restart")


def test_tensorboard_that_is_missing_costs_no_run(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    run = tmp_path / "work" / "runs" / "Dataset001_Phantom" / "3d_fullres" / "fold_0"
    run.mkdir(parents=True)
    with pytest.raises(UsageError, match=r'not installed; .*pip install "autoseg-medical\[tensorboard\]"'):
        typed(tiny, tmp_path / "work", "--tensorboard", "--restart")
    assert run.is_dir()


@pytest.mark.parametrize(("processes", "told"), [(1, ["cpu"]), (2, [])])
def test_the_speed_of_several_is_not_that_of_one(
    tiny: Tiny, tiny_runs: TinyRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int, told: list[str]
) -> None:
    speeds: list[str] = []
    record = tiny_runs.records[0]
    monkeypatch.setattr(train_module, "train_folds", lambda jobs, *_: iter([FoldResult(jobs[0], record, False)]))
    monkeypatch.setattr(parallel, "world_size", lambda: processes)
    monkeypatch.setattr(parallel, "barrier", lambda: None)
    monkeypatch.setattr("autoseg.pipeline.training.note_speed", lambda *given: speeds.append(given[3]))
    assert typed(tiny, tmp_path / "work").exit_code == 0
    assert speeds == told


def test_the_command_compiles_and_tells_tensorboard(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[TrainingOptions] = []

    def train_folds(jobs: list[TrainingJob], options: TrainingOptions, *_: object) -> Iterator[FoldResult]:
        asked.append(options)
        return iter(())

    monkeypatch.setattr(train_module, "train_folds", train_folds)
    monkeypatch.setattr(events, "check_tensorboard", lambda: None)
    for words, wanted in (
        ((), (None, False)),
        (("--compile",), (True, False)),
        (("--no-compile",), (False, False)),
        (("--tensorboard",), (None, True)),
    ):
        with pytest.raises(IndexError):  # there is no record to show
            typed(tiny, tmp_path / "work", *words)
        assert (asked[-1].compiled, asked[-1].tensorboard) == wanted
