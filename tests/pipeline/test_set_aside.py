"""A new start sets runs aside: what is kept, what is lost, and what comes back where it fails."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers.runs import EPOCHS
from helpers.tiny import DATASET_NAME as NAME
from helpers.tiny import Tiny, TinyRuns

from autoseg.errors import DataError, UsageError
from autoseg.pipeline.training import set_runs_aside, train_dataset
from autoseg.pipeline.workspace import Workspace
from autoseg.runs.record import is_finished, load_run
from autoseg.training import train as train_module
from autoseg.training.loader import Loader
from autoseg.training.run import TrainingRun


def test_forgetting_moves_a_run_aside(tmp_path: Path) -> None:
    run = tmp_path / "fold_0"
    assert set_runs_aside([run]) == ()  # nothing there, nothing to do
    for content in ("first", "second"):
        run.mkdir()
        (run / "metrics.csv").write_text(content, encoding="utf-8")
        assert set_runs_aside([run]) == (run,)
        assert not run.exists()
        assert (tmp_path / "fold_0.previous" / "metrics.csv").read_text(encoding="utf-8") == content


def test_an_unfinished_run_does_not_replace_a_finished_one(tiny_runs: TinyRuns, tmp_path: Path) -> None:
    run = tmp_path / "fold_0"
    shutil.copytree(tiny_runs.runs[0], tmp_path / "fold_0.previous")
    run.mkdir()
    with pytest.raises(UsageError, match=r"found: .*fold_0, which would be deleted"):
        set_runs_aside([run], run)
    assert set_runs_aside([run], tmp_path / "fold_0.previous") == (run,)
    assert (run.exists(), is_finished(tmp_path / "fold_0.previous")) == (False, True)
    shutil.copytree(tiny_runs.runs[1], run)
    set_runs_aside([run])
    assert load_run(tmp_path / "fold_0.previous").fold == "1"


@pytest.mark.parametrize("steps", [0, 2, 4])
def test_a_run_is_put_back_where_the_new_one_fails_before_its_first_epoch_is_over(
    steps: int, tiny: Tiny, tiny_runs: TinyRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(tiny.workspace.root, tmp_path / "work", ignore=shutil.ignore_patterns("runs"))
    workspace = Workspace(tmp_path / "work")
    run = workspace.run(NAME, "3d_fullres", "0")
    shutil.copytree(tiny_runs.runs[0], run)
    usual = train_module.step

    def failing(training: TrainingRun, loader: Loader, progress: float) -> None:
        if training.state.step == steps:
            raise DataError("a loss that fails")
        usual(training, loader, progress)

    monkeypatch.setattr(train_module, "step", failing)
    for _ in range(2):
        with pytest.raises(DataError, match="a loss that fails"):
            train_dataset(tiny.dataset, workspace, options=EPOCHS, device="cpu", restart=True)
        kept = run if steps < 3 else run.with_name("fold_0.previous")
        assert load_run(kept) == tiny_runs.records[0]
        assert run.with_name("fold_0.previous").exists() == (kept != run)
    assert ("so the earlier one is back" in caplog.text) == (kept == run)


@pytest.mark.parametrize(
    ("needed", "found"),
    [
        ("fold_1", "fold_1, which would be moved aside"),
        ("fold_1.previous", r"fold_1\.previous, which would be deleted"),
        ("link", "fold_1, which would be moved aside"),
        ("fold_1/copy", "fold_1, which would be moved aside"),
    ],
)
def test_a_run_that_is_still_needed_is_not_forgotten(tmp_path: Path, needed: str, found: str) -> None:
    runs = [tmp_path / "fold_0", tmp_path / "fold_1"]
    for name in ("fold_0", "fold_1/copy", "fold_1.previous", "fold_2.previous"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "fold_1", target_is_directory=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=f"in a run that --restart takes away; .*{found}; fix: copy the folder elsewhere"):
        set_runs_aside(runs, tmp_path / needed)
    assert sorted(tmp_path.rglob("*")) == before
    set_runs_aside([tmp_path / "fold_2"], tmp_path / "fold_2.previous")  # no run there, so nothing is replaced
    assert sorted(tmp_path.rglob("*")) == before
    set_runs_aside(runs, tmp_path)  # the folder above holds what is moved, but not weights of its own
    assert not any(run.exists() for run in runs)
