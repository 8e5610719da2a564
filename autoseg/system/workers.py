"""One function for many cases on a few threads. A case that fails is listed and never stops the rest.

Threads, not processes: reading images, matrix products and interpolation release Python's lock
(compressing holds it, for a small part of the time), nothing is copied between workers, a fault keeps
its traceback, and threads behave alike on every operating system.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from autoseg.errors import AutosegError, DataError, DiskError
from autoseg.system.files import write_text
from autoseg.system.machine import cpu_count
from autoseg.system.progress import Progress, log, number_of
from autoseg.system.tables import csv_text, read_csv

FAILED = "failed.csv"  # the cases of a folder that failed


class Named(Protocol):
    """Anything with a name, such as a case."""

    @property
    def name(self) -> str: ...


C = TypeVar("C", bound=Named)
R = TypeVar("R")


@dataclass(frozen=True)
class Failure:
    """A case that failed, and the reason."""

    case: str
    stage: str
    reason: str


@dataclass(frozen=True)
class CaseReport:
    """Base of the reports on what a command did to its cases.

    Args:
        failures: the cases that failed; the others were still processed.
    """

    failures: tuple[Failure, ...] = field(default=(), kw_only=True)

    def raise_if_failed(self) -> None:
        """Raise an error that names the first failures, if there is one, for scripts that must not go on.

        Raises:
            DataError: a case failed.
        """
        if self.failures:
            reasons = "; ".join(failure.reason for failure in self.failures[:3])
            raise DataError(f"{number_of(len(self.failures), 'case')} failed", found=reasons)


class CaseRun(Generic[C, R]):
    """Run of one function over many cases: iterating gives (case, result) in the order in which they finish.

    What raises `AutosegError` or runs out of memory is listed in `failures` instead. At most twice as many cases as workers are
    in flight, so memory does not grow with the dataset.

    Args:
        stage: shown in the progress line and in `failures`.
        workers: threads; None means one per core, 0 means none (everything runs here).

    Raises:
        DiskError: nothing can be written any more.
        RuntimeError: any other exception of a case, with the case's name; that is a bug.
    """

    def __init__(self, work: Callable[[C], R], cases: Sequence[C], stage: str, *, workers: int | None = None) -> None:
        self._work, self._cases, self._stage = work, cases, stage
        self._count = cpu_count() if workers is None else workers
        self._failures: list[Failure] = []

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The cases that have failed so far."""
        return tuple(self._failures)

    def __iter__(self) -> Iterator[tuple[C, R]]:
        work, cases, stage = self._work, self._cases, self._stage
        with Progress(stage, len(cases)) as progress:
            for case, outcome in _in_turn(work, cases) if self._count == 0 else _on_threads(work, cases, self._count):
                try:
                    result = outcome()
                except DiskError:
                    raise
                except AutosegError as error:
                    _free_arrays(error)
                    error.case = error.case or case.name
                    self._failures.append(Failure(case.name, stage, str(error)))
                    progress.advance()
                    continue
                except MemoryError as error:
                    _free_arrays(error)
                    fix = "--workers 1, or a machine with more memory"
                    reason = f"case {case.name}: out of memory; found: {error}; fix: {fix}"
                    self._failures.append(Failure(case.name, stage, reason))
                    progress.advance()
                    continue
                except Exception as error:
                    raise RuntimeError(f"{stage}: case {case.name}: {type(error).__name__}: {error}") from error
                progress.advance(case.name)
                yield case, result

    def finish(self) -> list[R]:
        """The results of all cases that did not fail, in the order in which they finished."""
        return [result for _, result in self]


def write_failures(path: Path, failures: Sequence[Failure], stages: Sequence[str]) -> None:
    """Update failed.csv (case, stage, reason) after `stages` were run; rows of other stages stay.

    The file is deleted when no row remains.

    Args:
        stages: first words of `Failure.stage`: 'preprocess' stands for 'preprocess 3d_fullres' and every other configuration.
    """
    kept = [f for f in read_failures(path) if f.stage.partition(" ")[0] not in stages]
    rows = sorted([*kept, *failures], key=lambda f: (f.case, f.stage))
    if not rows:
        path.unlink(missing_ok=True)
        return
    write_text(path, csv_text([("case", "stage", "reason"), *((f.case, f.stage, f.reason) for f in rows)]))


def read_failures(path: Path) -> list[Failure]:
    """Read the rows of `write_failures`; none where there is no file, or where a note says that it cannot be read."""
    if not path.is_file():
        return []
    try:
        _, rows = read_csv(path, FAILED)
    except DataError as error:
        log.warning("note: earlier failures are left out: %s", error)
        return []
    return [Failure(*cells) for _, cells in rows if len(cells) == 3]


def _free_arrays(error: BaseException | None) -> None:
    """Let go of what the frames hold that an error came through: a case that needs much memory must not fail the next one."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _in_turn(work: Callable[[C], R], cases: Sequence[C]) -> Iterator[tuple[C, Callable[[], R]]]:
    for case in cases:
        yield case, lambda case=case: work(case)  # type: ignore[misc]


def _on_threads(work: Callable[[C], R], cases: Sequence[C], count: int) -> Iterator[tuple[C, Callable[[], R]]]:
    waiting = iter(cases)
    with ThreadPoolExecutor(count, thread_name_prefix="autoseg") as pool:
        running: dict[Future[R], C] = {}
        try:
            while True:
                for case in waiting:
                    running[pool.submit(work, case)] = case
                    if len(running) >= 2 * count:
                        break
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result
        finally:
            for future in running:
                future.cancel()
