"""Deterministic runs: the same numbers whenever and wherever they are interrupted, or a word on why that cannot be."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.runs import EPOCHS, ManualClock, history, interrupt_at, same_outcome
from helpers.tiny import Tiny

from autoseg.errors import UsageError
from autoseg.inference.model import Model
from autoseg.nets.device import Device
from autoseg.preprocessing.store import StoredCase
from autoseg.runs.budget import RunBudget, check_deterministic
from autoseg.runs.options import TrainingOptions
from autoseg.runs.record import is_finished, load_run
from autoseg.training import interim_validation as interim_module
from autoseg.training import reporting as reporting_module
from autoseg.training import run as run_module
from autoseg.training import train as train_module
from autoseg.training.checkpoint import load_state
from autoseg.training.determinism import deterministic
from autoseg.training.interim_validation import interim_score
from autoseg.training.rollback import NotFinite
from autoseg.training.run import TrainingRun, begin_or_resume
from autoseg.training.train import train
from autoseg.training.validation import CaseScores


class Killed(BaseException):
    """Nothing catches it, and nothing is done after it: as SIGKILL, but for the process."""


def kill_at(event: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before or after one of the things that a run does or writes, in their order; files are written atomically."""
    happened: list[str] = []

    def fatal(original: Callable[..., Any]) -> Callable[..., Any]:
        def count(what: str) -> None:
            happened.append(what)
            if len(happened) == event:
                raise Killed(what)

        def call(*arguments: Any, **options: Any) -> Any:
            count("before")
            result = original(*arguments, **options)
            count("after")
            return result

        return call

    places = ((run_module, "save_training"), (reporting_module, "save_weights"), (reporting_module, "write_history"))
    for module, name in (*places, *((train_module, name) for name in ("step", "validate", "write_text"))):
        monkeypatch.setattr(module, name, fatal(getattr(module, name)))


def score(run: TrainingRun, *_: object) -> CaseScores:
    """Of an epoch: the third one is a collapse, after the fourth nothing gets better."""
    return CaseScores((0.3, 0.5, 0.01, 0.6, 0.5, 0.4, 0.3)[len(run.state.history)], None)


def test_deterministic_run_killed_at_any_moment(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a loss that is not finite, a collapse, and an end for lack of patience; killed once at each of its moments."""
    step = train_module.step

    def not_finite_once(run: TrainingRun, loader: Any, progress: float) -> None:
        if run.state.step == 4 and run.state.rollbacks == 0:
            raise NotFinite("the loss is not finite", found="nan", case="a")
        step(run, loader, progress)

    def learn(run: Path, killed_at: int) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(train_module, "step", not_finite_once)
            patched.setattr(train_module, "interim_score", score)
            kill_at(killed_at, patched)
            train(tiny.job(run), TrainingOptions(RunBudget(epochs=7), patience=2, deterministic=True), float32_cpu)

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    learn(whole, 0)
    state = load_state(whole / "last.safetensors")
    assert (state.step, state.rollbacks, state.best) == (18, 2, 0.6)
    assert load_run(whole).stopped == "no better case Dice in 2 epochs"
    kills = 0
    while not is_finished(parts):
        kills += 1
        with contextlib.suppress(Killed):
            learn(parts, kills)
    assert kills > 12
    same_outcome(whole, parts)


def test_deterministic_run_is_saved_at_epochs_only(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_at(monkeypatch, 4)
    monkeypatch.setattr(train_module, "SAVE_EVERY", 0.0)
    for exact, saved in ((False, 4), (True, 3)):
        job = tiny.job(tmp_path / str(exact))
        with pytest.raises(KeyboardInterrupt):
            train(job, replace(EPOCHS, deterministic=exact), float32_cpu)
        assert load_state(job.run / "last.safetensors").step == saved


def test_deterministic_interim_cases(tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """5 % of an epoch of 3 steps of 2 patches, three passes each, are 0.9 windows; of a thousand steps, 300."""
    for windows, steps, scored in ((1, 3, 1), (2, 3, 0), (1, 1000, 2), (300, 1000, 1), (601, 1000, 0)):
        monkeypatch.setattr(Model, "n_windows", lambda *_, n=windows: n)
        training = replace(tiny.configuration.training, steps_per_epoch=steps)
        plan = replace(tiny.plan, configurations={"3d_fullres": replace(tiny.configuration, training=training)})
        job = tiny.job(tmp_path / f"{windows}-{steps}", plan=plan)
        validation = tiny.job(tmp_path).training[:2]
        run = begin_or_resume(job, TrainingOptions(RunBudget(epochs=1), deterministic=True), float32_cpu, clock=ManualClock())
        counted: list[int] = []
        monkeypatch.setattr(interim_module, "case_scores", lambda model, cases, to=counted: to.append(len(cases)))
        interim_score(run, [StoredCase.open(job.prepared, c.name) for c in validation], 1e9, 1)
        assert sum(counted) == scored, (windows, steps)
        assert run.state.n_interim_cases == scored
    assert interim_score(run, [], 1e9, 1) == CaseScores(None, None, "no case to validate on")


def test_deterministic_restores_torch_settings() -> None:
    cudnn = torch.backends.cudnn

    def told() -> tuple[bool, int, bool, bool]:
        return torch.are_deterministic_algorithms_enabled(), torch.get_num_threads(), cudnn.deterministic, cudnn.benchmark

    before = told()
    assert not before[0]
    with deterministic(False):
        assert told() == (*before[:2], False, True)
    assert told() == before
    with deterministic(True):
        assert told() == (True, before[1], True, False)
        torch.set_num_threads(before[1] + 1)
    assert told() == before


def test_nondeterministic_operation_ends_the_run(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = "avg_pool3d_backward_cuda does not have a deterministic implementation, but you set 'torch.use_…"

    def refused(*_: object) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr(train_module, "step", refused)
    with pytest.raises(UsageError, match=r"cannot be repeated bit by bit here; found: avg_pool3d.*; fix: leave out --determ"):
        train(tiny.job(tmp_path), replace(EPOCHS, deterministic=True), float32_cpu)
    message = "something else"
    with pytest.raises(RuntimeError, match="something else"):
        train(tiny.job(tmp_path), replace(EPOCHS, deterministic=True), float32_cpu)


def test_deterministic_refuses_a_time_budget(tiny: Tiny, float32_cpu: Device, tmp_path: Path) -> None:
    message = r"limited by time cannot be repeated exactly; found: --deterministic with 60 s; fix: --epochs instead"
    with pytest.raises(UsageError, match=message):
        check_deterministic(RunBudget(seconds=60))
    check_deterministic(RunBudget(epochs=2))
    with pytest.raises(UsageError, match=message):
        TrainingOptions(RunBudget(seconds=60), deterministic=True)
    timed = replace(tiny.configuration, training=replace(tiny.configuration.training, time_s=60.0))
    job = tiny.job(tmp_path, plan=replace(tiny.plan, configurations={"3d_fullres": timed}))
    with pytest.raises(UsageError, match=message):
        train(job, TrainingOptions(deterministic=True), float32_cpu)


def test_deterministic_run_keeps_its_threads(tiny: Tiny, float32_cpu: Device, tmp_path: Path) -> None:
    job, options = tiny.job(tmp_path), replace(EPOCHS, deterministic=True)
    begin_or_resume(job, options, float32_cpu).save()
    assert load_state(tmp_path / "last.safetensors").threads == 1
    try:
        torch.set_num_threads(2)
        assert begin_or_resume(job, EPOCHS, float32_cpu).state.threads == 2
        assert begin_or_resume(job, options, float32_cpu).state.threads == torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(1)


def test_loss_scale_after_resuming(tiny: Tiny, tmp_path: Path) -> None:
    """It doubles after so many steps without overflow; the count goes on."""
    half = Device(torch.device("cpu"), torch.float16)
    run = begin_or_resume(tiny.job(tmp_path), EPOCHS, half)
    run.scaler.load_state_dict({**run.scaler.state_dict(), "scale": 512.0, "_growth_tracker": 7})
    run.save()
    again = begin_or_resume(tiny.job(tmp_path), EPOCHS, half).scaler.state_dict()
    assert (again["scale"], again["_growth_tracker"]) == (512.0, 7)


def test_partial_files_of_a_killed_run_are_removed(tiny: Tiny, float32_cpu: Device, tmp_path: Path) -> None:
    (tmp_path / "validation").mkdir()
    for name in (".77-last.safetensors", "validation/.77-phantom_000.nii.gz"):
        (tmp_path / name).write_bytes(b"half a file")
    train(tiny.job(tmp_path), TrainingOptions(RunBudget(epochs=1)), float32_cpu)
    assert not list(tmp_path.rglob(".*"))


def test_epoch_loss_across_an_interruption(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of those before an interruption."""
    train(tiny.job(tmp_path / "whole"), EPOCHS, float32_cpu)
    interrupt_at(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        train(tiny.job(tmp_path / "parts"), EPOCHS, float32_cpu)
    monkeypatch.undo()
    train(tiny.job(tmp_path / "parts"), EPOCHS, float32_cpu)
    whole, parts = history(tmp_path / "whole"), history(tmp_path / "parts")
    assert [row["train_loss"] for row in whole] == [row["train_loss"] for row in parts]
