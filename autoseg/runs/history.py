"""The curve of a run: one row per epoch, as a table for programs and a picture for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from autoseg.system.files import atomic_path, write_text
from autoseg.system.tables import csv_text


@dataclass(frozen=True)
class Epoch:
    """One row of metrics.csv.

    Args:
        case_dice: mean over structures and a few whole validation cases, predicted by sliding window
            without mirroring; None where nothing could be measured.
        step_seconds: mean time of a step.
        data_wait: share of the epoch that was spent waiting for batches.
        peak_ram_gb: largest RAM of the process so far, on a GPU too.
        case_mre: mean radial error of landmarks, taken at the peaks of their maps in these cases, in mm
            (pixels of natural images); None where nothing could be measured.
    """

    epoch: int
    step: int
    seconds: float
    learning_rate: float
    train_loss: float
    case_dice: float | None
    step_seconds: float
    data_wait: float
    peak_ram_gb: float | None
    case_mre: float | None = None

    @property
    def score(self) -> float | None:
        """Score by which epochs are compared, more is better: case Dice where there are label maps, else minus the error."""
        if self.case_dice is not None or self.case_mre is None:
            return self.case_dice
        return -self.case_mre


def epochs_without_gain(rows: Sequence[Epoch]) -> int:
    """Number of scored epochs since the best one; equal to the best is not better."""
    scores = [row.score for row in rows if row.score is not None]
    return len(scores) - 1 - scores.index(max(scores)) if scores else 0


def write_history(folder: Path, rows: Sequence[Epoch]) -> None:
    """Write metrics.csv and progress.png, each atomically."""
    cells = [[f"{v:.6g}" if isinstance(v, float) else v for v in asdict(row).values()] for row in rows]
    write_text(folder / "metrics.csv", csv_text([[f.name for f in fields(Epoch)], *cells]))
    if rows:
        _draw(folder / "progress.png", rows)


def _draw(path: Path, rows: Sequence[Epoch]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # half a second to import, and only needed here
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    loss_axes = figure.subplots()
    minutes = [r.seconds / 60 for r in rows]
    loss_axes.plot(minutes, [r.train_loss for r in rows], color="tab:blue", marker=".", label="training loss")
    loss_axes.set(xlabel="minutes", ylabel="training loss")
    dice = [(m, r.case_dice) for m, r in zip(minutes, rows) if r.case_dice is not None]
    errors = [(m, r.case_mre) for m, r in zip(minutes, rows) if r.case_mre is not None]
    if dice or not errors:
        axes = loss_axes.twinx()
        axes.plot([m for m, _ in dice], [d for _, d in dice], color="tab:green", marker=".", label="case Dice")
        axes.set(ylabel="case Dice (few validation cases)", ylim=(0, 1))
    if errors:
        axes = loss_axes.twinx()
        axes.plot([m for m, _ in errors], [e for _, e in errors], color="tab:red", marker=".", label="landmark error")
        axes.set(ylabel="mean landmark error, mm or pixels (few validation cases)", yscale="log")
        if dice:
            axes.spines["right"].set_position(("outward", 50))
    figure.legend(loc="outside upper center", ncols=3)
    with atomic_path(path) as temporary:
        canvas.print_png(str(temporary))
