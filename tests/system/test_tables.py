"""Tables as text."""

from __future__ import annotations

from autoseg.system.tables import aligned, csv_text, rounded


def test_commas_and_quotes() -> None:
    assert csv_text([("a", "b"), (1, None), ("x,y", 0.5)]) == 'a,b\n1,\n"x,y",0.5\n'
    assert csv_text([]) == ""


def test_only_fractions_are_rounded() -> None:
    assert rounded(("a", 3, None, 0.12345678, 2.0)) == ["a", 3, None, 0.123457, 2.0]


def test_names_to_the_left_numbers_to_the_right() -> None:
    assert aligned([("name", "n"), ("a", "12"), ("longer", "1")]) == ["name     n", "----------", "a       12", "longer   1"]
