"""What the tests of training share: reading and comparing runs, and a clock of our own."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from autoseg.preprocessing.store import StoredCase
from autoseg.runs.budget import RunBudget
from autoseg.runs.options import TrainingOptions
from autoseg.runs.record import load_run
from autoseg.training import interim_validation as interim_module
from autoseg.training import run as running_module
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


def counted(run: TrainingRun) -> None:
    """A step without work, whose loss is a half."""
    state = run.state
    run.state = replace(state, step=state.step + 1, loss_total=state.loss_total + 0.5, loss_steps=state.loss_steps + 1)


def interrupt_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Training is interrupted in place of the step that follows `number` steps."""
    usual = train_module.step

    def interrupted(run: TrainingRun, loader: Loader, progress: float) -> None:
        if run.state.step == number:
            raise KeyboardInterrupt
        usual(run, loader, progress)

    monkeypatch.setattr(train_module, "step", interrupted)


def turn_clock(monkeypatch: pytest.MonkeyPatch, now: list[float]) -> None:
    """`now[0]` is what the clock shows to a run."""
    for module in (train_module, running_module, interim_module):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))


def own_clock(monkeypatch: pytest.MonkeyPatch, step_seconds: float, case_seconds: float) -> list[float]:
    """A clock that only steps and interim predictions move; its time is the entry of the list."""
    now = [0.0]
    turn_clock(monkeypatch, now)

    def step(run: TrainingRun, loader: object, progress: float) -> None:
        now[0] += step_seconds
        counted(run)

    def case_scores(model: object, cases: list[StoredCase]) -> CaseScores:
        now[0] += case_seconds * len(cases)
        return CaseScores(0.5, None)

    monkeypatch.setattr(train_module, "step", step)
    monkeypatch.setattr(interim_module, "case_scores", case_scores)
    return now
