"""Validation on whole cases. What it writes and scores is tested with training, in test_train.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Tiny, TinyRuns

from autoseg.device import Device
from autoseg.model import load_model
from autoseg.validation import validate


def test_no_case_is_begun_after_the_time_is_up(
    tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, _ = load_model(tiny_runs.runs[:1], float32_cpu)
    task = tiny.task(tmp_path)
    assert validate(model, task.training, task.prepared, tmp_path, seconds=0).n_cases == 1
    assert "validated on 1 of 4 cases" in caplog.text
    assert len(list((tmp_path / "validation").iterdir())) == 1
    assert validate(model, task.training, task.prepared, tmp_path).n_cases == 4
