"""Requests to stop: Ctrl-C, SIGTERM (which clusters send before they kill), or a file named STOP."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from autoseg.system.progress import log

FILE = "STOP"
NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
CHECK_EVERY = 1.0  # seconds between checks for the file: on a network drive they are not free
ECHO = 0.5  # seconds in which a second signal is an echo of the first: wrappers such as `uv run` pass Ctrl-C on


class Stopping:
    """Context manager around work that should end well when the user stops it.

    The first signal, or the file, sets `reason`; the work calls `is_requested` where it could end. A
    second signal raises KeyboardInterrupt at once, or at the end of a `shielded` block. A STOP file from
    before was meant for another process and is removed, as it is at the end. Outside of Python's main
    thread only the file counts.

    Args:
        follows: another process decides for this one, which ignores signals and the file.
    """

    def __init__(self, folder: Path, *, follows: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self.reason: str | None = None
        self._follows = follows
        self._clock = clock
        self._file = folder / FILE
        self._signal_time = self._check_time = -math.inf
        self._handlers: dict[int, Any] = {}
        self._shielded = self._at_once = False

    def __enter__(self) -> Stopping:
        if not self._follows:
            self._file.unlink(missing_ok=True)
        if threading.current_thread() is threading.main_thread():
            for number in NAMES:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as in the background of a script
                    self._handlers[number] = signal.signal(number, signal.SIG_IGN if self._follows else self._on_signal)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)
        if not self._follows:
            self._file.unlink(missing_ok=True)

    def is_requested(self, *, final: bool = False) -> bool:
        """Whether the work is to end now.

        Args:
            final: this is the last call, so check for the file even if that was done a moment ago.
        """
        now = self._clock()
        if self.reason is None and not self._follows and (final or now - self._check_time > CHECK_EVERY):
            self._check_time = now
            if self._file.exists():
                self._file.unlink(missing_ok=True)
                self._stop("STOP file")
        return self.reason is not None

    @contextlib.contextmanager
    def shielded(self) -> Iterator[None]:
        """Let KeyboardInterrupt wait for the end of the block, whose changes must all be made or none."""
        self._shielded = True
        try:
            yield
        finally:
            self._shielded = False
        if self._at_once:
            raise KeyboardInterrupt

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.reason is None:
            self._stop(NAMES[signal.Signals(number)])
        elif self._clock() - self._signal_time > ECHO:
            self._at_once = True
            if not self._shielded:
                raise KeyboardInterrupt

    def _stop(self, reason: str) -> None:
        self.reason, self._signal_time = reason, self._clock()
        log.warning("%s: stopping: validating the present model; Ctrl-C or SIGTERM now stops at once", reason)
