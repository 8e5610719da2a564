"""Documents from bytes to text and JSON values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoseg.errors import DataError, PlanError
from autoseg.system import documents
from autoseg.system.documents import parse_json, read_json, read_text, shown

TEXT = '{"name": "Köln"}\n'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_utf_8_is_read_with_and_without_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.json").write_text(TEXT, encoding=encoding, newline="\r\n")
    assert read_text(tmp_path / "a.json") == TEXT
    assert read_json(tmp_path / "a.json") == {"name": "Köln"}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (TEXT.encode("latin-1"), r"found: the byte 0xf6 in line 1"),
        (("\n\n" + TEXT).encode("cp850"), r"found: the byte 0x94 in line 3"),
        (TEXT.encode("utf-16"), r"found: UTF-16"),
        ("{}".encode("utf-16-le"), r"found: a character NUL in line 1, as in UTF-16 or a damaged file"),
        (b"\x1f\x8b\x08\x00", r"found: the byte 0x8b in line 1"),
        (b"[\n1,\n\x00\x00\x00]", r"found: a character NUL in line 3, as in UTF-16 or a damaged file"),
    ],
)
def test_other_encodings_are_named_with_the_way_out(tmp_path: Path, content: bytes, found: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(PlanError, match=rf"^the list is not UTF-8 text; file: .*a\.json; {found}; fix: save it as UTF-8$"):
        read_text(tmp_path / "a.json", PlanError, what="the list")
    with pytest.raises(DataError, match=r"^the file is not UTF-8 text"):
        read_json(tmp_path / "a.json")


def test_what_is_no_file_or_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"^the file cannot be read; file: .*a\.json; found: No such file"):
        read_text(tmp_path / "a.json")
    with pytest.raises(DataError, match=r"^the file cannot be read; .*found: a folder or a device; allowed: a file"):
        read_text(tmp_path)
    with pytest.raises(DataError, match=r"^the file cannot be read; .*found: File name too long"):
        read_text(tmp_path / ("a" * 300))
    (tmp_path / "a.json").write_text(TEXT)
    monkeypatch.setattr(documents, "LARGEST_BYTES", 10)
    with pytest.raises(DataError, match=r"^the file is too large; .*found: 18 bytes; allowed: 10"):
        read_text(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1} // one', r"not valid JSON; .*line 1, column 10: '// one'; fix: delete the comment"),
        ('{"a": /* one */ 1}', r"fix: delete the comment"),
        ('{\n# one\n"a": 1}', r"line 2, column 1: .*fix: delete the comment"),
        ("{'a': 1}", r'fix: put names and texts between double quotes "…"'),
        ('{"a": True}', r"fix: write true, false and null"),
        ('{"a": 1,}', r"fix: delete the comma before the closing bracket"),
        ("[1, 2, ]", r"fix: delete the comma before the closing bracket"),
        ('{"a": 1', r"fix: the text ends too early: copy or create the file again"),
        ('{"a": "b', r"Unterminated string.*fix: create it anew"),
        ("version https://git-lfs.github.com/spec/v1\n", r"fix: this stands in for a file that Git LFS has: git lfs pull"),
        (" \n", r"fix: the file is empty: copy or create it again"),
        ("[1}", r"Expecting ',' delimiter in line 1, column 3: '}'; fix: create it anew"),
        ('["a\x1b[2J"]', r"Invalid control character.*'\\x1b\[2J\"\]'"),
        ("[" * 100_000, r"nested too deeply; file: a\.json; found: maximum recursion depth .*; allowed: 100 levels"),
        ('{"a":' * 101 + "1" + "}" * 101, r"nested too deeply; .*found: brackets in brackets; allowed: 100 levels"),
        ("9" * 5000, r"has a number that is too long; .*found: Exceeds the limit \(4300 digits\)"),
        (
            '{"a": 1, "b": 2, "a": 3}',
            r'the plan has a duplicate key; file: a\.json; found: "a"; fix: give each a name of its own',
        ),
        ('{"x": {"a": 1, "a": 1}}', r'duplicate key; .*found: "a"'),
        (r'{"\ud800": 1}', r'a text in the plan holds NUL or half a character; .*found: "\\ud800"'),
        (r'[["a\u0000b"]]', r"holds NUL or half a character; .*fix: write the character itself"),
    ],
)
def test_what_is_no_json_is_said_with_the_way_out(text: str, message: str) -> None:
    with pytest.raises(PlanError, match=message) as caught:
        parse_json(text, "a.json", PlanError, what="the plan", fix="create it anew")
    assert len(str(caught.value)) < 500


def test_what_python_writes_is_read() -> None:
    values = parse_json('[NaN, Infinity, -Infinity, 1e400, "\\ud83d\\ude00", "\\\\u0000", "[[["]', "a.json")
    assert [str(v) for v in values] == ["nan", "inf", "-inf", "inf", "😀", "\\u0000", "[[["]
    assert parse_json("[" * 100 + "]" * 100, "a.json") is not None
    assert len(parse_json(json.dumps([[], {}] * 1000), "a.json")) == 2000  # side by side is not deep


def test_wrong_values_are_shown_in_part() -> None:
    assert shown("ä\n") == '"\\u00e4\\n"'
    assert shown([1] * 1000) == "[" + "1, " * 66 + "1…"


whole = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(st.recursive(st.none() | st.booleans() | st.integers() | whole, lambda s: st.lists(s) | st.dictionaries(whole, s)))
def test_json_is_read_as_python_reads_it(value: object) -> None:
    assert parse_json(json.dumps(value), "a.json") == value
    assert parse_json(json.dumps(value, ensure_ascii=False), "a.json") == value
