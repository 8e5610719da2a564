from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from helpers.ladders import with_ladder
from helpers.runs import interrupt_at, simulate_durations
from helpers.tiny import Tiny

from autoseg.nets.device import Device
from autoseg.plan import Plan
from autoseg.runs.budget import RunBudget
from autoseg.runs.options import TrainingOptions
from autoseg.training.pace import OtherRung
from autoseg.training.train import train

TEN_MINUTES = TrainingOptions(RunBudget(seconds=600), threads=0)


def ladder_plan(plan: Plan) -> Plan:
    """The tiny plan with a second rung, which is coarser and ten times as fast."""
    return with_ladder(plan, step_s=0.1, faster=10, fine_cases=40.0, coarse_ceiling=0.85)


def notes(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [message for message in caplog.messages if "a step takes" in message]


def test_too_few_steps_for_a_fine_grid(tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = simulate_durations(monkeypatch, step_seconds=6.0, case_seconds=0.1)
    job = tiny.job(tmp_path, plan=ladder_plan(tiny.plan), by_time=True)
    with pytest.raises(OtherRung) as caught:
        train(job, TEN_MINUTES, float32_cpu, clock=clock)
    assert caught.value.rung.configuration == "3d_x2"
    assert (caught.value.run, caught.value.seconds, caught.value.step_s) == (tmp_path, 600, 6.0)
    assert "a step takes 6 s where the plan says 0.1: 10 min 00 s hold about 85 steps instead of 5100" in caught.value.reason
    assert clock.now < 60  # it is known within a tenth of the time


@pytest.mark.parametrize("instead_of", [None, "3d_fullres was given up"], ids=["first", "stands in for another"])
def test_more_steps_than_a_coarse_grid_needs(
    instead_of: str | None, tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that is faster than planned trains a finer rung, unless it has left one before."""
    clock = simulate_durations(monkeypatch, step_seconds=0.01, case_seconds=0.1)
    slow = with_ladder(tiny.plan, step_s=6.0, faster=10, fine_cases=40.0, coarse_ceiling=0.85)
    job = replace(tiny.job(tmp_path, plan=slow, by_time=True, instead_of=instead_of), configuration="3d_x2")
    options = replace(TEN_MINUTES, budget=RunBudget(seconds=60))
    if instead_of:
        assert train(job, options, float32_cpu, clock=clock).configuration == "3d_x2"
        return
    with pytest.raises(OtherRung) as caught:
        train(job, options, float32_cpu, clock=clock)
    assert caught.value.rung.configuration == "3d_fullres"
    assert "a step takes 0.01 s where the plan says 0.6" in caught.value.reason


@pytest.mark.parametrize(("step_s", "said"), [(0.1, 0), (0.13, 0), (0.15, 1), (0.06, 1)])
def test_a_pace_that_is_off_is_said_once(
    step_s: float,
    said: int,
    tiny: Tiny,
    float32_cpu: Device,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = simulate_durations(monkeypatch, step_seconds=step_s, case_seconds=0.1)
    train(
        tiny.job(tmp_path, plan=ladder_plan(tiny.plan)),
        TrainingOptions(RunBudget(seconds=30), threads=0),
        float32_cpu,
        clock=clock,
    )
    assert len(notes(caplog)) == said


@pytest.mark.parametrize(("rungs", "by_time"), [(0, True), (2, False)], ids=["no coarser rung", "named by the user"])
def test_where_nothing_can_be_done_it_is_only_said(
    rungs: int,
    by_time: bool,
    tiny: Tiny,
    float32_cpu: Device,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = simulate_durations(monkeypatch, step_seconds=6.0, case_seconds=0.1)
    plan = ladder_plan(tiny.plan)
    job = tiny.job(tmp_path, plan=replace(plan, ladder=plan.ladder[:rungs]), by_time=by_time)
    train(job, TEN_MINUTES, float32_cpu, clock=clock)
    assert len(notes(caplog)) == 1


def test_a_run_under_way_stays_on_its_grid(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job = tiny.job(tmp_path, plan=ladder_plan(tiny.plan), by_time=True)
    clock = simulate_durations(monkeypatch, step_seconds=0.1, case_seconds=0.1)
    interrupt_at(monkeypatch, 100)
    with pytest.raises(KeyboardInterrupt):
        train(job, TEN_MINUTES, float32_cpu, clock=clock)
    monkeypatch.undo()
    clock = simulate_durations(monkeypatch, step_seconds=6.0, case_seconds=0.1)
    assert train(job, TEN_MINUTES, float32_cpu, clock=clock).configuration == "3d_fullres"
    assert len(notes(caplog)) == 1


def test_a_number_of_epochs_asks_no_clock(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = simulate_durations(monkeypatch, step_seconds=6.0, case_seconds=0.1)
    train(
        tiny.job(tmp_path, plan=ladder_plan(tiny.plan)), TrainingOptions(RunBudget(epochs=5), threads=0), float32_cpu, clock=clock
    )
    assert not notes(caplog)
