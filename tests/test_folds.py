"""Cross-validation: nnU-Net's folds, small datasets, datasets that grow and shrink."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import KFold

from autoseg.errors import PlanError, UsageError
from autoseg.folds import Folds, extend_folds, load_folds, make_folds, parse_folds, save_folds

names = st.sets(st.text("abc123_", min_size=1, max_size=6), min_size=1, max_size=30)


def test_three_cases_are_left_out_one_at_a_time() -> None:
    folds = make_folds(["b", "a", "c"], "hash")
    assert folds.validation == (("a",), ("b",), ("c",))
    assert folds.names == ("0", "1", "2", "all")
    assert folds.training_cases("1") == ("a", "c")
    assert folds.validation_cases("1") == ("b",)
    assert folds.remark("1") is None


def test_one_case_has_only_fold_all() -> None:
    folds = make_folds(["a"], "hash")
    assert folds.names == ("all",)
    assert folds.training_cases("all") == folds.validation_cases("all") == ("a",)
    assert folds.remark("all") == "fold 'all' is validated on the cases it learnt from: its scores say nothing about new cases"
    with pytest.raises(UsageError, match=r"no fold '0'.*a single case allows no validation.*allowed: all"):
        folds.training_cases("0")


def test_a_fold_that_does_not_exist() -> None:
    folds = make_folds(map(str, range(10)), "hash")
    for ask in (folds.training_cases, folds.validation_cases):
        with pytest.raises(UsageError, match=r"no fold '5'.*10 cases in 5 folds.*allowed: 0, 1, 2, 3, 4, all"):
            ask("5")


def test_names_of_folds() -> None:
    assert parse_folds("0") == ("0",)
    assert parse_folds("all") == ("all",)
    assert parse_folds("2, 0,2,1") == ("2", "0", "1")
    for text in ("", "0,", ",1", "0,,1"):
        with pytest.raises(UsageError, match=r"a fold without name; found: '.*'; allowed: such as 0, all, or 0,1,2"):
            parse_folds(text)


@pytest.mark.parametrize("n", [5, 7, 20, 208, 260])
def test_folds_equal_those_of_scikit_learn(n: int) -> None:
    ordered = [f"case_{i:03d}" for i in range(n)]
    folds = make_folds(reversed(ordered), "hash")
    oracle = KFold(n_splits=5, shuffle=True, random_state=12345).split(ordered)
    for i, (train, validation) in enumerate(oracle):
        assert folds.training_cases(str(i)) == tuple(ordered[j] for j in train)
        assert folds.validation_cases(str(i)) == tuple(ordered[j] for j in validation)


def test_new_cases_go_to_the_smallest_fold() -> None:
    folds = Folds("old", (("a", "b"), ("c", "d"), ("e",), ("f",), ("g", "h")))
    larger = extend_folds(folds, [*"abcdefgh", "z", "x", "y"], "new")
    assert larger == Folds("new", (("a", "b", "z"), ("c", "d"), ("e", "x"), ("f", "y"), ("g", "h")))


def test_a_small_dataset_that_grows_opens_new_folds() -> None:
    larger = extend_folds(make_folds(["b"], "old"), ["a", "b", "c"], "new")
    assert larger.validation == (("b",), ("a",), ("c",))


def test_an_emptied_fold_keeps_the_numbers_of_the_others() -> None:
    smaller = extend_folds(make_folds("abc", "old"), "ac", "new")
    assert smaller.validation == (("a",), (), ("c",))
    assert smaller.names == ("0", "2", "all")
    with pytest.raises(UsageError, match=r"no fold '1'.*allowed: 0, 2, all"):
        smaller.validation_cases("1")
    assert extend_folds(smaller, "acd", "newer").validation == (("a",), ("d",), ("c",))


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    with pytest.raises(UsageError, match="no folds yet"):
        load_folds(path)
    folds = make_folds("abcdefg", "hash")
    save_folds(folds, path)
    assert load_folds(path) == folds
    path.write_text('{"dataset": "hash", "validation": [["a", "b"], ["b"]]}')
    with pytest.raises(UsageError, match=r"a case is in two folds.*found: b"):
        load_folds(path)
    path.write_text('{"dataset": "hash"}')
    with pytest.raises(PlanError, match="missing key 'validation'"):
        load_folds(path)


@settings(max_examples=25, deadline=None)
@given(names, names)
def test_every_case_once_and_none_moves(before: set[str], after: set[str]) -> None:
    folds = make_folds(before, "old")
    changed = extend_folds(folds, after, "new")
    assert changed.cases == tuple(sorted(after))
    place = {name: i for i, fold in enumerate(changed.validation) for name in fold}
    assert all(place[name] == i for i, fold in enumerate(folds.validation) for name in fold if name in after)
    for fold in changed.names[:-1]:
        assert set(changed.training_cases(fold)) | set(changed.validation_cases(fold)) == after
        assert not set(changed.training_cases(fold)) & set(changed.validation_cases(fold))
        assert changed.training_cases(fold)


@settings(max_examples=25, deadline=None)
@given(names)
def test_folds_are_even_and_unchanged_data_leave_them_alone(cases: set[str]) -> None:
    folds = make_folds(cases, "hash")
    sizes = [len(fold) for fold in folds.validation]
    assert max(sizes) - min(sizes) <= 1
    assert extend_folds(folds, cases, "hash") == folds
