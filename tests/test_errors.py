from __future__ import annotations

from pathlib import Path

import pytest

from autoseg import errors
from autoseg.errors import (
    AutosegError,
    DataError,
    DiskError,
    GeometryError,
    LabelError,
    PlanError,
    ResourceError,
    UsageError,
    first_few,
    nearest,
    printable,
)


def test_message_names_every_part_in_order() -> None:
    error = DataError(
        "wrong number of channels", case="liver_3", file=Path("a.nii.gz"), found=2, allowed="1 (CT)", fix="give one channel"
    )
    assert str(error) == (
        "case liver_3: wrong number of channels; file: a.nii.gz; found: 2; allowed: 1 (CT); fix: give one channel"
    )


def test_absent_parts_are_left_out() -> None:
    assert str(UsageError("no plan")) == "no plan"
    assert str(UsageError("no plan", fix="make one")) == "no plan; fix: make one"


def test_control_characters_are_shown_and_not_sent_to_the_terminal() -> None:
    error = PlanError("no plugin", file="a\x1b[2Jb.json", found="two\nlines\x07\r")
    assert str(error) == "no plugin; file: a\\x1b[2Jb.json; found: two\nlines\\x07\\r"
    assert printable("left\tright \u00e4 \\n") == "left\tright \u00e4 \\n"


def test_a_found_zero_is_shown() -> None:
    assert str(UsageError("too few epochs", found=0)) == "too few epochs; found: 0"


def test_the_case_can_be_added_by_whoever_knows_it() -> None:
    error = DataError("no such file")
    error.case = "a"
    assert str(error) == "case a: no such file"


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (AutosegError, 1),
        (UsageError, 2),
        (DataError, 2),
        (GeometryError, 2),
        (LabelError, 2),
        (PlanError, 2),
        (ResourceError, 3),
        (DiskError, 3),
    ],
)
def test_exit_codes(kind: type[AutosegError], code: int) -> None:
    assert kind("x").exit_code == code


def test_every_error_is_an_autoseg_error() -> None:
    kinds = [v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, Exception)]
    assert len(kinds) == 8
    assert all(issubclass(k, AutosegError) for k in kinds)
    assert issubclass(GeometryError, DataError)
    assert issubclass(LabelError, DataError)


def test_nearest() -> None:
    assert nearest("lernin_rate", ["learning_rate", "epochs"]) == " - did you mean 'learning_rate'?"
    assert nearest("zzz", ["learning_rate", "epochs"]) == ""
    assert nearest("x", iter(())) == ""


def test_some() -> None:
    assert first_few(["a"]) == "a"
    assert first_few(["a", "b", "c"]) == "a, b, c"
    assert first_few(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
    assert first_few(["a", "b", "c"], most=1) == "a and 2 more"
