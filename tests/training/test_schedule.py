from __future__ import annotations

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.errors import UsageError
from autoseg.plan import LEAST_TIME_S, Schedule
from autoseg.planner.budget import Budget
from autoseg.runs.budget import EPOCH_SECONDS, RunBudget, budget_from_options, parse_duration
from autoseg.training.schedule import SHAPES, extension_factor, learning_rate_factor

few = settings(max_examples=50, deadline=None)


@pytest.mark.parametrize(
    ("seconds", "epochs", "message"),
    [
        (None, None, "give either --time or --epochs; found: time None, epochs None"),
        (60.0, 3, "give either --time or --epochs"),
        (19.9, None, "too little time to train; found: 19.9 s; allowed: 20 s or more"),
        (None, 0, "too few epochs; found: 0; allowed: 1 or more"),
    ],
)
def test_budgets_that_make_no_sense(seconds: float | None, epochs: int | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RunBudget(seconds, epochs)


def test_a_run_can_be_given_what_a_plan_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """One limit for both: a plan for less time could not be followed."""
    assert RunBudget(LEAST_TIME_S).seconds == Budget("cpu", 8, time_s=LEAST_TIME_S).time_s
    monkeypatch.setattr("autoseg.runs.budget.LEAST_TIME_S", 30.0)
    with pytest.raises(UsageError, match="found: 25 s; allowed: 30 s or more"):
        RunBudget(25)


@pytest.mark.parametrize(("seconds", "n"), [(20, 1), (45, 2), (120, 6), (600, 10), (4800, 10), (7200, 15), (86400, 180)])
def test_reports_of_a_timed_run(seconds: float, n: int) -> None:
    assert RunBudget(seconds=seconds).n_epochs == n


@few
@given(st.floats(20, 1e6))
def test_a_timed_run_reports_neither_too_often_nor_too_rarely(seconds: float) -> None:
    shortest, longest = EPOCH_SECONDS
    assert shortest <= seconds / RunBudget(seconds=seconds).n_epochs <= longest or seconds < 2 * shortest


def test_progress_counts_steps_or_seconds() -> None:
    steps = RunBudget(epochs=4)
    assert steps.n_epochs == 4
    assert steps.progress(step=50, steps_per_epoch=25, elapsed=1e9, reserve=1e9) == 0.5
    assert steps.progress(step=500, steps_per_epoch=25, elapsed=0, reserve=0) == 1.0
    clock = RunBudget(seconds=100)
    assert clock.progress(step=10**9, steps_per_epoch=1, elapsed=40, reserve=20) == 0.5
    assert clock.progress(step=0, steps_per_epoch=1, elapsed=90, reserve=20) == 1.0
    assert clock.progress(step=0, steps_per_epoch=1, elapsed=1, reserve=200) == 1.0  # nothing left to train with


def test_learning_rate_by_hand() -> None:
    assert learning_rate_factor("cosine", 0.0, 0.1) == 1e-3
    assert learning_rate_factor("cosine", 0.05, 0.1) == pytest.approx(0.5)
    assert learning_rate_factor("cosine", 0.1, 0.1) == 1
    assert learning_rate_factor("cosine", 0.55, 0.1) == pytest.approx(0.5)
    assert learning_rate_factor("cosine", 1.0, 0.1) == 0
    assert learning_rate_factor("poly", 0.0, 0.0) == 1
    assert learning_rate_factor("poly", 0.5, 0.0) == pytest.approx(0.5**0.9)
    assert learning_rate_factor("poly", 1.0, 0.0) == 0


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("poly", [1, 0.75**0.9, 0.5**0.9, 0.25**0.9, 0]),
        ("cosine", [1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5, 0]),
        ("step", [1, 1, 0.1, 0.01, 0.01]),
        ("multistep", [1, 1, 0.1, 0.01, 0.01]),
        ("exponential", [1, 0.01**0.25, 0.1, 0.01**0.75, 0.01]),
        ("constant", [1, 1, 1, 1, 1]),
    ],
)
def test_shapes_by_hand(schedule: str, expected: list[float]) -> None:
    """At 0, 1/4, … 1."""
    assert [SHAPES[schedule](i / 4) for i in range(5)] == pytest.approx(expected)
    assert learning_rate_factor(schedule, 0.75, 0.5) == pytest.approx(expected[2])  # the middle of what follows a warm-up


def test_the_steps_are_where_they_should_be() -> None:
    assert [SHAPES["step"](t) for t in (0.33, 0.34, 0.66, 0.67)] == pytest.approx([1, 0.1, 0.1, 0.01])
    assert [SHAPES["multistep"](t) for t in (0.49, 0.5, 0.74, 0.75)] == pytest.approx([1, 0.1, 0.1, 0.01])


def test_warm_restarts_by_hand() -> None:
    """Cycles of a seventh, two sevenths and four sevenths of the run, each from 1 to 0."""
    at = [0, 0.5, 0.999999, 1, 2, 2.999999, 3, 5, 7]
    assert [SHAPES["warm_restarts"](k / 7) for k in at] == pytest.approx([1, 0.5, 0, 1, 0.5, 0, 1, 0.5, 0], abs=1e-9)


def test_one_cycle_by_hand_and_as_torch_has_it() -> None:
    assert [SHAPES["one_cycle"](t) for t in (0, 0.15, 0.3, 0.65, 1)] == pytest.approx([0.04, 0.52, 1, 0.500002, 4e-6])
    assert learning_rate_factor("one_cycle", 0.15, 0.1) == SHAPES["one_cycle"](0.15)  # its own warm-up is the only one
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=11)
    for i in range(11):  # torch counts steps from the first to the last, and has its peak one step early: at 0.3 · 11 - 1
        peak = 0.3 * 11 - 1
        t = 0.3 * i / peak if i < peak else 0.3 + 0.7 * (i - peak) / (10 - peak)
        assert SHAPES["one_cycle"](t) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        if i < 10:
            theirs.step()


def test_a_plan_may_name_every_schedule_and_no_other() -> None:
    assert tuple(SHAPES) == get_args(Schedule)


@few
@given(
    st.sampled_from([s for s in SHAPES if s not in ("one_cycle", "warm_restarts")]),
    st.floats(0, 0.9),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_learning_rate_rises_then_falls(schedule: str, warmup: float, one: float, other: float) -> None:
    early, late = sorted((one, other))
    first, second = learning_rate_factor(schedule, early, warmup), learning_rate_factor(schedule, late, warmup)
    assert 0 <= first <= 1
    if late < warmup:
        assert first <= second
    if early >= warmup:
        assert first >= second - 1e-12


def test_learning_rate_of_an_extension_by_hand() -> None:
    """Up to a third of the base rate in the first twentieth, then the schedule."""
    assert extension_factor("cosine", 0.025) == pytest.approx(1 / 6)
    assert extension_factor("cosine", 0.05) == pytest.approx(1 / 3)
    assert extension_factor("cosine", 0.525) == pytest.approx(1 / 6)
    assert extension_factor("poly", 0.525) == pytest.approx(0.5**0.9 / 3)
    assert extension_factor("cosine", 1.0) == extension_factor("poly", 1.0) == 0
    assert extension_factor("constant", 0.0) == extension_factor("constant", 0.5) == 1


def test_what_the_options_ask_for() -> None:
    assert budget_from_options(None, None) is None
    assert budget_from_options("10m", None) == RunBudget(seconds=600)
    assert budget_from_options(None, 5, restart=True) == RunBudget(epochs=5)
    assert budget_from_options(None, None, "2h") == RunBudget(seconds=7200)
    assert budget_from_options(None, None, " 50 ") == RunBudget(epochs=50)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("1h", None, "2h", False), "--extend says how much is added.*; found: --extend 2h with --time; fix: leave out one"),
        ((None, 5, "50", True), "found: --extend 50 with --epochs and --restart"),
        ((None, None, "0", False), "too few epochs; found: 0"),
        ((None, None, "some", False), "not a duration; found: some"),
        ((None, 0, None, False), "too few epochs"),
        (("1h", 5, None, False), "give either --time or --epochs"),
    ],
)
def test_options_that_contradict_each_other(options: tuple[str | None, int | None, str | None, bool], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        budget_from_options(*options)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("10min", 600),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1H 30M".replace(" ", ""), 5400),
        (" 1.5h ", 5400),
    ],
)
def test_parse_duration(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "h", "-5m", "30m1h", "ten minutes", "1:30"])
def test_not_a_duration(text: str) -> None:
    with pytest.raises(UsageError, match=r"not a duration; found: .*; allowed: such as 90s, 10m, 2h, 1h30m"):
        parse_duration(text)
