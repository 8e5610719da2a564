from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from autoseg.errors import LabelError, PlanError
from autoseg.system.records import from_json, json_schema, read_record, to_json


@dataclass(frozen=True)
class Leaf:
    name: str
    weight: float | None = None


@dataclass(frozen=True)
class Tree:
    n: int
    ok: bool
    spacing: tuple[float, float, float]
    rows: tuple[tuple[int, ...], ...]
    leaves: tuple[Leaf, ...]
    by_name: dict[str, Leaf]
    words: list[str] = field(default_factory=list)


TREE = Tree(3, True, (1.0, 0.5, 0.25), ((1, 2), (3,)), (Leaf("a", 2.0), Leaf("ü")), {"x": Leaf("b")}, ["one"])
TEXT = """\
{
  "n": 3,
  "ok": true,
  "spacing": [1.0, 0.5, 0.25],
  "rows": [[1, 2], [3]],
  "leaves": [
    {
      "name": "a",
      "weight": 2.0
    },
    {
      "name": "ü",
      "weight": null
    }
  ],
  "by_name": {
    "x": {
      "name": "b",
      "weight": null
    }
  },
  "words": ["one"]
}
"""


def changed(**values: object) -> str:
    return json.dumps({**json.loads(TEXT), **values})


def test_text_by_hand() -> None:
    assert to_json(TREE) == TEXT
    assert from_json(Tree, TEXT, "tree.json") == TREE


def test_numpy_numbers_are_written_as_numbers() -> None:
    assert to_json({"a": np.float32(0.5), "b": np.int64(3), 1: np.bool_(True)}) == '{\n  "a": 0.5,\n  "b": 3,\n  "1": true\n}\n'


def test_empty_and_long_values() -> None:
    assert to_json({}) == "{}\n"
    assert to_json({"a": (), "b": {}}) == '{\n  "a": [],\n  "b": {}\n}\n'
    long = [[100000 + i] * 5 for i in range(5)]
    text = to_json({"rows": long})
    assert text.count("\n") == 9  # a row a line where all together would be too wide
    assert json.loads(text) == {"rows": long}


def test_defaults_may_be_left_out() -> None:
    assert from_json(Leaf, '{"name": "a"}', "x") == Leaf("a")


def test_a_whole_number_will_do_for_a_float_only() -> None:
    leaf = from_json(Leaf, '{"name": "a", "weight": 2}', "x")
    assert isinstance(leaf.weight, float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"n": 3,', r"not valid JSON; file: t\.json; found: Expecting.*; fix"),
        (changed(spacin=1), r"unknown key 'spacin' - did you mean 'spacing'\?; file: t\.json; allowed: n, ok, spacing"),
        (changed(by_name={"x": {"nam": "b"}}), r"unknown key 'by_name\.x\.nam' - did you mean 'name'\?"),
        (changed(leaves=[{"weight": 1}]), r"missing key 'leaves\[0\]\.name'; file: t\.json; fix: add it"),
        ("{}", r"missing key 'n'"),
        ("[]", r"'document' has the wrong type; file: t\.json; found: \[\]; allowed: an object"),
        (changed(n=2.5), r"'n' has the wrong type.*found: 2\.5; allowed: int"),
        (changed(n=True), r"'n' has the wrong type.*found: true; allowed: int"),
        (changed(n="3"), r"'n' has the wrong type.*allowed: int"),
        (changed(ok=1), r"'ok' has the wrong type.*allowed: bool"),
        (changed(spacing=[1, 2]), r"'spacing' has the wrong type.*allowed: 3 entries"),
        (changed(spacing=[1, 2, "3"]), r"'spacing\[2\]' has the wrong type.*allowed: a number"),
        (changed(spacing=[1, 2, True]), r"'spacing\[2\]' has the wrong type.*allowed: a number"),
        (changed(rows=[1]), r"'rows\[0\]' has the wrong type.*allowed: a list"),
        (changed(by_name=[]), r"'by_name' has the wrong type.*allowed: an object"),
        (changed(words=["a", None]), r"'words\[1\]' has the wrong type.*found: null; allowed: str"),
    ],
)
def test_malformed_documents(text: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        from_json(Tree, text, "t.json")


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
leaves = st.builds(Leaf, texts, st.none() | st.floats(allow_nan=False, allow_infinity=False))


@settings(max_examples=25, deadline=None)
@given(
    st.builds(
        Tree,
        st.integers(-(2**62), 2**62),
        st.booleans(),
        st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 3),
        st.lists(st.lists(st.integers(-(2**62), 2**62), max_size=9).map(tuple), max_size=9).map(tuple),
        st.lists(leaves, max_size=3).map(tuple),
        st.dictionaries(texts, leaves, max_size=3),
        st.lists(texts, max_size=3),
    )
)
def test_round_trip(tree: Tree) -> None:
    text = to_json(tree)
    assert from_json(Tree, text, "x") == tree
    assert text.endswith("}\n")
    assert to_json(from_json(Tree, text, "x")) == text


@dataclass(frozen=True)
class Choice:
    """Words.

    A second paragraph.
    """

    kind: Literal["alpha", "beta"]
    pair: tuple[int, str] | None


def test_words_are_checked() -> None:
    assert from_json(Choice, '{"kind": "alpha", "pair": null}', "x") == Choice("alpha", None)
    with pytest.raises(PlanError, match=r"'kind' is unknown - did you mean 'beta'\?; file: x; found: bet; allowed: alpha, beta"):
        from_json(Choice, '{"kind": "bet", "pair": null}', "x")
    with pytest.raises(PlanError, match=r"'kind' is unknown; file: x; found: 3; allowed: alpha, beta"):
        from_json(Choice, '{"kind": 3, "pair": null}', "x")


def test_schema_by_hand() -> None:
    schema = json_schema(Choice)
    assert schema["$ref"] == "#/$defs/Choice"
    assert schema["$defs"] == {
        "Choice": {
            "type": "object",
            "description": "Words.\n\nA second paragraph.",
            "properties": {
                "kind": {"enum": ["alpha", "beta"]},
                "pair": {
                    "anyOf": [
                        {
                            "type": "array",
                            "prefixItems": [{"type": "integer"}, {"type": "string"}],
                            "items": False,
                            "minItems": 2,
                        },
                        {"type": "null"},
                    ]
                },
            },
            "required": ["kind", "pair"],
            "additionalProperties": False,
        }
    }


@pytest.mark.parametrize(
    ("changes", "ok"),
    [
        ({}, True),
        ({"spacing": [1, 2, 3]}, True),
        ({"spacing": [1, 2]}, False),
        ({"spacing": [1, 2, 3, 4]}, False),
        ({"n": 1.5}, False),
        ({"leaves": [{"name": "a", "weight": "b"}]}, False),
        ({"nn": 3}, False),
    ],
)
def test_schema_and_from_json_accept_the_same_documents(changes: dict[str, object], ok: bool) -> None:
    validator = Draft202012Validator(json_schema(Tree))
    Draft202012Validator.check_schema(json_schema(Tree))
    text = changed(**changes)
    assert validator.is_valid(json.loads(text)) == ok
    if ok:
        from_json(Tree, text, "tree.json")
    else:
        with pytest.raises(PlanError, match=r"wrong type|unknown key"):
            from_json(Tree, text, "tree.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply; file: tree.json; found: maximum recursion depth"),
        (f'{{"n": {"[" * 100_000}', "nested too deeply; file: tree.json; found: maximum recursion depth"),
        ("9" * 5000, "the file has a number that is too long; file: tree.json; found: Exceeds the limit"),
    ],
)
def test_documents_beyond_what_json_is_read_with(text: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        from_json(Tree, text, "tree.json")


def test_wrong_values_are_shown_in_part() -> None:
    with pytest.raises(PlanError, match=r"'n' has the wrong type; file: tree\.json; found: \[1, 1, .*…; allowed: int"):
        from_json(Tree, changed(n=[1] * 1000), "tree.json")
    with pytest.raises(PlanError, match=r"weight' cannot be used; file: tree\.json; found: 9+…; allowed: a finite number"):
        from_json(Tree, changed(leaves=[{"name": "a", "weight": 10**400 - 1}]), "tree.json")


def test_file_that_is_no_utf_8(tmp_path: Path) -> None:
    (tmp_path / "tree.json").write_bytes('{"name": "Köln"}'.encode("latin-1"))
    with pytest.raises(
        PlanError, match=r"not UTF-8 text; file: .*tree\.json; found: the byte 0xf6 in line 1; fix: save it as UTF-8; undo"
    ):
        read_record(Tree, tmp_path / "tree.json")
    (tmp_path / "tree.json").write_text(changed(), encoding="utf-8")
    assert read_record(Tree, tmp_path / "tree.json") == from_json(Tree, changed(), "tree.json")


@dataclass(frozen=True)
class Ordered:
    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise LabelError("low is not below high", found=self.low, allowed=f"below {self.high}")


def test_a_record_that_checks_itself_is_told_its_place() -> None:
    with pytest.raises(PlanError, match=r"^low is not below high; file: a\.json; found: 3; allowed: below 2; fix: mend it$"):
        from_json(Ordered, '{"low": 3, "high": 2}', "a.json", fix="mend it")
    with pytest.raises(PlanError, match=r"^'x': low is not below high; file: a\.json"):
        from_json(dict[str, Ordered], '{"x": {"low": 3, "high": 2}}', "a.json")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "9" * 400])
def test_numbers_must_be_finite(number: str) -> None:
    with pytest.raises(
        PlanError, match=r"^'spacing\[1\]' cannot be used; .*; allowed: a finite number; fix: undo the last edit, or"
    ):
        from_json(Tree, changed(spacing=[1, 2, 3]).replace("[1, 2, 3]", f"[1, {number}, 3]"), "t.json")


def test_whole_numbers_have_64_bits() -> None:
    assert from_json(Tree, changed(n=-(2**63) + 1), "t.json").n == -(2**63) + 1
    with pytest.raises(PlanError, match=r"^'n' cannot be used; .*found: 9223372036854775808; allowed: a number of 64 bits"):
        from_json(Tree, changed(n=2**63), "t.json")
