"""Folds made by hand for nnU-Net."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autoseg.errors import DataError
from autoseg.splits.folds import Folds
from autoseg.splits.nnunet import read_nnunet_splits


def written(folder: Path, content: Any) -> Path:
    path = folder / "splits_final.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_every_case_is_validated_on_once(tmp_path: Path) -> None:
    path = written(tmp_path, [{"train": ["a"], "val": ["c", "b"]}, {"train": ["c", "b"], "val": ["a"]}])
    assert read_nnunet_splits(path, "abc", "hash") == Folds("hash", (("b", "c"), ("a",)))


def test_a_fixed_validation_set(tmp_path: Path) -> None:
    folds = read_nnunet_splits(written(tmp_path, [{"train": ["d", "c"], "val": ["b", "a"]}]), "abcd", "hash")
    assert folds == Folds("hash", (("a", "b"),), ("c", "d"))
    assert folds.names == ("0", "all")
    assert folds.training_cases("0") == ("c", "d")
    assert folds.validation_cases("0") == ("a", "b")
    assert folds.training_cases("all") == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"train": ["a"], "val": ["b"]}], "leave out cases of the dataset; .*found: c; fix: add them"),
        ([{"train": ["a", "c", "liver_1"], "val": ["b"]}], "names? a case that the dataset lacks; .*found: liver_1"),
        (
            [{"train": ["a", "c"], "val": ["b"]}, {"train": ["a"], "val": ["b", "c"]}],
            "validated on twice; .*found: b; allowed: each",
        ),
        ([{"train": ["a"], "val": ["b", "c", "b"]}], "validated on twice; .*found: b"),
        ([{"train": ["a", "b", "c"], "val": ["b"]}], "fold 0 trains on its validation cases; .*found: b"),
        (
            [{"train": ["a", "c"], "val": ["b"]}, {"train": ["b"], "val": ["c"]}],
            "fold 1 leaves out cases; .*found: a; allowed: a fold",
        ),
        ("[{", "splits_final.json is not valid JSON"),
        ([], r"another form; .*found: \[\]; allowed: \[\{\"train\""),
        ({"train": ["a"], "val": ["b"]}, "another form"),
        ([{"train": ["a", "b", "c"], "val": []}], "another form"),
        ([{"train": ["a"]}], "another form"),
        ([{"train": ["a"], "val": "bc"}], "another form"),
        ([["a"], ["b", "c"]], "another form"),
        ([{"train": [1], "val": [2]}], "another form"),
    ],
)
def test_unusable_splits(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_nnunet_splits(written(tmp_path, content), "abc", "hash")


def test_text_of_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "splits_final.json"
    path.write_bytes('[{"train": ["ä"], "val": ["b"]}]'.encode("latin-1"))
    with pytest.raises(DataError, match=r"splits_final\.json is not UTF-8 text; .*found: the byte 0xe4 in line 1; fix: save it"):
        read_nnunet_splits(path, "äb", "hash")
