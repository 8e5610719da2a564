from __future__ import annotations

import logging
import sys

import pytest

from autoseg.system import progress
from autoseg.system.progress import CLEAR_LINE, Progress, Ticker, duration, log, number_of, stderr_handler


class Clock:
    """A clock that the test moves, in place of the module `time`."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.fixture(autouse=True)
def _level(request: pytest.FixtureRequest) -> object:
    before = log.level
    log.setLevel(logging.INFO)
    yield
    log.setLevel(before)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (8.4, "8 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (3599, "59 min 59 s"), (7500, "2 h 05 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_one_is_singular() -> None:
    assert [number_of(n, "label map") for n in (0, 1, 2)] == ["0 label maps", "1 label map", "2 label maps"]


def test_remaining_time_is_at_most_the_time_limit(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("validate", 100, time_limit=20) as bar:
        clock.now += 6
        bar.advance()
        clock.now += 16
        bar.advance()
    assert (
        capsys.readouterr().err
        == "validate: 1/100 cases, 14 s left\nvalidate: 2/100 cases, 0 s left\nvalidate: 2/100 cases in 22 s\n"
    )


def test_plain_lines_without_a_terminal(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("prepare", 4) as bar:
        bar.advance("a")  # too early for a line
        clock.now += 6
        bar.advance("b")
        clock.now += 1
        bar.advance("c")
        clock.now += 6
        bar.advance("d")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "prepare: 2/4 cases, 6 s left  b\nprepare: 4/4 cases in 13 s\n"


def test_one_rewritten_line_on_a_terminal(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Progress("train", 3, "epochs") as bar:
        clock.now += 1
        bar.advance()
        clock.now += 1
    assert capsys.readouterr().err == "\r\x1b[Ktrain: 1/3 epochs, 2 s left\r\x1b[Ktrain: 1/3 epochs in 2 s\n"


@pytest.mark.parametrize(
    ("terminal", "level", "shown"),
    [(True, logging.INFO, "\r\x1b[Kstep 1\r\x1b[Kstep 3\r\x1b[K"), (True, logging.WARNING, ""), (False, logging.INFO, "")],
)
def test_a_line_that_moves_once_a_second_on_a_terminal(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool, level: int, shown: str
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    log.setLevel(level)
    ticker = Ticker()
    for text in ("step 1", "step 2", "step 3"):
        if ticker.due:
            ticker.show(text)
        clock.now += 0.6
    ticker.clear()
    assert capsys.readouterr().err == shown


@pytest.mark.parametrize(("level", "total"), [(logging.WARNING, 2), (logging.INFO, 0)])
def test_nothing_when_quiet_or_empty(clock: Clock, capsys: pytest.CaptureFixture[str], level: int, total: int) -> None:
    log.setLevel(level)
    with Progress("prepare", total) as bar:
        for _ in range(total):
            clock.now += 10
            bar.advance()
    assert capsys.readouterr().err == ""
    assert bar.done == total


@pytest.mark.parametrize("terminal", [False, True])
def test_no_name_commands_the_terminal(
    terminal: bool, clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    odd = "a\x1b[2J\x9b1m\u202eb\udcff"
    handler = stderr_handler()
    handler.setStream(sys.stderr)  # type: ignore[attr-defined]
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.warning("note: %s", odd)
    log.removeHandler(handler)
    with Progress("prepare", 2) as bar:
        clock.now += 10
        bar.advance(odd)
    ticker = Ticker()
    ticker.show(odd)
    text = capsys.readouterr().err.replace(CLEAR_LINE, "")
    assert text.count("a\\x1b[2J\\x9b1m\\u202eb\\udcff") == 3
    assert not any(c in text for c in "\x1b\x9b\u202e\udcff")
