"""A training that goes wrong goes back to where it was good, and on with half the learning rate; a few times, then it fails."""

from __future__ import annotations

import math

from autoseg.errors import DataError
from autoseg.runs.history import Epoch
from autoseg.system.progress import log
from autoseg.training.run import TrainingRun

MOST_ROLLBACKS = 3
COLLAPSED = 0.1  # of the best case Dice so far; less is a collapse …
WORTH_SAVING = 0.05  # … if the best was more than this, which networks that have not begun to learn do not reach
LOST = 0.25
"""Of the diagonal of a patch: landmarks that are so far off in the mean, and ten times as far as in the best epoch, are a
collapse where there are no label maps. Places drawn at random are off by more, a few that are mistaken for each other by less."""


class NotFinite(DataError):
    """Loss or gradient is NaN or infinite; the weights are as they were before the step."""


def roll_back_to_last(run: TrainingRun, error: NotFinite) -> None:
    """Restore weights, optimizer, loss scale and step from last.safetensors.

    Sampling continues with different batches; elapsed time is not reset.

    Raises:
        NotFinite: `error`, once this has been tried often enough.
    """
    if run.state.rollbacks >= MOST_ROLLBACKS:
        raise error
    run.restore_last()
    _tell(run, f"{error.problem} ({error.found}, cases {error.case})", f"step {run.state.step}")


def has_collapsed(run: TrainingRun, row: Epoch) -> bool:
    """Whether the network has come to predict (almost) nothing but background, or landmarks anywhere, after it was better."""
    best = run.state.best
    if best is None:
        return False
    if row.case_dice is not None:
        return best > WORTH_SAVING and row.case_dice < COLLAPSED * best
    if row.case_mre is not None:
        c = run.configuration
        diagonal = math.hypot(*(n * mm for n, mm in zip(c.patch.patch_size, c.space.spacing_mm)))
        return row.case_mre > max(-best / COLLAPSED, LOST * diagonal)
    return False


def roll_back_to_best(run: TrainingRun, row: Epoch) -> None:
    """The averaged weights of best.safetensors, and an optimizer that remembers nothing; steps and curve go on. Saves.

    last.safetensors would not do: the collapse may have begun before it was written.

    Raises:
        DataError: this has been tried often enough.
    """
    best = run.state.best or 0.0
    if row.case_dice is None:
        what = "has come to find landmarks no better than by chance"
        problem = f"the error of landmarks has risen from {-best:.3g} to {row.case_mre:.3g} {run.job.unit}"
    else:
        what, problem = "has come to predict background only", f"case Dice has fallen from {best:.3f} to {row.case_dice:.3f}"
    if run.state.rollbacks >= MOST_ROLLBACKS:
        raise DataError(
            f"the network {what}",
            file=run.job.run,
            found=f"{problem} at step {run.state.step}, after {MOST_ROLLBACKS} attempts with a lower learning rate",
            fix="a lower training.learning_rate in the plan, then --restart",
        )
    run.restore_best()
    _tell(run, problem, "the best weights")


def _tell(run: TrainingRun, problem: str, where: str) -> None:
    log.warning("%s: back to %s, with half the learning rate (%d of %d)", problem, where, run.state.rollbacks, MOST_ROLLBACKS)
