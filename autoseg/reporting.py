"""The end of an epoch: a row in the curve, everything saved, and a line for people."""

from __future__ import annotations

from dataclasses import replace

from autoseg.checkpoint import save_weights
from autoseg.history import Epoch, write_history
from autoseg.parallel import is_first
from autoseg.progress import duration, log, number_of
from autoseg.rescue import has_collapsed, to_best
from autoseg.running import Running
from autoseg.task import TrainTask


def report_epoch(run: Running, row: Epoch) -> bool:
    """Adds an epoch to the curve, saves, and says how it went.

    One file is what counts: killed before it is written, the epoch is trained again; afterwards, nothing is left to be decided.

    Returns:
        Whether the network has collapsed and is back at its best weights.
    """
    collapsed = has_collapsed(run, row)
    run.state = replace(run.state, history=(*run.state.history, row), loss_total=0.0, loss_steps=0)
    better = row.score is not None and (run.state.best is None or row.score > run.state.best)
    if better:
        run.state = replace(run.state, best=row.score)
    if is_first():
        if better:
            save_weights(run.task.run / "best.safetensors", run.model.networks[0], run.state)
        write_history(run.task.run, run.state.history)
    run.events.add(row)
    if collapsed:
        to_best(run, row)
    else:
        run.save()
    began = run.state.began
    left = (row.seconds - began.seconds) * (1 / max(run.progress(), 1e-9) - 1)
    log.info(
        "epoch %d/%d  step %d  loss %.3f  %s (%s)%s  lr %.1e  %.2f s/step  data wait %.0f%%  RAM %s GB  %s left",
        row.epoch,
        began.epochs + run.budget.n_epochs,
        row.step,
        row.train_loss,
        scores_text(run.task, row.case_dice, row.case_mre),
        number_of(run.state.interim, "case"),
        " best" if better else "",
        row.learning_rate,
        row.step_seconds,
        100 * row.data_wait,
        "--" if row.peak_ram_gb is None else f"{row.peak_ram_gb:.1f}",
        duration(left),
    )
    return collapsed


def scores_text(task: TrainTask, dice: float | None, mre: float | None) -> str:
    """'case Dice 0.879  MRE 0.31 mm', as far as the dataset is about either; two dashes where there is no score."""
    parts = []
    if task.plan.data.labels.names:
        parts.append(f"case Dice {'--' if dice is None else f'{dice:.3f}'}")
    if task.plan.data.landmarks.names:
        parts.append(f"MRE {'--' if mre is None else f'{mre:.3g} {task.unit}'}")
    return "  ".join(parts)
