from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from helpers.runs import interrupt_at, simulate_durations
from helpers.tiny import Tiny

from autoseg.nets.device import Device
from autoseg.plan import Footprint, Plan, Rung
from autoseg.runs.budget import RunBudget
from autoseg.runs.options import TrainingOptions
from autoseg.training.pace import TooSlow
from autoseg.training.train import train

TEN_MINUTES = TrainingOptions(RunBudget(seconds=600), threads=0)


def with_ladder(plan: Plan, step_s: float = 0.1) -> Plan:
    """The tiny plan with a second rung, which is coarser and ten times as fast."""
    fine = replace(plan.configurations["3d_fullres"], footprint=Footprint(1.0, 1.0, 0.1, step_s))
    fine = replace(fine, training=replace(fine.training, epochs=1000, steps_per_epoch=250))
    spacing = tuple(2 * s for s in fine.space.spacing_mm)
    coarse = replace(fine, space=replace(fine.space, spacing_mm=spacing), footprint=Footprint(1.0, 1.0, 0.1, step_s / 10))
    return replace(
        plan,
        configurations={"3d_fullres": fine, "3d_x2": coarse},
        ladder=(
            Rung("3d_fullres", fine.space.spacing_mm, factor=1.0, ceiling=1.0, covered=1.0, cases=40.0),
            Rung("3d_x2", spacing, factor=2.0, ceiling=0.85, covered=1.0, cases=2.0),
        ),
    )


def notes(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [message for message in caplog.messages if "a step takes" in message]


def test_too_few_steps_for_a_fine_grid(tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = simulate_durations(monkeypatch, step_seconds=6.0, case_seconds=0.1)
    job = tiny.job(tmp_path, plan=with_ladder(tiny.plan), by_time=True)
    with pytest.raises(TooSlow) as caught:
        train(job, TEN_MINUTES, float32_cpu, clock=clock)
    assert caught.value.rung.configuration == "3d_x2"
    assert (caught.value.run, caught.value.seconds, caught.value.step_s) == (tmp_path, 600, 6.0)
    assert "a step takes 6 s where the plan says 0.1: 10 min 00 s hold about 85 steps instead of 5100" in caught.value.reason
    assert clock.now < 60  # it is known within a tenth of the time


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
        tiny.job(tmp_path, plan=with_ladder(tiny.plan)),
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
    plan = with_ladder(tiny.plan)
    job = tiny.job(tmp_path, plan=replace(plan, ladder=plan.ladder[:rungs]), by_time=by_time)
    train(job, TEN_MINUTES, float32_cpu, clock=clock)
    assert len(notes(caplog)) == 1


def test_a_run_under_way_stays_on_its_grid(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job = tiny.job(tmp_path, plan=with_ladder(tiny.plan), by_time=True)
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
        tiny.job(tmp_path, plan=with_ladder(tiny.plan)), TrainingOptions(RunBudget(epochs=5), threads=0), float32_cpu, clock=clock
    )
    assert not notes(caplog)
