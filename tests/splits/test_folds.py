"""Cross-validation: nnU-Net's folds, small datasets, datasets that grow and shrink."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import KFold

from autoseg.errors import PlanError, UsageError
from autoseg.splits.folds import N_FOLDS, Folds, extend_folds, leak_notes, load_folds, make_folds, parse_folds, save_folds

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
    with pytest.raises(
        UsageError, match=r"no fold '0'.*a single case allows no validation; 1 case in 0 folds; allowed: all; fix: -f all"
    ):
        folds.training_cases("0")


def test_unknown_fold() -> None:
    folds = make_folds(map(str, range(10)), "hash")
    for ask in (folds.training_cases, folds.validation_cases):
        with pytest.raises(UsageError, match=r"no fold '5'.*10 cases in 5 folds.*allowed: 0, 1, 2, 3, 4, all; fix: -f 0"):
            ask("5")


def test_names_of_folds() -> None:
    assert parse_folds("0") == ("0",)
    assert parse_folds("all") == ("all",)
    assert parse_folds("2, 0,2,1") == ("2", "0", "1")
    assert parse_folds("0..4") == ("0", "1", "2", "3", "4")
    assert parse_folds("3, 1..3") == ("3", "1", "2")
    assert parse_folds("4..0") == ("4..0",)
    for text in ("", "0,", ",1", "0,,1"):
        with pytest.raises(UsageError, match=r"a fold without name; found: '.*'; allowed: such as 0, all, 0\.\.4 or 0,1,2"):
            parse_folds(text)


@pytest.mark.parametrize("name", ["..", "../0", "/0", "0\\1", "0\n1", "0\0", "a" * 256])
def test_names_of_folds_must_be_file_names(name: str) -> None:
    with pytest.raises(UsageError, match=r"a fold needs a name that can be a file's; found: .*; allowed: 1 to 220 bytes"):
        parse_folds(f"0,{name}")


@pytest.mark.parametrize("text", ['"validation": [["../a"]]', '"validation": [["a"]], "vanished": {"../a": "0"}'])
def test_names_of_cases_must_be_file_names(tmp_path: Path, text: str) -> None:
    path = tmp_path / "splits.json"
    path.write_text(f'{{"dataset": "hash", {text}}}')
    with pytest.raises(PlanError, match=r"a case needs a name that can be a file's; file: .*splits\.json; found: '\.\./a'"):
        load_folds(path)


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


def test_empty_folds_keep_their_number() -> None:
    smaller = extend_folds(make_folds("abc", "old"), "ac", "new")
    assert smaller.validation == (("a",), (), ("c",))
    assert smaller.names == ("0", "2", "all")
    with pytest.raises(UsageError, match=r"no fold '1'.*allowed: 0, 2, all"):
        smaller.validation_cases("1")
    assert extend_folds(smaller, "acd", "newer").validation == (("a",), ("d",), ("c",))


def test_a_case_that_returns_goes_back_to_its_fold(tmp_path: Path) -> None:
    """Fold 0 has learnt from it, and must not be judged by it, however small it is."""
    folds = make_folds("abcdefghij", "old")
    fold, gone = next((i, fold[0]) for i, fold in enumerate(folds.validation) if i > 0)
    without = extend_folds(folds, set(folds.cases) - {gone}, "new")
    smaller = Folds("new", (folds.validation[0][:1], *without.validation[1:]), vanished=without.vanished)
    save_folds(smaller, tmp_path / "splits.json")
    assert load_folds(tmp_path / "splits.json").vanished == {gone: str(fold)}
    still = extend_folds(load_folds(tmp_path / "splits.json"), [*smaller.cases, "new"], "newer")
    assert (still.validation[0], still.vanished) == ((*smaller.validation[0], "new"), {gone: str(fold)})
    again = extend_folds(smaller, [*smaller.cases, gone], "newer")
    assert (again.validation[fold], again.vanished) == (folds.validation[fold], {})


def test_patients_are_remembered_after_their_cases_left() -> None:
    folds = Folds("old", (("a",), ("b1", "b2", "c"), ("d",), ("e",), ("f",)), (), {"b1": "b", "b2": "b"})
    without = extend_folds(folds, "acdef", "new")
    assert (without.vanished, without.patients) == ({"b1": "1", "b2": "1"}, {"b1": "b", "b2": "b"})
    assert without.leaks == {}
    later = extend_folds(without, ["b2", "b3", *"acdef"], "newer", {"b2": "b", "b3": "b"})
    assert later.validation[1] == ("b2", "b3", "c")
    assert (later.vanished, later.patients) == ({"b1": "1"}, {"b1": "b", "b2": "b", "b3": "b"})


def test_a_case_returns_after_its_fold_was_deleted() -> None:
    folds = Folds("old", (("a",), ("b", "c")), ("x",), vanished={"d": "4", "c": "0", "y": "training only"})
    later = extend_folds(folds, "abcdxy", "new")
    assert later == Folds("new", (("a",), ("b", "c")), ("d", "x", "y"))


def test_splits_json(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    with pytest.raises(UsageError, match="no folds yet"):
        load_folds(path)
    folds = make_folds("abcdefg", "hash")
    save_folds(folds, path)
    assert load_folds(path) == folds
    path.write_text('{"dataset": "hash", "validation": [["a", "b"], ["b"]]}')
    with pytest.raises(UsageError, match=r"a case is in two folds.*found: b"):
        load_folds(path)
    path.write_text('{"dataset": "hash", "validation": [["a"]], "training_only": ["b", "a"]}')
    with pytest.raises(UsageError, match=r"a case is in two folds.*found: a"):
        load_folds(path)
    path.write_text('{"dataset": "hash"}')
    with pytest.raises(PlanError, match="missing key 'validation'"):
        load_folds(path)


def test_splits_json_with_and_without_patients(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    folds = make_folds(["a1", "a2", "b"], "hash", {"a1": "a", "a2": "a", "b": "b", "gone": "x"})
    save_folds(folds, path)
    assert '"patients": {\n    "a1": "a",\n    "a2": "a"\n  },\n' in path.read_text()
    assert load_folds(path) == folds
    path.write_text('{"dataset": "hash", "validation": [["a1"], ["a2", "b"]]}')
    assert load_folds(path) == Folds("hash", (("a1",), ("a2", "b")))


def test_large_patients_first_each_to_the_smallest_fold() -> None:
    sizes = {"p": 4, "q": 3, "r": 2, "s": 2, "t": 1, "u": 1, "v": 1}
    patients = {f"{p}{i}": p for p, n in sizes.items() for i in range(n)}
    folds = make_folds(patients, "hash", patients)
    owners = [[patients[name] for name in fold] for fold in folds.validation]
    assert owners[:2] == [["p"] * 4, ["q"] * 3]
    assert {o[0] for o in owners[2:4]} == {"r", "s"}
    assert sorted(map(len, owners)) == [2, 2, 3, 3, 4]
    assert folds.patients == patients


def test_fewer_than_five_patients_are_left_out_one_at_a_time() -> None:
    patients = {"a1": "a", "a2": "a", "b1": "b", "b2": "b"}
    folds = make_folds([*patients, "c"], "hash", patients)
    assert folds.validation == (("a1", "a2"), ("b1", "b2"), ("c",))
    assert folds.names == ("0", "1", "2", "all")
    alone = make_folds(["a1", "a2"], "hash", patients)
    assert alone.names == ("all",)
    with pytest.raises(UsageError, match=r"no fold '0'.*a single patient allows no validation.*2 cases in 0 folds"):
        alone.validation_cases("0")


@pytest.mark.parametrize("n", [5, 23])
def test_patients_with_one_case_each_change_nothing(n: int) -> None:
    cases = [f"case_{i:03d}" for i in range(n)]
    patients = {case: f"patient {n - i}" for i, case in enumerate(cases)}
    assert make_folds(cases, "hash", patients).validation == make_folds(cases, "hash").validation


def test_new_cases_join_their_patient_or_the_smallest_fold() -> None:
    folds = Folds("old", (("a1", "b"), ("c", "d", "e"), ("f",), ("g",), ("h", "i")), (), {"a1": "a"})
    patients = {"a1": "a", "a2": "a", "a3": "a", "x1": "x", "x2": "x"}
    larger = extend_folds(folds, [*folds.cases, "a2", "a3", "x1", "x2", "w"], "new", patients)
    assert larger.validation == (("a1", "a2", "a3", "b"), ("c", "d", "e"), ("f", "x1", "x2"), ("g", "w"), ("h", "i"))
    assert larger.patients == patients


def test_a_case_replaced_by_another_of_its_patient() -> None:
    folds = Folds("old", (("a",), ("b1", "c"), ("d",), ("e",), ("f",)), (), {"b1": "b"})
    assert extend_folds(folds, ["a", "b2", "c", "d", "e", "f"], "new", {"b2": "b"}).validation[1] == ("b2", "c")


def test_new_patients_open_folds_unless_folds_were_made_by_hand() -> None:
    few = make_folds(["a1", "a2", "b"], "old", {"a1": "a", "a2": "a"})
    larger = extend_folds(few, ["a1", "a2", "b", "c"], "new", {"a1": "a", "a2": "a"})
    assert larger.validation == (("a1", "a2"), ("b",), ("c",))
    by_hand = Folds("old", (("a", "b"), ("c", "d"), ("e",)))
    assert extend_folds(by_hand, "abcdefgh", "new").validation == (("a", "b", "g"), ("c", "d", "h"), ("e", "f"))


def test_new_cases_do_not_change_a_fixed_validation_set() -> None:
    folds = Folds("old", (("a", "b1"),), ("c", "d"))
    larger = extend_folds(folds, ["a", "b1", "b2", "c", "x"], "new", {"b1": "b", "b2": "b"})
    assert larger == Folds("new", (("a", "b1", "b2"),), ("c", "x"), {"b1": "b", "b2": "b"}, {"d": "training only"})
    assert larger.training_cases("0") == ("c", "x")


def test_late_patients_are_noted_and_not_moved() -> None:
    before = Folds("old", (("a1",), ("a2", "b"), ("a3", "c")), ("b2",))
    assert leak_notes(before) == []
    patients = {"a1": "a", "a2": "a", "a3": "a", "b2": "b", "a4": "a", "a5": "a"}
    after = extend_folds(before, before.cases, "new", patients)
    assert (after.validation, after.training_only) == (before.validation, before.training_only)
    assert after.leaks == {
        "a": {"0": ("a1",), "1": ("a2",), "2": ("a3",)},
        "b": {"1": ("b",), "training only": ("b2",)},
    }
    first, second = leak_notes(after)
    assert first.startswith("patient a is in several folds: fold 0: a1; fold 1: a2; fold 2: a3. Scores of models trained so")
    assert first.endswith("move the cases into one fold in splits.json, or delete it, and train anew")
    assert second.startswith("patient b is in several folds: fold 1: b; training only: b2. ")
    assert after.remark("0") == "fold 0 is validated on a patient it also learns from (a): its scores are too good"
    assert after.remark("1") == "fold 1 is validated on 2 patients it also learns from (a, b): its scores are too good"
    assert after.remark("all") == before.remark("all")
    most = Folds("old", (("a1",), ("a2", "a3")), (), {"a1": "a", "a2": "a", "a3": "a"})
    assert extend_folds(most, [*most.cases, "a4", "a5"], "new", patients).validation == (("a1",), ("a2", "a3", "a4", "a5"))


@settings(max_examples=25, deadline=None)
@given(names, names)
def test_every_case_is_in_one_fold_and_none_moves(before: set[str], after: set[str]) -> None:
    folds = make_folds(before, "old")
    changed = extend_folds(folds, after, "new")
    assert changed.cases == tuple(sorted(after))
    place = {name: i for i, fold in enumerate(changed.validation) for name in fold}
    assert all(place[name] == i for i, fold in enumerate(folds.validation) for name in fold if name in after)
    again = extend_folds(changed, before | after, "newest")
    assert [set(fold) for fold in folds.validation] == [set(fold) & before for fold in again.validation][: len(folds.validation)]
    assert not again.vanished
    for fold in changed.names[:-1]:
        assert set(changed.training_cases(fold)) | set(changed.validation_cases(fold)) == after
        assert not set(changed.training_cases(fold)) & set(changed.validation_cases(fold))
        assert changed.training_cases(fold)


@settings(max_examples=25, deadline=None)
@given(names)
def test_folds_are_even_and_stable(cases: set[str]) -> None:
    folds = make_folds(cases, "hash")
    sizes = [len(fold) for fold in folds.validation]
    assert max(sizes) - min(sizes) <= 1
    assert extend_folds(folds, cases, "hash") == folds


owners = st.dictionaries(
    st.text("abc", min_size=1, max_size=3), st.integers(0, 12).map("patient {}".format), min_size=1, max_size=40
)


def places(folds: Folds) -> dict[str, int]:
    return {name: i for i, fold in enumerate(folds.validation) for name in fold}


def owners_of(folds: Folds) -> list[set[str]]:
    return [{folds.patients.get(name, name) for name in fold} for fold in folds.validation]


@settings(max_examples=50, deadline=None)
@given(owners)
def test_no_patient_is_in_two_folds_and_folds_are_even(patients: dict[str, str]) -> None:
    folds = make_folds(patients, "hash", patients)
    assert folds == make_folds(sorted(patients, reverse=True), "hash", dict(sorted(patients.items())))
    assert folds.cases == tuple(sorted(patients))
    assert folds.leaks == {}
    assert sum(map(len, owners_of(folds))) == len(set(patients.values()))
    assert len(folds.validation) == min(N_FOLDS, len(set(patients.values())))
    sizes = [len(fold) for fold in folds.validation]
    assert max(sizes) - min(sizes) <= max(map(list(patients.values()).count, patients.values()))
    for fold in folds.names[:-1]:
        learnt, judged = ({patients[n] for n in ask(fold)} for ask in (folds.training_cases, folds.validation_cases))
        assert learnt
        assert judged
        assert not learnt & judged


@settings(max_examples=50, deadline=None)
@given(owners, owners)
def test_extension_moves_no_case_and_splits_no_patient(before: dict[str, str], new: dict[str, str]) -> None:
    """As long as what is known of a case stays the same."""
    patients = {**new, **before}
    folds = make_folds(before, "old", before)
    changed = extend_folds(folds, new, "new", patients)
    assert changed.cases == tuple(sorted(new))
    was, now = places(folds), places(changed)
    assert all(now[name] == was[name] for name in now if name in was)
    assert changed.leaks == {}
    again = extend_folds(changed, patients, "newest", patients)
    assert again.leaks == {}
    assert {name: places(again)[name] for name in before} == was
    assert extend_folds(changed, new, "new", patients) == changed


@settings(max_examples=50, deadline=None)
@given(owners, owners)
def test_extension_moves_no_case_when_patients_change(before: dict[str, str], after: dict[str, str]) -> None:
    folds = make_folds(before, "old", before)
    changed = extend_folds(folds, {**before, **after}, "new", after)
    was, now = places(folds), places(changed)
    assert all(now[name] == was[name] for name in was)
    assert sorted(now) == sorted({**before, **after})
    parted = {p for p in owners_of(changed)[0] if any(p in others for others in owners_of(changed)[1:])}
    assert parted <= set(changed.leaks)
    assert len(leak_notes(changed)) == len(changed.leaks)
