from __future__ import annotations

from pathlib import Path

import pytest

from autoseg.errors import DataError, PlanError, UsageError
from autoseg.system.names import LONGEST_BYTES, check_name, check_path, check_title, is_plain_name

WRONG = {
    "empty": "",
    "here": ".",
    "above": "..",
    "hidden": ".a",
    "below": "a/b",
    "below on Windows": "a\\b",
    "absolute": "/tmp/a",
    "relative": "../../a",
    "line": "a\nb",
    "NUL": "a\0b",
    "escape": "\x1b[2Ja",
    "separator": "a\u2028b",
    "no text": "a\udcff",
    "long": "a" * 256,
    "long in bytes": "ä" * 128,
}


@pytest.mark.parametrize("name", ["a", "3d_fullres", "a.b", "a b", "Übung, 1", "-", "a..b", "case=1", "a" * LONGEST_BYTES])
def test_plain_names(name: str, tmp_path: Path) -> None:
    assert is_plain_name(name)
    check_name(name, "a case", DataError)
    (tmp_path / f".4194304-{name}_probabilities.nii.gz").write_text("x")
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", WRONG.values(), ids=WRONG)
def test_a_name_that_is_no_files_is_refused(name: str) -> None:
    assert not is_plain_name(name)
    with pytest.raises(PlanError, match=r"^a fold needs a name that can be a file's; file: plan\.json; found: .*; allowed: 1 to"):
        check_name(name, "a fold", PlanError, "plan.json")


def test_message_shows_shortened_name_and_position() -> None:
    with pytest.raises(DataError, match=r"found: 'a\\nb' in line 3; allowed: ") as caught:
        check_name("a\nb", "a case", DataError, "cases.csv", "in line 3")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError) as caught:
        check_name("a" * 10_000, "a case", DataError)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\x1b[2J", "a" * 501, "a\u2028b"])
def test_a_name_that_cannot_be_read_is_refused(name: str) -> None:
    with pytest.raises(
        DataError, match=r"^a structure needs a name that can be read; file: dataset\.json; found: '.*; allowed: 1"
    ):
        check_title(name, "a structure", DataError, "dataset.json")


@pytest.mark.parametrize("name", ["a", "left/right", ".a", " a ", "肝臓", "a" * 500])
def test_names_that_are_no_files_may_hold_more(name: str) -> None:
    check_title(name, "a structure", DataError)


@pytest.mark.parametrize("path", ["a" * 256, "a/" + "ä" * 128, "a/" * 2500, "a\0b", "a\x1bb", "a\nb", "a\ud800"])
def test_a_path_that_can_be_none_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match=r"^--root is no path; found: '.*; allowed: up to 255 bytes between two slashes"):
        check_path(path, "--root", UsageError)


@pytest.mark.parametrize("path", ["", "a/../b", "/a b/ä", "C:\\a\\b", "a" * 255, "a/" * 2000, "a\udcffb"])
def test_paths_that_files_may_have(path: str) -> None:
    check_path(path, "--root", UsageError)
