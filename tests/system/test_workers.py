from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from autoseg.errors import DataError, DiskError
from autoseg.system.machine import cpu_count
from autoseg.system.workers import CaseRun, Failure, read_failures, write_failures


@dataclass(frozen=True)
class Item:
    name: str
    number: int


ITEMS = [Item(f"case_{i:02d}", i) for i in range(12)]


def square(item: Item) -> int:
    return item.number**2


@pytest.mark.parametrize("workers", [0, 1, 3, None])
def test_every_case_comes_back_with_its_own_result(workers: int | None) -> None:
    run = CaseRun(square, ITEMS, "square", workers=workers)
    assert dict(run) == {item: item.number**2 for item in ITEMS}
    assert run.failures == ()


def test_no_threads_run_cases_in_order_one_by_one() -> None:
    seen: list[int] = []
    running = iter(CaseRun(lambda item: seen.append(item.number), ITEMS, "look", workers=0))
    next(running)
    assert seen == [0]
    assert [item for item, _ in running] == ITEMS[1:]


@pytest.mark.parametrize("workers", [0, 3])
def test_a_bad_case_is_listed_and_the_others_go_on(workers: int) -> None:
    def work(item: Item) -> int:
        if item.number % 5 == 0:
            raise DataError("no such file", file=f"{item.number}.nii.gz")
        return item.number

    run = CaseRun(work, ITEMS, "read", workers=workers)
    assert sorted(run.finish()) == [1, 2, 3, 4, 6, 7, 8, 9, 11]
    assert sorted(run.failures, key=lambda f: f.case) == [
        Failure(f"case_{i:02d}", "read", f"case case_{i:02d}: no such file; file: {i}.nii.gz") for i in (0, 5, 10)
    ]


def test_a_case_named_by_the_error_is_not_renamed() -> None:
    def work(item: Item) -> None:
        raise DataError("odd", case="inner")

    run = CaseRun(work, ITEMS[:1], "read", workers=0)
    assert run.finish() == []
    assert run.failures == (Failure("case_00", "read", "case inner: odd"),)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bug_stops_everything_and_names_the_case(workers: int) -> None:
    def work(item: Item) -> float:
        return 1 / (item.number - 3)

    run = CaseRun(work, ITEMS, "divide", workers=workers)
    with pytest.raises(RuntimeError, match=r"divide: case case_03: ZeroDivisionError: division by zero") as caught:
        run.finish()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert run.failures == ()


def test_few_cases_are_in_flight() -> None:
    """No more than twice as many as workers are begun before results are taken."""
    begun: list[str] = []
    lock = threading.Lock()

    def work(item: Item) -> int:
        with lock:
            begun.append(item.name)
        return item.number

    running = iter(CaseRun(work, ITEMS, "look", workers=2))
    next(running)
    time.sleep(0.05)
    assert len(begun) <= 4
    assert len(list(running)) == len(ITEMS) - 1


def test_threads_end_with_a_consumer_that_leaves_early() -> None:
    before = threading.active_count()
    running: Iterator[tuple[Item, int]] = iter(CaseRun(square, ITEMS, "look", workers=3))
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_no_case_at_all() -> None:
    assert list(CaseRun(square, [], "look")) == []


def test_write_failures_sorts_quotes_and_removes(tmp_path: Path) -> None:
    path = tmp_path / "failed.csv"
    failures = [Failure("b", "read", 'broken, "quite"'), Failure("a", "prepare 3d", "x")]
    write_failures(path, failures, ("read", "prepare"))
    assert path.read_text() == 'case,stage,reason\na,prepare 3d,x\nb,read,"broken, ""quite"""\n'
    assert read_failures(path) == failures[::-1]
    write_failures(path, [], ("prepare",))  # what another stage said stays
    assert read_failures(path) == failures[:1]
    write_failures(path, [Failure("c", "read", "y")], ("read",))
    assert [f.case for f in read_failures(path)] == ["c"]
    write_failures(path, [], ("read",))
    assert not path.exists()
    write_failures(path, [], ("read",))
    assert read_failures(path) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk_stops_the_batch(workers: int) -> None:
    def work(item: Item) -> None:
        raise DiskError("cannot write", file="x")

    run = CaseRun(work, ITEMS, "write", workers=workers)
    with pytest.raises(DiskError, match="cannot write"):
        run.finish()
    assert run.failures == ()


def test_a_case_too_large_for_the_memory_is_listed() -> None:
    def work(item: Item) -> int:
        if item.number == 1:
            raise MemoryError("4 GB")
        return item.number

    run = CaseRun(work, ITEMS, "read", workers=0)
    assert len(run.finish()) == len(ITEMS) - 1
    assert list(run.failures) == [
        Failure("case_01", "read", "case case_01: out of memory; found: 4 GB; fix: --workers 1, or a machine with more memory")
    ]


def test_cpu_count() -> None:
    assert cpu_count() >= 1


@pytest.mark.parametrize("content", ["ä".encode("latin-1"), b"a\0", b'case,stage,reason\na,"read', b"case\n" + b"a" * 200_000])
def test_a_damaged_list_of_failures_is_begun_anew(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "failed.csv"
    path.write_bytes(content)
    write_failures(path, [Failure("a", "read", "x")], ("read",))
    assert "note: earlier failures are left out: failed.csv " in caplog.text
    assert path.read_text() == "case,stage,reason\na,read,x\n"


def test_rows_without_a_stage_stay(tmp_path: Path) -> None:
    path = tmp_path / "failed.csv"
    path.write_text("case,stage,reason\na,,x\nb\n,,\n")
    write_failures(path, [], ("read",))
    assert read_failures(path) == [Failure("", "", ""), Failure("a", "", "x")]
