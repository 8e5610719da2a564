from __future__ import annotations

from pathlib import Path

import pytest

from autoseg.errors import DataError, PlanError
from autoseg.system.names import LONGEST_BYTES, check_name, is_plain_name

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
