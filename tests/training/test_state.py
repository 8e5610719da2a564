"""The state of a run: each of its changes, by hand."""

from __future__ import annotations

from dataclasses import replace

from autoseg.runs.budget import RunBudget
from autoseg.runs.history import Epoch
from autoseg.training.state import BudgetStart, State

NEW = State.new(RunBudget(epochs=4), seed=3)


def row(epoch: int, dice: float | None) -> Epoch:
    return Epoch(epoch, 2 * epoch, 10.0 * epoch, 1e-3, 0.5, dice, 0.1, 0.0, None)


def test_new_state_has_spent_nothing() -> None:
    assert (NEW.budget, NEW.seed, NEW.step, NEW.elapsed, NEW.history) == (RunBudget(epochs=4), 3, 0, 0.0, ())
    assert NEW.unspent(steps_per_epoch=2) == (0.0, 8)


def test_steps_are_counted_until_the_epoch_ends() -> None:
    state = NEW.after_step(1.0).after_step(0.5)
    assert (state.step, state.mean_loss) == (2, 0.75)
    ended = state.after_epoch(row(1, None))
    assert (ended.step, ended.loss_total, ended.loss_steps, ended.history) == (2, 0.0, 0, (row(1, None),))


def test_best_score_is_kept() -> None:
    state = NEW.after_epoch(row(1, None))
    assert state.best is None
    for epoch, (dice, best) in enumerate([(0.5, 0.5), (0.4, 0.5), (None, 0.5), (0.5, 0.5), (0.6, 0.6)], start=2):
        better = dice is not None and (state.best is None or dice > state.best)
        assert state.is_better(row(epoch, dice)) == better
        state = state.after_epoch(row(epoch, dice))
        assert state.best == best


def test_rollback_keeps_time_and_curve() -> None:
    saved = NEW.after_step(1.0)
    late = replace(saved.after_step(2.0).after_epoch(row(1, 0.5)), elapsed=20.0).after_step(9.0)
    back = late.rolled_back_to(saved)
    assert (back.step, back.loss_total, back.loss_steps, back.rollbacks) == (1, 1.0, 1, 1)
    assert (back.elapsed, back.history, back.best) == (20.0, late.history, 0.5)
    assert late.rolled_back() == replace(late, rollbacks=1)


def test_extension_spends_another_budget() -> None:
    done = replace(NEW, step=8, elapsed=40.0, rollbacks=2, history=(row(1, 0.5), row(2, 0.6)))
    more = done.extended().begun(RunBudget(seconds=100), patience=None, threads=2)
    assert (more.budget_start, more.rollbacks, more.threads) == (BudgetStart(8, 40.0, 2), 0, 2)
    assert more.budget_rows == ()
    assert replace(more, elapsed=70.0).unspent(steps_per_epoch=2) == (70.0, 0)


def test_patience_of_an_interrupted_run_is_kept() -> None:
    state = NEW.begun(NEW.budget, patience=5, threads=1)
    assert state.begun(NEW.budget, patience=None, threads=1).patience == 5
    assert state.begun(NEW.budget, patience=7, threads=1).patience == 7
