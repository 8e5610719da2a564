"""The demo: every stage runs and leaves what it points at."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny import shrink_plan

from autoseg.nets.device import Device
from autoseg.pipeline import demo
from autoseg.plan import save_plan
from autoseg.runs.budget import RunBudget
from autoseg.runs.record import load_run


def check_demo(folder: Path, report: demo.Report, n_test: int) -> Path:
    assert report.n_cases == n_test
    assert isinstance(report.summary.mean_dice, float)
    about = folder / "autoseg_work" / "datasets" / "Dataset001_Phantom"
    assert all((about / name).is_file() for name in ("fingerprint.json", "plan.json", "splits.json"))
    (run,) = (folder / "autoseg_work" / "runs" / "Dataset001_Phantom").glob("*/fold_0")
    assert (run / "progress.png").is_file()
    assert len(list((folder / "masks").glob("phantom_*.nii.gz"))) == n_test
    assert all((folder / "masks" / name).is_file() for name in ("per_case.csv", "summary.json"))
    assert (folder / "overlay.png").read_bytes()[:4] == b"\x89PNG"
    return run


def test_demo_runs_and_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, float32_cpu: Device
) -> None:
    """With few cases, a tiny network and two epochs instead of minutes."""
    planned = demo.plan_dataset

    def plan_small(dataset: Any, workspace: Any, device: str) -> Any:
        plan = shrink_plan(planned(dataset, workspace, device, 8))
        save_plan(plan, workspace.dataset_folder(dataset.name) / "plan.json")
        return plan

    monkeypatch.setattr(demo, "plan_dataset", plan_small)
    monkeypatch.setattr(demo, "choose_device", lambda _: float32_cpu)
    monkeypatch.setattr(demo, "RunBudget", lambda seconds: RunBudget(epochs=2))
    monkeypatch.setattr(demo, "N_TRAINING", 5)
    monkeypatch.setattr(demo, "N_TEST", 1)
    with caplog.at_level(logging.INFO, "autoseg"):
        run = check_demo(tmp_path, demo.run_demo(tmp_path, 60, "cpu"), 1)
    for command in ("plan_and_preprocess -d", "train --time 60s", "predict -i", "evaluate -p"):
        assert f"autoseg {command}" in caplog.text
    assert "mean Dice" in caplog.text
    demo.run_demo(tmp_path, 60, "cpu")
    assert (run.parent / "fold_0.previous" / "run.json").is_file()


@pytest.mark.slow
def test_demo_keeps_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "N_TRAINING", 5)
    monkeypatch.setattr(demo, "N_TEST", 1)
    run = check_demo(tmp_path, demo.run_demo(tmp_path, 25, "cpu"), 1)
    assert load_run(run).seconds < 30
