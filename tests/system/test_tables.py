"""Tables as text."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoseg.errors import DataError
from autoseg.system.tables import aligned, csv_text, parse_csv, read_csv, rounded


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separator_is_taken_from_the_first_line(separator: str) -> None:
    text = 'Case , name, note\na,"1\n2",\n\n, ,x'.replace(",", separator)
    rows = [(3, ["a", "1\n2", ""]), (4, []), (5, ["", " ", "x"])]
    assert parse_csv(text, Path("a.csv")) == (["case", "name", "note"], rows)


def test_separator_by_name() -> None:
    assert parse_csv("a,b|c\n1|2,3", Path("a.csv"), separator="|") == (["a,b", "c"], [(2, ["1", "2,3"])])
    assert parse_csv("", Path("a.csv")) == ([], [])


def test_tables_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_text("case;ä\n1;ö\n", encoding=encoding)
        assert read_csv(path) == (["case", "ä"], [(2, ["1", "ö"])])
    path.write_text("ä", encoding="latin-1")
    with pytest.raises(DataError, match=r"the list is not UTF-8 text; file: .*cases\.csv; found: .*fix: save it as CSV UTF-8"):
        read_csv(path, "the list")
    path.write_text(f"case\n{'a' * 200_000}\n")
    with pytest.raises(DataError, match=r"the list cannot be read; file: .*cases\.csv; found: field larger than field limit"):
        read_csv(path, "the list")
    path.write_text('case,note\na,"never closed\nb,\n')  # the rest would be one cell
    with pytest.raises(
        DataError,
        match=r"the list cannot be read; .*found: unexpected end of data from line 2 on; fix: close each quotation mark",
    ):
        read_csv(path, "the list")
    with pytest.raises(DataError, match=r"the table cannot be read; file: a\.csv; found: "):
        parse_csv("a\n1", Path("a.csv"), separator="||")


def test_commas_and_quotes() -> None:
    assert csv_text([("a", "b"), (1, None), ("x,y", 0.5)]) == 'a,b\n1,\n"x,y",0.5\n'
    assert csv_text([]) == ""


def test_only_fractions_are_rounded() -> None:
    assert rounded(("a", 3, None, 0.12345678, 2.0)) == ["a", 3, None, 0.123457, 2.0]


def test_names_to_the_left_numbers_to_the_right() -> None:
    assert aligned([("name", "n"), ("a", "12"), ("longer", "1")]) == ["name     n", "----------", "a       12", "longer   1"]
