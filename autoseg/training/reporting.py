"""Reports of a training: a line that moves with its steps, and for each epoch a row in the curve and a line in the log."""

from __future__ import annotations

from autoseg.runs.history import Epoch, write_history
from autoseg.runs.job import TrainingJob
from autoseg.system.files import write_text
from autoseg.system.progress import duration, log, number_of
from autoseg.system.records import to_json
from autoseg.training.checkpoint import save_weights
from autoseg.training.distributed import is_first
from autoseg.training.interim_record import interim_record
from autoseg.training.rollback import has_collapsed, roll_back_to_best
from autoseg.training.run import TrainingRun


def report_epoch(run: TrainingRun, row: Epoch, reason: str = "") -> bool:
    """Add an epoch to the curve, save, and log its scores.

    Only last.safetensors counts: a run that is killed before it is written trains the epoch again; after
    that, nothing remains to be decided. From then on run.json makes the folder a model, of the best weights so far.

    Args:
        reason: why there is no score, where there is none.

    Returns:
        Whether the network has collapsed and is back at its best weights.
    """
    collapsed, better = has_collapsed(run, row), run.state.is_better(row)
    run.add_epoch(row)
    if is_first():
        if better:
            save_weights(run.job.run / "best.safetensors", run.model.networks[0], run.state)
        write_history(run.job.run, run.state.history)
    run.tensorboard.add(row)
    if collapsed:
        roll_back_to_best(run, row)
    else:
        run.save()
    if is_first():
        write_text(run.job.run / "run.json", to_json(interim_record(run)))
    log.info(
        "%s  step %d  loss %.3f  %s (%s)%s  lr %.1e  %.2f s/step  data wait %.0f%%  RAM %s GB  %s left",
        _epoch_of(run, row.epoch),
        row.step,
        row.train_loss,
        scores_text(run.job, row.case_dice, row.case_mre),
        reason or number_of(run.state.n_interim_cases, "case"),
        " best" if better else "",
        row.learning_rate,
        row.step_seconds,
        100 * row.data_wait,
        "--" if row.peak_ram_gb is None else f"{row.peak_ram_gb:.1f}",
        _left(run, row.seconds),
    )
    return collapsed


def report_step(run: TrainingRun, seconds: float, steps: int) -> None:
    """Show the progress of the epoch on a terminal, after `steps` steps in `seconds`."""
    if run.ticker.due:
        number, loss = _epoch_of(run, len(run.state.history) + 1), run.state.mean_loss
        pace = f"{seconds / steps:.2f} s/step  {_left(run, run.elapsed)} left"
        run.ticker.show(f"{number}  step {run.state.step}  loss {loss:.3f}  {pace}")


def _epoch_of(run: TrainingRun, epoch: int) -> str:
    return f"epoch {epoch}/{run.n_epochs}"


def _left(run: TrainingRun, elapsed: float) -> str:
    """Text of the time until the final validation, `elapsed` seconds after the run began."""
    return duration((elapsed - run.state.budget_start.seconds) * (1 / max(run.progress(), 1e-9) - 1))


def scores_text(job: TrainingJob, dice: float | None, mre: float | None) -> str:
    """'case Dice 0.879  MRE 0.31 mm', as far as the dataset is about either; two dashes where there is no score."""
    parts = []
    if job.plan.data.labels.names:
        parts.append(f"case Dice {'--' if dice is None else f'{dice:.3f}'}")
    if job.plan.data.landmarks.names:
        parts.append(f"MRE {'--' if mre is None else f'{mre:.3g} {job.unit}'}")
    return "  ".join(parts)
