"""How good the model is along the way, on a few whole cases; and how much time the final validation will need."""

from __future__ import annotations

import math

from autoseg.footprint import STEP_PASSES
from autoseg.preprocessing.store import StoredCase
from autoseg.training.run import TrainingRun
from autoseg.training.validation import CaseScores, case_scores

INTERIM_SHARE = 0.05  # of the training time that scores along the way are meant to take; at twice that it is left out
INTERIM_FREE = 3.0  # seconds of it that need no excuse
INTERIM_CASES = 8
NO_SCORES = CaseScores(None, None)
LAST_SECONDS = 3.0  # for writing the results
VALIDATION_SHARE = 0.25  # of a time budget at most for the final validation, so that large cases leave time to learn


def interim_score(run: TrainingRun, validation: list[StoredCase], epoch_seconds: float, steps: int) -> CaseScores:
    """Scores of a few validation cases: as many as 5 % of the first epoch pays for, at least one, the same ones ever after.

    No scores where there are no cases, or where they are so large that scoring would take a tenth of the time, or has done so
    already. What it takes also tells how much time must be kept for the final validation. In a deterministic run no clock
    decides, but the number of windows.

    Args:
        epoch_seconds, steps: what the epoch took, and how many steps it had.
    """
    if run.options.deterministic:
        return _score_cases(run, validation, count) if (count := _affordable_windows(run, validation)) else NO_SCORES
    spent = sum(row.score is not None for row in run.state.history) * run.state.n_interim_cases * run.case_seconds
    if not validation or spent > max(INTERIM_FREE, 2 * INTERIM_SHARE * run.elapsed):
        return NO_SCORES
    if not run.state.n_interim_cases and run.budget.seconds is not None:
        step = epoch_seconds / steps / run.configuration.patch.batch_size
        run.set_case_seconds(run.model.n_windows(validation[0].shape) * step / STEP_PASSES)
        if run.case_seconds > 2 * INTERIM_SHARE * run.budget.seconds:
            _keep_for_validation(run, len(validation))
            return NO_SCORES
    count = run.state.n_interim_cases or 1
    score = _score_cases(run, validation, count)
    if not run.state.n_interim_cases:
        affordable = int(INTERIM_SHARE * epoch_seconds / run.case_seconds)
        count = max(1, min(len(validation), INTERIM_CASES, affordable))
        run.set_interim_cases(count)
        score = score if count == 1 else _score_cases(run, validation, count)
    _keep_for_validation(run, len(validation))
    return score


def _affordable_windows(run: TrainingRun, validation: list[StoredCase]) -> int:
    """Number of cases that 5 % of an epoch pays for, where a step costs as much as three passes over its batch."""
    if not validation:
        return 0
    passes = STEP_PASSES * run.configuration.patch.batch_size * run.configuration.training.steps_per_epoch
    affordable = INTERIM_SHARE * passes / run.model.n_windows(validation[0].shape)
    count = min(len(validation), INTERIM_CASES, int(affordable)) or int(2 * affordable >= 1)
    run.set_interim_cases(count)
    return count


def begin_to_reserve(run: TrainingRun) -> None:
    """Time for the validation until the first scores tell how much it takes: as before an interruption or an extension, as far as
    the present budget allows."""
    _, most = _expected_validation(run)
    run.set_reserve(max(LAST_SECONDS, min(run.state.reserve, most)))


def _expected_validation(run: TrainingRun) -> tuple[float, float]:
    """Seconds that a case of the final validation will take, and the most that may be kept for all cases."""
    each = run.case_seconds * 2 ** len(run.configuration.inference.mirror_axes)
    return each, math.inf if run.budget.seconds is None else VALIDATION_SHARE * run.budget.seconds


def time_to_validate(run: TrainingRun, stopped: bool) -> tuple[float, float]:
    """Seconds that a case of the final validation will take, and those that all of them may take.

    Args:
        stopped: the training has ended early, so that what is left of its time may go to the validation.
    """
    each, most = _expected_validation(run)
    if run.budget.seconds is not None and stopped:
        return each, max(most, run.state.budget_start.seconds + run.budget.seconds - run.elapsed)
    # only where the reserve was cut: an estimate that is a little short must not cost cases
    return each, most if each > most or run.state.reserve >= most else math.inf


def _keep_for_validation(run: TrainingRun, n_cases: int) -> None:
    each, most = _expected_validation(run)
    reserve = LAST_SECONDS + (1.2 * each * n_cases if each <= most else 0)  # where not even one case fits, all goes to learning
    if run.progress() >= 1:
        reserve = max(reserve, run.state.reserve)  # a training that has ended does not begin again
    run.set_reserve(min(reserve, most))


def _score_cases(run: TrainingRun, validation: list[StoredCase], count: int) -> CaseScores:
    """Scores of `count` cases from all over the list; notes what one of them takes."""
    start_time = run.clock()
    cases = [validation[i * len(validation) // count] for i in range(count)]
    score = case_scores(run.model, cases)
    run.set_case_seconds((run.clock() - start_time) / count)
    return score
