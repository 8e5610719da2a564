"""Interim validation on a few whole cases at the end of an epoch, and the time that the final validation will need."""

from __future__ import annotations

import math

from autoseg.footprint import STEP_PASSES
from autoseg.preprocessing.store import StoredCase
from autoseg.system.progress import duration
from autoseg.training.run import TrainingRun
from autoseg.training.validation import CaseScores, case_scores

INTERIM_SHARE = 0.05  # of the training time, for interim validation; where it would take twice as much, it is left out
FREE_SECONDS = 3.0  # of interim validation that are always allowed
MAX_INTERIM_CASES = 8
LAST_SECONDS = 3.0  # for writing the results
VALIDATION_SHARE = 0.25  # of a time budget at most for the final validation, so that large cases leave time to learn


def interim_score(run: TrainingRun, validation: list[StoredCase], epoch_seconds: float, steps: int) -> CaseScores:
    """Score a few validation cases: as many as 5 % of the first epoch's time allows, at least one, always the same ones.

    No scores where there are no cases, or where they are so large that scoring would take a tenth of the
    time, or has done so already. The time that it takes also decides how much is kept for the final
    validation. In a deterministic run the number of windows decides instead of a clock.

    Args:
        epoch_seconds, steps: duration of the epoch, and its number of steps.
    """
    if run.options.deterministic:
        count = _affordable_cases(run, validation)
        return (
            _score_cases(run, validation, count) if count else _no_scores(validation, "scoring a case takes too much of an epoch")
        )
    spent = sum(row.score is not None for row in run.state.history) * run.state.n_interim_cases * run.case_seconds
    if not validation or spent > max(FREE_SECONDS, 2 * INTERIM_SHARE * run.elapsed):
        return _no_scores(validation, "scoring has taken a tenth of the time")
    if not run.state.n_interim_cases and run.budget.seconds is not None:
        step = epoch_seconds / steps / run.configuration.patch.batch_size
        run.set_case_seconds(run.model.n_windows(validation[0].shape) * step / STEP_PASSES)
        if run.case_seconds > 2 * INTERIM_SHARE * run.budget.seconds:
            _update_reserve(run, len(validation))
            return _no_scores(
                validation, f"scoring a case would take {duration(run.case_seconds)}, more than a tenth of the time"
            )
    count = run.state.n_interim_cases or 1
    score = _score_cases(run, validation, count)
    if not run.state.n_interim_cases:
        affordable = int(INTERIM_SHARE * epoch_seconds / run.case_seconds)
        count = max(1, min(len(validation), MAX_INTERIM_CASES, affordable))
        run.set_interim_cases(count)
        score = score if count == 1 else _score_cases(run, validation, count)
    _update_reserve(run, len(validation))
    return score


def _no_scores(validation: list[StoredCase], reason: str) -> CaseScores:
    return CaseScores(None, None, reason if validation else "no case to validate on")


def _affordable_cases(run: TrainingRun, validation: list[StoredCase]) -> int:
    """Number of cases that 5 % of an epoch's work allows, where a step costs as much as three passes over its batch."""
    if not validation:
        return 0
    passes = STEP_PASSES * run.configuration.patch.batch_size * run.configuration.training.steps_per_epoch
    affordable = INTERIM_SHARE * passes / run.model.n_windows(validation[0].shape)
    count = min(len(validation), MAX_INTERIM_CASES, int(affordable)) or int(2 * affordable >= 1)
    run.set_interim_cases(count)
    return count


def set_first_reserve(run: TrainingRun) -> None:
    """Keep time for the final validation before the first scores: as much as before an interruption or an
    extension, as far as the present budget allows."""
    _, most = _expected_validation(run)
    run.set_reserve(max(LAST_SECONDS, min(run.state.reserve, most)))


def _expected_validation(run: TrainingRun) -> tuple[float, float]:
    """Expected seconds per case of the final validation, and the most that may be kept for all cases."""
    case_seconds = run.case_seconds * 2 ** len(run.configuration.inference.mirror_axes)
    return case_seconds, math.inf if run.budget.seconds is None else VALIDATION_SHARE * run.budget.seconds


def validation_time(run: TrainingRun, stopped: bool) -> tuple[float, float]:
    """Expected seconds per case of the final validation, and the most that all cases may take.

    Args:
        stopped: the training has ended early, so that the rest of its time may go to the validation.
    """
    case_seconds, most = _expected_validation(run)
    if run.budget.seconds is not None and stopped:
        return case_seconds, max(most, run.state.budget_start.seconds + run.budget.seconds - run.elapsed)
    # only where the reserve was cut: an estimate that is a little short must not cost cases
    return case_seconds, most if case_seconds > most or run.state.reserve >= most else math.inf


def _update_reserve(run: TrainingRun, n_cases: int) -> None:
    case_seconds, most = _expected_validation(run)
    fits = case_seconds <= most  # where not even one case does, all time goes to learning
    reserve = LAST_SECONDS + (1.2 * case_seconds * n_cases if fits else 0)
    if run.progress() >= 1:
        reserve = max(reserve, run.state.reserve)  # a training that has ended does not begin again
    run.set_reserve(min(reserve, most))


def _score_cases(run: TrainingRun, validation: list[StoredCase], count: int) -> CaseScores:
    """Score `count` cases from all over the list, and note the seconds per case."""
    start_time = run.clock()
    cases = [validation[i * len(validation) // count] for i in range(count)]
    score = case_scores(run.model, cases)
    run.set_case_seconds((run.clock() - start_time) / count)
    return score
