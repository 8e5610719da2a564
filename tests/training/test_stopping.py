"""Being told to stop, once and twice; with real signals to this process. Whole runs are stopped in test_train.py."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoseg.training import stopping as module
from autoseg.training.stopping import FILE, Stopping


@pytest.fixture(autouse=True)
def no_echoes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two signals in a row are two; and the handlers of before are back afterwards."""
    monkeypatch.setattr(module, "ECHO", 0.0)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.01)  # Python runs handlers between two of its own steps


@pytest.mark.parametrize(("number", "reason"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_first_and_second_signal(tmp_path: Path, number: signal.Signals, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    with Stopping(tmp_path) as stopping:
        assert not stopping.is_requested()
        send(number)
        assert stopping.is_requested()
        assert stopping.reason == reason
        assert reason in ("Ctrl-C", "SIGTERM")
        assert caplog.messages == [f"{reason}: stopping: validating the present model; Ctrl-C or SIGTERM now stops at once"]
        with pytest.raises(KeyboardInterrupt):
            send(number)


def test_echo_of_a_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ECHO", 60.0)
    with Stopping(tmp_path) as stopping:
        send(signal.SIGTERM)
        send(signal.SIGINT)
        assert stopping.reason == "SIGTERM"


def test_shielded_block(tmp_path: Path) -> None:
    done = []

    def work(stopping: Stopping, *signals: signal.Signals) -> None:
        with stopping.shielded():
            for number in signals:
                send(number)
            done.append(len(signals))

    with Stopping(tmp_path) as stopping:
        work(stopping)
        work(stopping, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            work(stopping, signal.SIGTERM, signal.SIGINT)
    assert done == [0, 1, 2]


def test_stop_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECK_EVERY", 0.0)
    (tmp_path / FILE).touch()
    with Stopping(tmp_path) as stopping:
        assert not stopping.is_requested()  # that one was for an earlier process
        (tmp_path / FILE).touch()
        assert stopping.is_requested()
        assert stopping.reason == "STOP file"
        assert not (tmp_path / FILE).exists()
        (tmp_path / FILE).touch()
    assert not (tmp_path / FILE).exists()


def test_stop_file_is_checked_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECK_EVERY", 3600.0)
    with Stopping(tmp_path) as stopping:
        stopping.is_requested()
        (tmp_path / FILE).touch()
        assert not stopping.is_requested()


def test_ignored_signal(tmp_path: Path) -> None:
    """As Ctrl-C is for what a script starts in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stopping(tmp_path) as stopping:
            send(signal.SIGINT)
            assert not stopping.is_requested()
    finally:
        signal.signal(signal.SIGINT, before)


def test_stop_file_outside_the_main_thread(tmp_path: Path) -> None:
    heard: list[object] = []

    def work() -> None:
        with Stopping(tmp_path) as stopping:
            (tmp_path / FILE).touch()
            heard.extend([stopping.is_requested(), stopping.reason, signal.getsignal(signal.SIGTERM)])

    handler = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert heard == [True, "STOP file", handler]
