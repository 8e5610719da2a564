"""The curve of a run for TensorBoard: event files beside metrics.csv."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from autoseg.errors import UsageError
from autoseg.runs.history import Epoch
from autoseg.system.files import disk_errors

FIX = 'pip install "autoseg-medical[tensorboard]", or leave out --tensorboard; metrics.csv and progress.png show the same curve'


class TensorBoardWriter:
    """Writes the rows of metrics.csv as scalars named after its columns.

    Events after `step` are purged, since these steps are trained again.

    Args:
        enabled: if not, nothing is written.

    Raises:
        UsageError: TensorBoard is not installed.
        DiskError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, enabled: bool, step: int) -> None:
        self._folder = folder
        self._writer: Any = None
        if enabled:
            with disk_errors(folder):
                self._writer = _writer_class()(str(folder), purge_step=step + 1)

    def add(self, row: Epoch) -> None:
        if self._writer is None:
            return
        with disk_errors(self._folder):
            for name, value in asdict(row).items():
                if name != "step" and value is not None:
                    self._writer.add_scalar(name, value, row.step)
            self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            with disk_errors(self._folder):
                self._writer.close()


def check_tensorboard() -> None:
    """Check that TensorBoard can be imported.

    Raises:
        UsageError: TensorBoard is not installed.
    """
    _writer_class()


def _writer_class() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError("TensorBoard is not installed", found=str(error), fix=FIX) from error
    return SummaryWriter
