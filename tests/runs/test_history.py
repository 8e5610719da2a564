from __future__ import annotations

import csv
from dataclasses import fields, replace
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from autoseg.runs.history import Epoch, epochs_without_gain, write_history

ROWS = [
    Epoch(0, 10, 12.5, 1e-3, 1.2345678, None, 0.25, 0.01, None),
    Epoch(1, 20, 25.0, 5e-4, -0.75, 0.8125, 0.25, 0.0, 1.5),
]


def test_table_by_hand(tmp_path: Path) -> None:
    write_history(tmp_path, ROWS)
    with open(tmp_path / "metrics.csv", newline="") as handle:
        table = list(csv.DictReader(handle))
    assert list(table[0]) == [f.name for f in fields(Epoch)]
    assert table[0]["train_loss"] == "1.23457"
    assert table[0]["case_dice"] == table[0]["peak_ram_gb"] == ""
    assert (table[1]["epoch"], table[1]["case_dice"], table[1]["learning_rate"]) == ("1", "0.8125", "0.0005")


def test_epochs_since_the_best_one_by_hand() -> None:
    def since(*scores: float | None) -> int:
        return epochs_without_gain([replace(ROWS[0], case_dice=score) for score in scores])

    assert since() == since(None, None) == since(0.3) == since(None, 0.1, 0.2) == 0
    assert since(0.2, 0.1) == since(0.2, None, 0.2) == 1
    assert since(0.1, 0.5, 0.4, None, 0.5, 0.3) == 3


def test_the_score_is_dice_or_the_error_below_zero() -> None:
    row = ROWS[1]
    assert (row.score, ROWS[0].score) == (0.8125, None)
    assert replace(row, case_mre=2.5).score == 0.8125
    landmarks = [replace(row, case_dice=None, case_mre=mre) for mre in (2.5, 0.5, None, 0.75, 0.5)]
    assert [r.score for r in landmarks] == [-2.5, -0.5, None, -0.75, -0.5]
    assert epochs_without_gain(landmarks) == 2
    assert epochs_without_gain(landmarks[:2]) == 0


@pytest.mark.parametrize("dice", [None, 0.5])
def test_the_picture_has_a_curve_of_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dice: float | None) -> None:
    drawn: list[tuple[str, list[float]]] = []
    original = FigureCanvasAgg.print_png

    def note(self: FigureCanvasAgg, path: str) -> None:
        drawn.extend((str(line.get_label()), list(line.get_ydata())) for axes in self.figure.axes for line in axes.lines)
        original(self, path)

    monkeypatch.setattr(FigureCanvasAgg, "print_png", note)
    write_history(tmp_path, [replace(ROWS[1], case_dice=dice, case_mre=mre) for mre in (3.0, 0.0)])
    labels = ["training loss", *(["case Dice"] if dice else []), "landmark error"]
    assert [label for label, _ in drawn] == labels
    assert drawn[-1][1] == [3.0, 0.0]


def test_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    original = FigureCanvasAgg.print_png

    def print_png(canvas: FigureCanvasAgg, path: str) -> None:
        names.extend(axes.get_ylabel() for axes in canvas.figure.axes)
        original(canvas, path)

    monkeypatch.setattr(FigureCanvasAgg, "print_png", print_png)
    write_history(tmp_path, ROWS)
    assert names == ["training loss", "case Dice (few validation cases)"]  # whichever loss the plan chose
    assert (tmp_path / "progress.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.csv", "progress.png"]


def test_a_run_without_any_score_still_has_a_picture(tmp_path: Path) -> None:
    write_history(tmp_path, ROWS[:1])
    assert (tmp_path / "progress.png").stat().st_size > 1000


def test_history_before_the_first_epoch_is_a_header(tmp_path: Path) -> None:
    write_history(tmp_path, [])
    assert (tmp_path / "metrics.csv").read_text().count("\n") == 1
    assert not (tmp_path / "progress.png").exists()
