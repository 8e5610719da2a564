"""Interim validation, and the time that is kept for the final one; on a clock that only steps and predictions move."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.runs import history, simulate_durations
from helpers.tiny import Tiny

from autoseg.inference.model import Model
from autoseg.nets.device import Device
from autoseg.preprocessing.store import StoredCase
from autoseg.runs.budget import RunBudget
from autoseg.runs.options import TrainingOptions
from autoseg.training import interim_validation as interim_module
from autoseg.training import train as train_module
from autoseg.training.loader import Loader
from autoseg.training.run import TrainingRun
from autoseg.training.train import train
from autoseg.training.validation import CaseScores


@pytest.mark.parametrize("faster", [1.0, 0.5])
def test_timed_run_keeps_time_for_validation(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faster: float
) -> None:
    """A step takes two seconds and a prediction half a second, or ever less."""
    seconds = [0.5]
    usual = interim_module.case_scores
    clock = simulate_durations(monkeypatch, step_seconds=2, case_seconds=0)

    def case_scores(model: Model, cases: list[StoredCase]) -> CaseScores:
        clock.now += seconds[-1] * len(cases)
        seconds.append(seconds[-1] * faster)
        return usual(model, cases)

    monkeypatch.setattr(interim_module, "case_scores", case_scores)
    record = train(tiny.job(tmp_path), TrainingOptions(RunBudget(seconds=100)), float32_cpu, clock=clock)
    reserve = 3 + 1.2 * seconds[-2] * 2 ** len(tiny.configuration.inference.mirror_axes)
    assert 100 - reserve - 2 < record.seconds < 100 - reserve + 3  # the validation takes no time on this clock
    rows = history(tmp_path)
    assert len(rows) == 5
    assert int(rows[-1]["step"]) == record.steps


def test_large_cases_leave_time_to_train(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A minute a case, of ten in all: scored once along the way, and a quarter of the time kept for the end."""
    clock = simulate_durations(monkeypatch, step_seconds=2, case_seconds=60)
    job = tiny.job(tmp_path)
    record = train(replace(job, validation=job.training), TrainingOptions(RunBudget(seconds=600)), float32_cpu, clock=clock)
    assert (450 - 60) / 2 <= record.steps <= (450 - 60) / 2 + 1
    assert [row["case_dice"] for row in history(tmp_path)].count("0.5") == 1


@pytest.mark.parametrize(("windows", "kept", "validated"), [(100, 75, "1 case"), (200, 3, "0 of 1 case")])
def test_no_interim_validation_of_huge_cases(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, windows: int, kept: int, validated: str
) -> None:
    """Windows of a third of a second: a hundred are more than a tenth of five minutes, which is known before the first one is
    computed; two hundred, mirrored, more than a quarter, so that nothing is kept for a validation that cannot be."""
    clock = simulate_durations(monkeypatch, step_seconds=2, case_seconds=1000)
    monkeypatch.setattr(Model, "n_windows", lambda *_: windows)
    record = train(tiny.job(tmp_path), TrainingOptions(RunBudget(seconds=300)), float32_cpu, clock=clock)
    assert record.steps == (300 - kept) // 2 + 1
    assert [row["case_dice"] for row in history(tmp_path)] == [""] * 10
    assert record.validated_on == f"{validated} not trained on"
    assert (record.case_dice is None) == validated.startswith("0")


@pytest.mark.parametrize(("at", "validated"), [(10, "4 cases"), (250, "3 of 4 cases")])
def test_stopped_run_validates_in_its_unspent_time(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, validated: str
) -> None:
    """Of 300 s, where a case of the validation takes 25 s: after 10 s there is time for all; after 250 s for two, but a quarter
    of the budget, three cases, may always be spent."""
    clock = simulate_durations(monkeypatch, step_seconds=2, case_seconds=1)
    usual, predict = train_module.step, Model.predict_prepared

    def step(run: TrainingRun, loader: Loader, progress: float) -> None:
        usual(run, loader, progress)
        if clock.now >= at:
            run.stopping.reason = "Ctrl-C"

    def predict_prepared(*arguments: Any, **options: Any) -> Any:
        clock.now += 25
        return predict(*arguments, **options)

    monkeypatch.setattr(train_module, "step", step)
    monkeypatch.setattr(Model, "predict_prepared", predict_prepared)
    job = tiny.job(tmp_path)
    record = train(replace(job, validation=job.training), TrainingOptions(RunBudget(seconds=300)), float32_cpu, clock=clock)
    assert (record.stopped, record.validated_on) == ("Ctrl-C", f"{validated} not trained on")


def test_a_missing_score_says_why(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "autoseg")
    train(tiny.job(tmp_path, validation=()), TrainingOptions(RunBudget(epochs=1), threads=0), float32_cpu)
    assert any("case Dice -- (no case to validate on)" in message for message in caplog.messages)
