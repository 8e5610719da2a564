"""Rollback: a training that goes wrong goes back to good weights and on with half the learning rate, at most three times."""

from __future__ import annotations

import math

from autoseg.errors import DataError
from autoseg.runs.history import Epoch
from autoseg.system.progress import log
from autoseg.training.run import TrainingRun

MAX_ROLLBACKS = 3
COLLAPSE_RATIO = 0.1  # of the best case Dice; less is a collapse …
LEARNT_DICE = 0.05  # … if the best was more than this, which networks that have not begun to learn do not reach
LOST_SHARE = 0.25
"""Share of a patch's diagonal: a mean landmark error of more than this, and of ten times the best epoch's, is a
collapse where there are no label maps. Points drawn at random are off by more, a few mistaken for each other by less."""


class NotFinite(DataError):
    """Loss or gradient is NaN or infinite; the weights are as before the step."""


def roll_back_to_last(run: TrainingRun, error: NotFinite) -> None:
    """Restore weights, optimizer, loss scale and step from last.safetensors.

    Sampling continues with different batches; elapsed time is not reset.

    Raises:
        NotFinite: `error`, after `MAX_ROLLBACKS`.
    """
    if run.state.rollbacks >= MAX_ROLLBACKS:
        raise error
    run.roll_back_to_saved()
    _log_rollback(run, f"{error.problem} ({error.found}, cases {error.case})", f"step {run.state.step}")


def has_collapsed(run: TrainingRun, row: Epoch) -> bool:
    """Whether a network that was better now predicts (almost) nothing but background, or landmarks anywhere."""
    best = run.state.best
    if best is None:
        return False
    if row.case_dice is not None:
        return best > LEARNT_DICE and row.case_dice < COLLAPSE_RATIO * best
    if row.case_mre is not None:
        c = run.configuration
        diagonal = math.hypot(*(n * mm for n, mm in zip(c.patch.patch_size, c.space.spacing_mm)))
        return row.case_mre > max(-best / COLLAPSE_RATIO, LOST_SHARE * diagonal)
    return False


def roll_back_to_best(run: TrainingRun, row: Epoch) -> None:
    """Restore the averaged weights of best.safetensors and reset the optimizer; steps and curve go on. Saves.

    last.safetensors would not do: the collapse may have begun before it was written.

    Raises:
        DataError: after `MAX_ROLLBACKS`.
    """
    best = run.state.best or 0.0
    if row.case_dice is None:
        what = "has come to find landmarks no better than by chance"
        problem = f"the error of landmarks has risen from {-best:.3g} to {row.case_mre:.3g} {run.job.unit}"
    else:
        what, problem = "has come to predict background only", f"case Dice has fallen from {best:.3f} to {row.case_dice:.3f}"
    if run.state.rollbacks >= MAX_ROLLBACKS:
        raise DataError(
            f"the network {what}",
            file=run.job.run,
            found=f"{problem} at step {run.state.step}, after {MAX_ROLLBACKS} attempts with a lower learning rate",
            fix="a lower training.learning_rate in the plan, then --restart",
        )
    run.roll_back_to_best_weights()
    _log_rollback(run, problem, "the best weights")


def _log_rollback(run: TrainingRun, problem: str, where: str) -> None:
    log.warning("%s: back to %s, with half the learning rate (%d of %d)", problem, where, run.state.rollbacks, MAX_ROLLBACKS)
