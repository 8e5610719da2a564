"""Arguments of public functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from autoseg.errors import UsageError
from autoseg.system.arguments import as_path, check_type, check_workers


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(0)])
def test_whole_numbers(value: Any) -> None:
    check_type(value, "n", int, "a number")
    check_type(value, "n", (int, float), "a number")
    check_workers(value)
    with pytest.raises(UsageError, match=rf"n has the wrong type; found: {value}; allowed: words"):
        check_type(value, "n", str, "words")


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.float64(0.5)])
def test_fractions(value: Any) -> None:
    check_type(value, "n", float, "a fraction")
    with pytest.raises(UsageError, match=r"n has the wrong type; found: 0\.5; allowed: a number"):
        check_type(value, "n", int, "a number")


@pytest.mark.parametrize(
    ("value", "found"),
    [(True, "True"), (np.float32("nan"), "nan"), (float("inf"), "inf"), (np.bool_(True), "bool"), ("3", "str")],
)
def test_what_is_no_number(value: Any, found: str) -> None:
    with pytest.raises(UsageError, match=rf"n has the wrong type; found: {found}.*; allowed: a number"):
        check_type(value, "n", (int, float), "a number")


@pytest.mark.parametrize(
    ("value", "message"), [(-1, "the number of threads is negative; found: -1"), (1.5, "workers has the wrong type")]
)
def test_numbers_of_threads(value: Any, message: str) -> None:
    check_workers(None)
    with pytest.raises(UsageError, match=message):
        check_workers(value)


@pytest.mark.parametrize("path", ["a" * 300, "a\0b", "a/" * 2500])
def test_what_can_be_no_path(path: str) -> None:
    with pytest.raises(UsageError, match=r"^images is no path; found: '.*; allowed: up to 255 bytes"):
        as_path(path, "images")


def test_a_path_of_bytes_is_none() -> None:
    class Bytes:
        def __fspath__(self) -> bytes:
            return b"a"

    with pytest.raises(UsageError, match=r"^images must be a path; found: bytes; allowed: a string$"):
        as_path(Bytes(), "images")
