"""Progress with an estimate of the remaining time: one moving line on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from autoseg.errors import printable

log = logging.getLogger("autoseg")
CLEAR_LINE = "\r\x1b[K"  # on a terminal: to the beginning of the line, and erase it


def duration(seconds: float) -> str:
    """Format seconds for people: '8 s', '3 min 20 s', '2 h 05 min'."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def number_of(n: int, noun: str) -> str:
    """Format a count with its noun: '1 case', '3 cases'."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def stderr_handler() -> logging.Handler:
    """Handler that prints messages on stderr as they are, in place of a line that moves there."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Printable(f"{CLEAR_LINE if sys.stderr.isatty() else ''}%(message)s"))
    return handler


class _Printable(logging.Formatter):
    """Messages without characters that a terminal would obey: names of files may have any."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message)
        return super().formatMessage(record)


@contextmanager
def shown_progress() -> Iterator[None]:
    """Show messages and progress as the command line does, unless the program that calls has configured logging."""
    if log.hasHandlers() or log.level != logging.NOTSET:
        yield
        return
    handler = stderr_handler()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)


class Ticker:
    """Line on a terminal that is rewritten at most once a second; nothing elsewhere, or when quiet."""

    def __init__(self) -> None:
        self._enabled = sys.stderr.isatty() and log.isEnabledFor(logging.INFO)
        self._printed = -math.inf

    @property
    def due(self) -> bool:
        return self._enabled and time.monotonic() - self._printed >= 1.0

    def show(self, text: str) -> None:
        self._printed = time.monotonic()
        print(f"{CLEAR_LINE}{printable(text)}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._enabled:
            self.show("")


class Progress:
    """Counter of finished items on stderr. Use as a context manager; call `advance` after each item.

    Args:
        time_limit: seconds after which the work ends, however many items remain.
    """

    def __init__(self, title: str, total: int, unit: str = "cases", time_limit: float = math.inf) -> None:
        self.title, self.total, self.unit, self.time_limit = title, total, unit, time_limit
        self.done = 0
        self.started = self._printed = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._shown = log.isEnabledFor(logging.INFO) and total > 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._shown:
            end = "\n" if self._terminal else ""
            self._print(f"{self.done}/{self.total} {self.unit} in {duration(time.monotonic() - self.started)}", end)

    def advance(self, note: str = "") -> None:
        """Count one more finished item; `note` is shown behind the count."""
        self.done += 1
        now = time.monotonic()
        if not self._shown or self.done == self.total or now - self._printed < (0.1 if self._terminal else 5.0):
            return
        self._printed = now
        spent = now - self.started
        remaining = min(spent / self.done * (self.total - self.done), max(self.time_limit - spent, 0.0))
        self._print(f"{self.done}/{self.total} {self.unit}, {duration(remaining)} left{'  ' + note if note else ''}", "")

    def _print(self, text: str, end: str) -> None:
        line = printable(f"{self.title}: {text}")
        print(
            f"{CLEAR_LINE}{line}{end}" if self._terminal else line,
            end="" if self._terminal else "\n",
            file=sys.stderr,
            flush=True,
        )
