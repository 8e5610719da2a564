"""Processes that take turns."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from autoseg.errors import DiskError, UsageError
from autoseg.system.lock import folder_lock

COUNT = """
import sys, time
from pathlib import Path
from autoseg.system.lock import folder_lock

folder, number = Path(sys.argv[1]), Path(sys.argv[2])
for _ in range(20):
    with folder_lock(folder):
        value = int(number.read_text())
        time.sleep(0.001)
        number.write_text(str(value + 1))
"""


def test_processes_take_turns(tmp_path: Path) -> None:
    number = tmp_path / "number"
    number.write_text("0")
    command = [sys.executable, "-c", COUNT, str(tmp_path / "deep" / "cases"), str(number)]
    running = [subprocess.Popen(command) for _ in range(3)]
    assert [p.wait(60) for p in running] == [0, 0, 0]
    assert number.read_text() == "60"


def test_who_waits_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="autoseg")
    inside = threading.Event()

    def second() -> None:
        with folder_lock(tmp_path / "cases"):
            inside.set()

    with folder_lock(tmp_path / "cases"):
        other = threading.Thread(target=second)
        other.start()
        assert not inside.wait(0.3)
    other.join(10)
    assert inside.is_set()
    assert caplog.messages == [f"another autoseg is preparing {tmp_path / 'cases'}: waiting for it"]


def test_who_does_not_wait_is_refused(tmp_path: Path) -> None:
    with folder_lock(tmp_path / "fold_0"):
        refused = pytest.raises(UsageError, match=r"another autoseg is training in this folder; file: .*fold_0; fix: wait until")
        with refused, folder_lock(tmp_path / "fold_0", wait=False):
            pass
    with folder_lock(tmp_path / "fold_0", wait=False):
        pass


def test_it_is_let_go_after_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inside"), folder_lock(tmp_path / "cases"):
        raise ValueError("inside")
    with folder_lock(tmp_path / "cases"):
        pass


def test_no_place_for_the_lock(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match=r"cannot write; file: .*\.cases\.lock"), folder_lock(tmp_path / "file" / "cases"):
        pass
