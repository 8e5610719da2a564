"""Runs that go on: with another plan, another budget, or further than they were meant to."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.runs import EPOCHS, ManualClock, history, interrupt_at, same_outcome, simulate_durations
from helpers.tiny import Tiny, TinyRuns

from autoseg.errors import PlanError, UsageError
from autoseg.inference.model import load_model
from autoseg.nets.device import Device
from autoseg.pipeline.training import set_runs_aside
from autoseg.plan import load_plan
from autoseg.runs.budget import RunBudget
from autoseg.runs.job import TrainingJob
from autoseg.runs.options import Pretrained, TrainingOptions
from autoseg.runs.record import load_run
from autoseg.system.lock import folder_lock
from autoseg.training import run as run_module
from autoseg.training.checkpoint import load_state
from autoseg.training.run import begin_or_resume, unspent
from autoseg.training.schedule import extension_factor
from autoseg.training.state import BudgetStart, State
from autoseg.training.train import train


@pytest.mark.parametrize(
    ("seconds", "epochs", "rest"),
    [(180.0, None, "140s"), (45.0, None, None), (None, 9, "7"), (None, 2, None)],  # three steps an epoch
)
def test_unspent_budget(tiny: Tiny, tmp_path: Path, seconds: float | None, epochs: int | None, rest: str | None) -> None:
    """Forty seconds and eight steps after it was extended."""
    state = State(seconds, epochs, 0, 20, 100.0, 5.0, 0, None, 1.0, (), budget_start=BudgetStart(12, 60.0, 4))
    if seconds == 45.0:
        state = replace(state, elapsed=106.0)
    assert unspent(tiny.job(tmp_path), state) == rest


def test_resuming_with_another_plan(tiny: Tiny, float32_cpu: Device, tmp_path: Path) -> None:
    job = tiny.job(tmp_path)
    train(job, TrainingOptions(RunBudget(epochs=1)), float32_cpu)
    (tmp_path / "run.json").unlink()
    slower = replace(tiny.configuration, training=replace(tiny.configuration.training, learning_rate=1e-4))
    message = (
        r"follows another plan; .*found: training\.learning_rate 0\.01 → 0\.0001; fix: add --restart \(Python: restart=True\)"
    )
    with pytest.raises(PlanError, match=message):
        train(replace(job, plan=replace(tiny.plan, configurations={"3d_fullres": slower})), EPOCHS, float32_cpu)
    assert load_plan(tmp_path / "plan.json") == tiny.plan
    everything = replace(tiny.configuration.training, epochs=9, schedule="poly", warmup_fraction=0.5, ema_decay=0.5, loss="ce")
    edited = replace(tiny.configuration, training=replace(everything, learning_rate=1.0, optimizer="sgd"))
    with pytest.raises(PlanError, match=r"training\.epochs 2 → 9; .*; training\.warmup_fraction 0\.02 → 0\.5; 2 more; fix"):
        train(replace(job, plan=replace(tiny.plan, configurations={"3d_fullres": edited})), EPOCHS, float32_cpu)
    unseen = replace(tiny.plan, data=replace(tiny.plan.data, unseen=("left stone",)))
    with pytest.raises(PlanError, match=r"follows another plan; .*found: data"):
        train(replace(job, plan=unseen), EPOCHS, float32_cpu)
    reworded = replace(tiny.configuration, why={"training.epochs": "because"})
    assert train(replace(job, plan=replace(tiny.plan, configurations={"3d_fullres": reworded})), EPOCHS, float32_cpu).steps == 6


def test_a_run_without_a_step_begins_anew_with_another_plan(tiny: Tiny, float32_cpu: Device, tmp_path: Path) -> None:
    """As one that was killed before its first step leaves it."""
    job = tiny.job(tmp_path)
    begin_or_resume(job, EPOCHS, float32_cpu).save()
    assert load_state(tmp_path / "last.safetensors").step == 0
    slower = replace(tiny.configuration, training=replace(tiny.configuration.training, learning_rate=1e-4))
    other = replace(job, plan=replace(tiny.plan, configurations={"3d_fullres": slower}))
    assert train(other, EPOCHS, float32_cpu).steps == 6
    assert load_plan(tmp_path / "plan.json").configurations["3d_fullres"].training.learning_rate == 1e-4


def test_a_run_without_a_step_keeps_weights_that_it_began_with(
    tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path
) -> None:
    job, begun = tiny.job(tmp_path), replace(EPOCHS, pretrained=Pretrained(tiny_runs.runs[1], False))
    begin_or_resume(job, begun, float32_cpu).save()
    slower = replace(tiny.configuration, training=replace(tiny.configuration.training, learning_rate=1e-4))
    other = replace(job, plan=replace(tiny.plan, configurations={"3d_fullres": slower}))
    with pytest.raises(PlanError, match="follows another plan"):
        begin_or_resume(other, EPOCHS, float32_cpu)
    assert begin_or_resume(other, begun, float32_cpu).state.transfer is not None


def interrupt_at_step_25_of_50(monkeypatch: pytest.MonkeyPatch, job: TrainingJob, device: Device) -> ManualClock:
    """Half of a hundred seconds of simulated steps; returns the clock of a process that continues."""
    clock = simulate_durations(monkeypatch, step_seconds=2, case_seconds=0.1)
    interrupt_at(monkeypatch, 25)
    with pytest.raises(KeyboardInterrupt):
        train(job, TrainingOptions(RunBudget(seconds=100)), device, clock=clock)
    monkeypatch.undo()
    return simulate_durations(monkeypatch, step_seconds=2, case_seconds=0.1)


def test_resuming_with_more_time_keeps_epochs_long(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = interrupt_at_step_25_of_50(monkeypatch, tiny.job(tmp_path), float32_cpu)
    assert len(history(tmp_path)) == 2
    train(tiny.job(tmp_path), TrainingOptions(RunBudget(seconds=1000)), float32_cpu, clock=clock)
    assert len(history(tmp_path)) == 12


def test_resuming_with_time_instead_of_epochs(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Twenty epochs of three steps, of two seconds each, and then what is left of ten minutes, reported once a minute."""
    caplog.set_level("INFO", "autoseg")
    clock = simulate_durations(monkeypatch, step_seconds=2, case_seconds=0.1)
    interrupt_at(monkeypatch, 61)
    with pytest.raises(KeyboardInterrupt):
        train(tiny.job(tmp_path), TrainingOptions(RunBudget(epochs=100)), float32_cpu, clock=clock)
    monkeypatch.undo()
    clock = simulate_durations(monkeypatch, step_seconds=2, case_seconds=0.1)
    train(tiny.job(tmp_path), TrainingOptions(RunBudget(seconds=600)), float32_cpu, clock=clock)
    seconds = [float(row["seconds"]) for row in history(tmp_path)]
    assert len(seconds) == 20 + 8
    assert np.diff(seconds[20:]) == pytest.approx([60] * 7, abs=3)
    assert any(message.startswith("epoch 21/28 ") for message in caplog.messages)


def test_an_interrupted_run_keeps_its_budget(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = interrupt_at_step_25_of_50(monkeypatch, tiny.job(tmp_path), float32_cpu)
    assert 90 < train(tiny.job(tmp_path), TrainingOptions(), float32_cpu, clock=clock).seconds < 100


def test_an_interrupted_run_keeps_its_seed(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = interrupt_at_step_25_of_50(monkeypatch, tiny.job(tmp_path), float32_cpu)
    train(tiny.job(tmp_path), TrainingOptions(seed=7), float32_cpu, clock=clock)
    assert "note: with the seed 0, which it began with, not 7; --restart (Python: restart=True) begins anew" in caplog.messages
    assert load_state(tmp_path / "last.safetensors").seed == 0


def test_a_finished_run_can_be_extended(tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path) -> None:
    run = tmp_path / "fold_0"
    shutil.copytree(tiny_runs.runs[0], run)
    record = train(tiny.job(run), TrainingOptions(RunBudget(epochs=2), extend=True), float32_cpu)
    assert (record.steps, record.finished, record.stopped) == (12, True, None)
    assert load_state(run / "last.safetensors").budget_start == BudgetStart(6, pytest.approx(record.seconds, rel=1), 2)
    rows, before = history(run), history(tiny_runs.runs[0])
    assert rows[:2] == before
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "3"), ("2", "6"), ("3", "9"), ("4", "12")]
    rates = [0.01 * extension_factor("cosine", p) for p in (2 / 6, 5 / 6)]  # of the last step of each epoch
    assert [float(row["learning_rate"]) for row in rows[2:]] == pytest.approx(rates, rel=1e-4)
    assert load_run(run) == record
    again = train(tiny.job(run), TrainingOptions(RunBudget(epochs=1), extend=True), float32_cpu)
    assert (again.steps, len(history(run))) == (15, 5)


def test_an_interrupted_extension_continues(
    tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same call, or without saying again that it is one; as what it is, not as a second extension."""
    for name in ("whole", "same", "plain"):
        shutil.copytree(tiny_runs.runs[0], tmp_path / name)
    train(tiny.job(tmp_path / "whole"), replace(EPOCHS, extend=True), float32_cpu)
    for name in ("same", "plain"):
        job = tiny.job(tmp_path / name)
        interrupt_at(monkeypatch, 9)
        with pytest.raises(KeyboardInterrupt):
            train(job, replace(EPOCHS, extend=True), float32_cpu)
        monkeypatch.undo()
        assert not load_model((job.run,), float32_cpu)[1][0].finished
        with pytest.raises(UsageError, match=r"only a finished run can be extended; .*interrupted at step 9; fix: train without"):
            train(job, TrainingOptions(RunBudget(epochs=7), extend=True), float32_cpu)
        train(job, replace(EPOCHS, extend=True) if name == "same" else TrainingOptions(), float32_cpu)
        same_outcome(tmp_path / "whole", job.run)


def test_an_extension_in_time(tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten epochs in a hundred seconds of two-second steps, then a hundred seconds more."""
    clock = simulate_durations(monkeypatch, step_seconds=2, case_seconds=0.1)
    first = train(tiny.job(tmp_path), TrainingOptions(RunBudget(seconds=100)), float32_cpu, clock=clock)
    n = len(history(tmp_path))
    second = train(tiny.job(tmp_path), TrainingOptions(RunBudget(seconds=200), extend=True), float32_cpu, clock=clock)
    assert 90 < first.seconds < 102
    assert 190 < second.seconds - first.seconds < 202
    assert [row["epoch"] for row in history(tmp_path)] == [str(i + 1) for i in range(n + 10)]


def test_extension_keeps_at_most_a_quarter_for_validation(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cases of a minute: a run that is limited by epochs keeps as many minutes as there are, more than the extension has."""
    clock = simulate_durations(monkeypatch, step_seconds=30, case_seconds=60)
    job = tiny.job(tmp_path)
    job = replace(job, validation=job.training)
    first = train(job, TrainingOptions(RunBudget(epochs=20)), float32_cpu, clock=clock)
    assert load_state(tmp_path / "last.safetensors").reserve > 240
    more = train(job, TrainingOptions(RunBudget(seconds=240), extend=True), float32_cpu, clock=clock)
    assert 240 * 3 / 4 / 30 <= more.steps - first.steps <= 240 / 30


def test_locked_run(tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path) -> None:
    run = tmp_path / "fold_0"
    for touch in (lambda: train(tiny.job(run), EPOCHS, float32_cpu), lambda: set_runs_aside([run])):
        run.mkdir(exist_ok=True)
        with folder_lock(run), pytest.raises(UsageError, match=r"another autoseg is training in this folder; file: .*STOP"):
            touch()
        assert list(run.iterdir()) == []
    assert train(tiny.job(run), EPOCHS, float32_cpu).steps == 6


def test_the_time_to_compile_is_part_of_the_budget(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = simulate_durations(monkeypatch, step_seconds=2, case_seconds=0.1)

    def slowly(network: Any, *_: Any) -> Any:
        clock.now += 50
        return network

    monkeypatch.setattr(run_module, "compiled", slowly)
    record = train(tiny.job(tmp_path), TrainingOptions(RunBudget(seconds=100), compiled=True), float32_cpu, clock=clock)
    assert record.seconds < 102
    assert record.steps < 50 / 2


def test_step_seconds_are_this_process_own(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps before an interruption or an extension may have been another machine's."""
    clock = simulate_durations(monkeypatch, step_seconds=2, case_seconds=0.1)
    assert train(tiny.job(tmp_path), TrainingOptions(RunBudget(epochs=4)), float32_cpu, clock=clock).step_s == 2
    clock = simulate_durations(monkeypatch, step_seconds=5, case_seconds=0.1)
    assert train(tiny.job(tmp_path), TrainingOptions(RunBudget(epochs=1), extend=True), float32_cpu, clock=clock).step_s == 5
    (tmp_path / "run.json").unlink()  # killed during the validation: only that is left
    assert train(tiny.job(tmp_path), TrainingOptions(), float32_cpu, clock=clock).step_s == 0


def test_extending_an_unfinished_run(tiny: Tiny, float32_cpu: Device, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"only a finished run can be extended; .*found: nothing trained"):
        train(tiny.job(tmp_path), replace(EPOCHS, extend=True), float32_cpu)


def test_budget_of_the_plan(tiny: Tiny, float32_cpu: Device, tmp_path: Path) -> None:
    epochs, steps = tiny.configuration.training.epochs, tiny.configuration.training.steps_per_epoch
    assert train(tiny.job(tmp_path), TrainingOptions(), float32_cpu).steps == epochs * steps


def test_time_budget_of_the_plan(tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = simulate_durations(monkeypatch, step_seconds=2, case_seconds=0.1)
    timed = replace(tiny.configuration, training=replace(tiny.configuration.training, time_s=100.0))
    job = tiny.job(tmp_path, plan=replace(tiny.plan, configurations={"3d_fullres": timed}))
    assert 90 < train(job, TrainingOptions(), float32_cpu, clock=clock).seconds < 100
