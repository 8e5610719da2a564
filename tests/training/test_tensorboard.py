"""The curve for TensorBoard says what metrics.csv says, over interruptions, too; with TensorBoard itself where there is one."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers.runs import EPOCHS, history, interrupt_at
from helpers.tiny import Tiny

from autoseg.errors import DiskError, UsageError
from autoseg.nets.device import Device
from autoseg.runs.history import Epoch
from autoseg.training.tensorboard import TensorBoardWriter, check_tensorboard
from autoseg.training.train import train

FULL = OSError(28, "No space left on device")


class Writer:
    """Stands in for torch's: remembers what it was told."""

    made: list[Writer]
    failing: str | None = None

    def __init__(self, folder: str, purge_step: int) -> None:
        self.folder, self.purge_step, self.closed, self.flushed = folder, purge_step, 0, 0
        self.scalars: list[tuple[str, float, int]] = []
        self.made.append(self)
        self._fail("open")

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self._fail("add")
        self.scalars.append((name, value, step))

    def flush(self) -> None:
        self.flushed = len(self.scalars)

    def close(self) -> None:
        self.closed += 1
        self._fail("close")

    def _fail(self, where: str) -> None:
        if self.failing == where:
            raise FULL


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[Writer]:
    """Those that were made, one after another."""
    module: Any = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setattr(Writer, "made", [], raising=False)
    monkeypatch.setattr(Writer, "failing", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return Writer.made


def row(epoch: int, loss: float, dice: float | None = 0.5) -> Epoch:
    return Epoch(epoch, 3 * epoch, 10.0 * epoch, 0.01, loss, dice, 0.25, 0.125, None)


def test_without_tensorboard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    message = (
        r'TensorBoard is not installed; found: .*tensorboard.*; fix: pip install "autoseg-medical\[tensorboard\]", or leave out'
    )
    with pytest.raises(UsageError, match=message):
        check_tensorboard()
    with pytest.raises(UsageError, match=message):
        TensorBoardWriter(tmp_path, True, 0)
    TensorBoardWriter(tmp_path, False, 0).add(row(1, 0.5))
    assert not list(tmp_path.iterdir())


def test_rows_are_scalars(writers: list[Writer], tmp_path: Path) -> None:
    """Named after the columns, at the steps; what is not known is not there."""
    check_tensorboard()
    events = TensorBoardWriter(tmp_path, True, 7)
    events.add(row(3, 0.75, None))
    (writer,) = writers
    assert (writer.folder, writer.purge_step) == (str(tmp_path), 8)
    values = {"epoch": 3, "seconds": 30, "learning_rate": 0.01, "train_loss": 0.75, "step_seconds": 0.25, "data_wait": 0.125}
    assert {name: value for name, value, _ in writer.scalars} == values
    assert {step for *_, step in writer.scalars} == {9}
    assert writer.flushed == len(values)
    events.close()
    assert writer.closed == 1


def test_events_of_a_resumed_run(
    writers: list[Writer], tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            train(tiny.job(tmp_path), replace(EPOCHS, tensorboard=True), float32_cpu)
    assert [writer.closed for writer in writers] == [1]
    train(tiny.job(tmp_path), replace(EPOCHS, tensorboard=True), float32_cpu)
    assert [(w.folder, w.purge_step, w.closed) for w in writers] == [(str(tmp_path), 1, 1), (str(tmp_path), 5, 1)]
    assert [{step for *_, step in w.scalars} for w in writers] == [{3}, {6}]
    same_as_table([scalar for w in writers for scalar in w.scalars], tmp_path, rel=1e-5)


def same_as_table(scalars: list[tuple[str, float, int]], run: Path, rel: float) -> None:
    """Each number of metrics.csv, which has six digits, is there once, and nothing else."""
    given = {(name, step): value for name, value, step in scalars}
    assert len(given) == len(scalars)
    cells = [(name, int(line["step"]), value) for line in history(run) for name, value in line.items()]
    table = {(name, step): float(value) for name, step, value in cells if value and name != "step"}
    assert given == pytest.approx(table, rel=rel)


def write_a_row(folder: Path) -> None:
    events = TensorBoardWriter(folder, True, 0)
    events.add(row(1, 0.5))
    events.close()


@pytest.mark.parametrize("where", ["open", "add", "close"])
def test_a_full_disk(writers: list[Writer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    monkeypatch.setattr(Writer, "failing", where)
    with pytest.raises(DiskError, match=r"cannot write; file: .*; found: No space left on device"):
        write_a_row(tmp_path)


@pytest.mark.filterwarnings("ignore")  # TensorBoard's own
def test_what_tensorboard_shows(tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is not installed")

    def shown(folder: Path) -> list[tuple[str, float, int]]:
        accumulator = reading.EventAccumulator(str(folder))
        accumulator.Reload()
        return [(n, s.value, s.step) for n in accumulator.Tags()["scalars"] for s in accumulator.Scalars(n)]

    run = tmp_path / "fold_0"
    with monkeypatch.context() as patch:
        interrupt_at(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            train(tiny.job(run), replace(EPOCHS, tensorboard=True), float32_cpu)
    train(tiny.job(run), replace(EPOCHS, tensorboard=True), float32_cpu)
    same_as_table(shown(run), run, rel=1e-5)
    lost, again = TensorBoardWriter(tmp_path / "killed", True, 0), row(2, 0.125)  # after an epoch that was told, but not saved
    for epoch in (row(1, 1.0), row(2, 0.5)):
        lost.add(epoch)
    lost.close()
    kept = TensorBoardWriter(tmp_path / "killed", True, 3)
    kept.add(again)
    kept.close()
    assert [(value, step) for name, value, step in shown(tmp_path / "killed") if name == "train_loss"] == [(1.0, 3), (0.125, 6)]
