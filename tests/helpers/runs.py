"""Shared by the tests of training: reading and comparing runs, and a clock that only steps move."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from autoseg.preprocessing.store import StoredCase
from autoseg.runs.budget import RunBudget
from autoseg.runs.options import TrainingOptions
from autoseg.runs.record import load_run
from autoseg.training import interim_validation as interim_module
from autoseg.training import train as train_module
from autoseg.training.loader import Loader
from autoseg.training.run import TrainingRun
from autoseg.training.validation import CaseScores

EPOCHS = TrainingOptions(RunBudget(epochs=2))
CLOCK = ("seconds", "step_seconds", "data_wait", "peak_ram_gb")  # columns of metrics.csv that measure the machine


def history(run: Path) -> list[dict[str, str]]:
    with open(run / "metrics.csv", newline="", encoding="utf-8") as table:
        return list(csv.DictReader(table))


def same_outcome(a: Path, b: Path) -> None:
    """Equal weights (trained, averaged and the optimizer's), curves and scores; only the clock may differ."""
    first, second = load_file(a / "last.safetensors"), load_file(b / "last.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[k], second[k]) for k in first)
    for x, y in zip(history(a), history(b), strict=True):
        assert {k: v for k, v in x.items() if k not in CLOCK} == {k: v for k, v in y.items() if k not in CLOCK}
    one, two = load_run(a), load_run(b)
    assert replace(one, seconds=0, step_s=0) == replace(two, seconds=0, step_s=0)


def dice(*values: float | None) -> Iterator[CaseScores]:
    """Scores of one epoch after another."""
    return iter([CaseScores(value, None) for value in values])


def interrupt_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Training is interrupted in place of the step that follows `number` steps."""
    usual = train_module.step

    def interrupted(run: TrainingRun, loader: Loader, progress: float) -> None:
        if run.state.step == number:
            raise KeyboardInterrupt
        usual(run, loader, progress)

    monkeypatch.setattr(train_module, "step", interrupted)


class ManualClock:
    """A clock that stands still until its `now` is moved, for `train` and `begin_or_resume`."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def simulate_durations(monkeypatch: pytest.MonkeyPatch, *, step_seconds: float, case_seconds: float) -> ManualClock:
    """Steps and interim validations that compute nothing: they move the returned clock.

    Each step has a loss of a half, each interim validation a Dice of a half.
    """
    clock = ManualClock()

    def step(run: TrainingRun, loader: object, progress: float) -> None:
        clock.now += step_seconds
        run.count_step(0.5)

    def case_scores(model: object, cases: list[StoredCase]) -> CaseScores:
        clock.now += case_seconds * len(cases)
        return CaseScores(0.5, None)

    monkeypatch.setattr(train_module, "step", step)
    monkeypatch.setattr(interim_module, "case_scores", case_scores)
    return clock
