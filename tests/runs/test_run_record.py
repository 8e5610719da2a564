"""Runs: reading run.json, and which folders make up a model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from autoseg.errors import PlanError, UsageError
from autoseg.postprocessing.component_rules import Rule
from autoseg.runs.record import RunRecord, common_rules, common_thresholds, load_run, model_folds, record_table, weights_file
from autoseg.system.files import write_text
from autoseg.system.records import to_json

RULES = (Rule("largest_foreground"), Rule("largest_per_structure", "liver"))
RECORD = RunRecord(
    "Task", "3d_fullres", "0", True, 60.5, 1000, "4 cases not trained on", 0.9, {"liver": 0.9, "cyst": None}, RULES
)


def write_run(folder: Path, **changes: object) -> Path:
    write_text(folder / "run.json", to_json(replace(RECORD, **changes)))  # type: ignore[arg-type]
    return folder


def test_record_round_trip(tmp_path: Path) -> None:
    assert load_run(write_run(tmp_path / "fold_0")) == RECORD


def test_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no trained model"):
        load_run(tmp_path)


def test_model_is_one_fold_or_all_finished_ones(tmp_path: Path) -> None:
    first, third = write_run(tmp_path / "fold_0"), write_run(tmp_path / "fold_2", fold="2")
    write_run(tmp_path / "fold_1", finished=False)
    (tmp_path / "fold_3").mkdir()
    assert model_folds(first) == (first,)
    assert model_folds(tmp_path) == (first, third)


def test_model_of_a_dataset_with_one_configuration(tmp_path: Path) -> None:
    only = write_run(tmp_path / "3d_fullres" / "fold_0")
    assert model_folds(tmp_path) == (only,)
    write_run(tmp_path / "2d" / "fold_0")
    with pytest.raises(UsageError, match="no model in this folder"):
        model_folds(tmp_path)


def test_a_run_that_was_started_anew_does_not_count(tmp_path: Path) -> None:
    current = write_run(tmp_path / "fold_0")
    write_run(tmp_path / "fold_0.previous")
    assert model_folds(tmp_path) == (current,)


def test_a_run_that_was_set_aside_is_offered_where_there_is_no_other(tmp_path: Path) -> None:
    write_run(tmp_path / "fold_0.previous")
    for model in (tmp_path, tmp_path / "fold_0"):
        with pytest.raises(
            UsageError,
            match=r"no model in this folder; .*fix: -m .*fold_0\.previous takes the one that --restart has set aside",
        ):
            model_folds(model)
    assert model_folds(tmp_path / "fold_0.previous") == (tmp_path / "fold_0.previous",)


def test_folds_under_way_are_a_model_where_none_is_finished(tmp_path: Path) -> None:
    under_way = write_run(tmp_path / "fold_1", finished=False)
    (tmp_path / "fold_0").mkdir()
    (tmp_path / "fold_0" / "last.safetensors").touch()
    assert model_folds(tmp_path) == (under_way,)
    finished = write_run(tmp_path / "fold_2")
    assert model_folds(tmp_path) == (finished,)


def test_folder_without_a_model(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UsageError, match=r"no model in this folder; (?!found)"):
            model_folds(folder)
    (tmp_path / "fold_0").mkdir()
    (tmp_path / "fold_0" / "last.safetensors").touch()
    for folder in (tmp_path, tmp_path / "fold_0"):
        with pytest.raises(UsageError, match="found: a training that has not come to the end of its first epoch"):
            model_folds(folder)


def test_weights_are_the_best_so_far_until_the_end(tmp_path: Path) -> None:
    under_way = replace(RECORD, finished=False)
    assert weights_file(tmp_path, under_way).name == "last.safetensors"
    (tmp_path / "best.safetensors").touch()
    assert weights_file(tmp_path, under_way).name == "best.safetensors"
    assert weights_file(tmp_path, RECORD).name == "last.safetensors"


def test_rules_are_those_that_every_fold_chose() -> None:
    other = replace(RECORD, postprocess=(RULES[1], Rule("largest_per_structure", "cyst")))
    assert common_rules([RECORD]) == RULES
    assert common_rules([RECORD, other]) == (RULES[1],)
    assert common_rules([RECORD, replace(RECORD, postprocess=())]) == ()


def test_thresholds_are_the_mean_of_the_folds_that_have_one() -> None:
    told: list[dict[str, float | None]] = [{"a": 0.5, "b": 0.25}, {"a": 0.75, "b": None, "d": None}, {"d": None}]
    folds = [replace(RECORD, thresholds=t) for t in told]
    assert common_thresholds(folds, ("b", "c", "a", "d")) == (0.25, 0.0, 0.625, 0.5)
    assert common_thresholds(folds, ()) == ()


def test_scores_as_text() -> None:
    assert record_table(RECORD).splitlines() == [
        "liver                    Dice 0.900",
        "cyst                     Dice --",
        "mean                     Dice 0.9000  (4 cases not trained on)",
    ]
    points = replace(RECORD, structure_dice={}, case_dice=None, mre=1.25, landmark_mre={"nose": 1.25, "chin": None}, unit="px")
    lines = ["nose                     MRE 1.25 px", "chin                     MRE -- px"]
    assert record_table(points).splitlines() == [*lines, "mean                     MRE 1.25 px  (4 cases not trained on)"]
    silent = replace(points, missed=3, extra=1)
    assert (
        record_table(silent).splitlines()[-1]
        == "mean                     MRE 1.25 px, 3 missed, 1 extra  (4 cases not trained on)"
    )
    both = replace(points, structure_dice=RECORD.structure_dice, case_dice=0.9)
    assert record_table(both).splitlines()[2:5] == ["mean                     Dice 0.9000  (4 cases not trained on)", *lines]


def test_record_without_landmark_fields(tmp_path: Path) -> None:
    old = json.loads(to_json(RECORD))
    for key in ("mre", "unit", "landmark_mre", "missed", "extra", "thresholds"):
        del old[key]
    write_text(tmp_path / "run.json", json.dumps(old))
    assert load_run(tmp_path) == RECORD


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"steps": -1},
            r"^'steps' cannot be used; file: .*run\.json; found: -1; allowed: 0 or more; fix: undo the last edit, or train",
        ),
        ({"case_dice": 1.5}, r"^'case_dice' cannot be used; .*found: 1\.5; allowed: 0…1, or null"),
        ({"structure_dice": {"liver": -0.1}}, r"^'structure_dice\.liver' cannot be used"),
        ({"thresholds": {"nose": 2.0}}, r"^'thresholds\.nose' cannot be used; .*found: 2\.0"),
        (
            {"postprocess": [{"kind": "largest"}]},
            r"^'postprocess\[0\]': .*; file: .*run\.json; .*fix: undo the last edit, or train again",
        ),
        (
            {"seconds": float("nan")},
            r"^'seconds' cannot be used; .*found: NaN; allowed: a finite number; fix: undo the last edit",
        ),
        ({"unit": "m"}, r"^'unit' is unknown"),
    ],
)
def test_a_record_that_was_edited_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    write_text(tmp_path / "run.json", json.dumps({**json.loads(to_json(RECORD)), **changes}))
    with pytest.raises(PlanError, match=message):
        load_run(tmp_path)
