"""The stages on a workspace: what each writes, what it keeps when run again, what it says when the data has changed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from helpers.runs import EPOCHS, interrupt_at
from helpers.tiny import DATASET_NAME as NAME
from helpers.tiny import Tiny, add_case

from autoseg.dataset import Dataset, open_dataset
from autoseg.errors import DataError, PlanError, UsageError
from autoseg.fingerprint.dataset import load_fingerprint
from autoseg.pipeline.fingerprint import ensure_fingerprint, fingerprint_dataset
from autoseg.pipeline.plan import plan_dataset
from autoseg.pipeline.preprocess import preprocess_dataset
from autoseg.pipeline.training import train_dataset, training_job
from autoseg.pipeline.workspace import Workspace
from autoseg.plan import load_plan, save_plan
from autoseg.runs.record import model_folds
from autoseg.splits.folds import Folds, load_folds, save_folds


def test_fingerprint_makes_folds_and_later_extends_them(dataset: Dataset, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "new")
    fingerprint = fingerprint_dataset(dataset, workspace, workers=0).fingerprint
    about = workspace.dataset_folder(NAME)
    assert load_fingerprint(about / "fingerprint.json") == fingerprint
    before = load_folds(about / "splits.json")
    assert before.cases == tuple(c.name for c in dataset.cases)
    assert before.dataset == fingerprint.hash

    (dataset.root / "labelsTr" / "phantom_001.nii.gz").write_bytes(b"no label map")
    again = fingerprint_dataset(add_case(dataset, "phantom_100"), workspace, workers=0)
    assert [f.case for f in again.failures] == ["phantom_001"]
    after = load_folds(about / "splits.json")
    assert after.cases == ("phantom_000", "phantom_002", "phantom_003", "phantom_004", "phantom_100")
    assert again.fingerprint.hash != fingerprint.hash
    old = {name: i for i, fold in enumerate(before.validation) for name in fold}
    assert all(old.get(name, i) == i for i, fold in enumerate(after.validation) for name in fold)

    shutil.copy(dataset.root / "labelsTr" / "phantom_002.nii.gz", dataset.root / "labelsTr" / "phantom_001.nii.gz")
    fingerprint_dataset(dataset, workspace, workers=0)
    mended = load_folds(about / "splits.json")
    assert "phantom_001" in mended.validation[old["phantom_001"]]
    assert mended.vanished == {"phantom_100": str(old["phantom_000"])}


@pytest.mark.parametrize("way", ["absolute", "relative", "above", "empty"])
def test_a_strangers_plan_touches_nothing_outside_the_workspace(
    dataset: Dataset, workspace: Workspace, tmp_path: Path, way: str
) -> None:
    private = tmp_path / "private"
    private.mkdir()
    for file in ("holiday.json", "notes.json.partial", "photo.image.b2nd", "keep.txt"):
        (private / file).write_text(file)
    name = {"absolute": str(private), "relative": "../../../private", "above": "..", "empty": ""}[way]
    path = workspace.dataset_folder(NAME) / "plan.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["configurations"] = {name: document["configurations"][document["default_configuration"]]}
    document["default_configuration"] = name
    path.write_text(json.dumps(document), encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(PlanError, match=r"a configuration needs a name that can be a file's; file: .*plan\.json; found: '"):
        preprocess_dataset(dataset, workspace, workers=0)
    assert sorted(tmp_path.rglob("*")) == before
    assert (private / "holiday.json").read_text() == "holiday.json"


def folds_of(dataset: Dataset, workspace: Workspace) -> Folds:
    fingerprint_dataset(open_dataset(dataset.root), workspace, workers=0)
    return load_folds(workspace.dataset_folder(NAME) / "splits.json")


def test_folds_go_by_patients_and_say_so_once(dataset: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "autoseg")
    workspace = Workspace(tmp_path / "new")
    patients = dataset.root / "patients.csv"
    patients.write_text("case,patient\n" + "".join(f"phantom_00{i},{p}\n" for i, p in enumerate("xyxyz")), encoding="utf-8")
    folds = folds_of(dataset, workspace)
    assert folds.validation == (("phantom_000", "phantom_002"), ("phantom_001", "phantom_003"), ("phantom_004",))
    line = "3 patients with 5 cases (from patients.csv), folds keep each patient together"
    assert caplog.messages == [line]
    assert folds_of(dataset, workspace) == folds
    assert caplog.messages == [line]
    patients.write_text("case,patient\n", encoding="utf-8")
    with pytest.raises(DataError, match="names no case of this dataset"):
        folds_of(dataset, workspace)


def test_patients_known_too_late_are_a_leak_that_training_tells_too(
    dataset: Dataset, workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "autoseg")
    before = folds_of(dataset, workspace)
    preprocess_dataset(dataset, workspace, workers=0)
    assert caplog.messages == []
    (dataset.root / "patients.csv").write_text("case,patient\n" + "".join(f"phantom_00{i},x\n" for i in (0, 1)), encoding="utf-8")
    after = folds_of(dataset, workspace)
    assert after.validation == before.validation
    missing, leak = caplog.messages
    assert missing.startswith("note: patients.csv has no line for phantom_002, phantom_003, phantom_004")
    a, b = (next(f for f in "01234" if f"phantom_00{i}" in after.validation_cases(f)) for i in (0, 1))
    assert leak.startswith("note: patient x is in several folds: ")
    assert f"fold {a}: phantom_000" in leak
    assert f"fold {b}: phantom_001" in leak
    caplog.clear()
    for fold in "01234":
        training_job(dataset, workspace, None, fold)
    told = [
        f"note: fold {fold} is validated on a patient it also learns from (x): its scores are too good" for fold in sorted(a + b)
    ]
    assert caplog.messages == told


def test_a_copied_case_stays_with_the_first(dataset: Dataset, workspace: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    folds_of(dataset, workspace)
    folds = folds_of(add_case(dataset, "another"), workspace)
    assert folds.patients == {"phantom_000": "another"}
    assert next(fold for fold in folds.validation if "another" in fold) == ("another", "phantom_000")
    assert "cases another and phantom_000 hold the same files" in caplog.text


def test_folds_made_by_hand_for_nnunet(dataset: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "autoseg")
    names = [c.name for c in dataset.cases]
    splits = dataset.root / "splits_final.json"
    splits.write_text(json.dumps([{"train": names[:3], "val": names[3:]}]), encoding="utf-8")
    (dataset.root / "labelsTr" / "phantom_001.nii.gz").write_bytes(b"no label map")
    workspace = Workspace(tmp_path / "new")
    folds = folds_of(dataset, workspace)
    assert (folds.validation, folds.training_only) == (((names[3], names[4]),), (names[0], names[2]))
    assert caplog.messages == [f"1 folds from {splits}, 3 cases for training only"]
    assert folds_of(dataset, workspace) == folds
    assert len(caplog.messages) == 1
    splits.write_text("[]", encoding="utf-8")  # the folds at hand are kept, whatever it says later
    own = workspace.dataset_folder(NAME) / "splits.json"
    os.utime(splits, (splits.stat().st_atime, own.stat().st_mtime + 10))
    assert folds_of(dataset, workspace) == folds
    (note,) = caplog.messages[1:]
    assert note == (
        f"note: {splits} is newer than {own}, which stays in force; for the newer one delete splits.json, "
        "then autoseg fingerprint and autoseg train --restart"
    )
    with pytest.raises(DataError, match=r"splits_final.json has another form"):
        folds_of(dataset, Workspace(tmp_path / "newer"))


def test_many_notes_are_shortened(dataset: Dataset, workspace: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    for i in range(1, 5):
        for part, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
            for copy in ("b", "c"):
                name = f"phantom_00{i}"
                shutil.copy(dataset.root / part / f"{name}{ending}", dataset.root / part / f"{copy}{name}{ending}")
    before = Folds("", tuple((f"phantom_00{i}",) for i in range(1, 5)) + (tuple(f"bphantom_00{i}" for i in range(1, 5)),))
    save_folds(before, workspace.dataset_folder(NAME) / "splits.json")
    assert len(folds_of(dataset, workspace).leaks) == 4
    assert len(caplog.messages) == 6
    assert caplog.messages[-1] == f"note: 3 more, see {workspace.dataset_folder(NAME) / 'splits.json'}"


def test_prepared_cases_are_kept_until_their_files_change(dataset: Dataset, workspace: Workspace) -> None:
    names = tuple(c.name for c in dataset.cases)
    fingerprint_dataset(dataset, workspace, workers=0)
    assert preprocess_dataset(dataset, workspace, workers=0).done == names
    assert preprocess_dataset(dataset, workspace, configuration="3d_fullres", workers=0).reused == names
    shutil.copy(dataset.root / "imagesTr" / "phantom_001_0000.nii.gz", dataset.root / "imagesTr" / "phantom_000_0000.nii.gz")
    fingerprint_dataset(dataset, workspace, workers=0)
    report = preprocess_dataset(dataset, workspace, workers=0)
    assert (report.done, report.reused, report.failures) == (names[:1], names[1:], ())


def test_a_workspace_of_before_the_fingerprint_grew(dataset: Dataset, workspace: Workspace) -> None:
    """Planning takes the fingerprint again by itself; the plan, made from the same cases, still fits."""
    path = workspace.dataset_folder(NAME) / "fingerprint.json"
    new = path.read_text(encoding="utf-8")
    old = json.loads(new)
    old["schema_version"] = 1
    for case in old["cases"]:
        del case["tails"], case["lateral_positions"]
    path.write_text(json.dumps(old), encoding="utf-8")
    (workspace.dataset_folder(NAME) / "cases.jsonl").unlink()
    with pytest.raises(PlanError, match=r"another schema version.*fix: autoseg fingerprint"):
        plan_dataset(dataset, workspace)
    ensure_fingerprint(dataset, workspace)
    assert path.read_text(encoding="utf-8") == new
    assert plan_dataset(dataset, workspace) == load_plan(workspace.dataset_folder(NAME) / "plan.json")


def test_stages_out_of_order(dataset: Dataset, workspace: Workspace, tmp_path: Path) -> None:
    empty = Workspace(tmp_path / "empty")
    with pytest.raises(UsageError, match="no plan"):
        preprocess_dataset(dataset, empty, workers=0)
    other = Dataset(NAME, dataset.root, dataset.channels, dataset.labels, ())
    with pytest.raises(DataError, match="no usable case"):
        preprocess_dataset(other, workspace, workers=0)
    with pytest.raises(UsageError, match="no configuration '2d'"):
        preprocess_dataset(dataset, workspace, configuration="2d", workers=0)


def test_a_plan_edited_by_hand_prepares_anew(tiny: Tiny, dataset: Dataset, workspace: Workspace) -> None:
    from dataclasses import replace

    fingerprint_dataset(dataset, workspace, workers=0)
    preprocess_dataset(dataset, workspace, workers=0)
    coarse = replace(tiny.configuration, space=replace(tiny.configuration.space, spacing_mm=(3.0, 3.0, 3.0)))
    save_plan(replace(tiny.plan, configurations={"3d_fullres": coarse}), workspace.dataset_folder(NAME) / "plan.json")
    assert len(preprocess_dataset(dataset, workspace, workers=0).done) == 5


def test_a_second_configuration_is_prepared_when_it_is_named(tiny: Tiny, dataset: Dataset, workspace: Workspace) -> None:
    from dataclasses import replace

    fingerprint_dataset(dataset, workspace, workers=0)
    coarse = replace(tiny.configuration, space=replace(tiny.configuration.space, spacing_mm=(4.0, 3.0, 3.0)))
    both = replace(tiny.plan, configurations={"3d_fullres": tiny.configuration, "3d_lowres": coarse})
    save_plan(both, workspace.dataset_folder(NAME) / "plan.json")
    assert len(preprocess_dataset(dataset, workspace, workers=0).done) == 5
    assert not workspace.prepared(NAME, "3d_lowres").exists()
    assert len(preprocess_dataset(dataset, workspace, configuration="3d_lowres", workers=0).done) == 5
    assert workspace.prepared(NAME, "3d_lowres").is_dir()


def test_a_training_under_way_is_the_last_model_if_there_is_no_other(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny.workspace.root, tmp_path / "work", ignore=shutil.ignore_patterns("runs", "last.json"))
    workspace = Workspace(tmp_path / "work")
    for earlier, expected in (("", "fold_0"), ("fold_1", "fold_1")):
        if earlier:
            folder = workspace.run(NAME, "3d_fullres", earlier.removeprefix("fold_"))
            shutil.copytree(workspace.last_model(), folder)
            workspace.remember_model(folder)
        interrupt_at(monkeypatch, 5)
        with pytest.raises(KeyboardInterrupt):
            train_dataset(tiny.dataset, workspace, options=EPOCHS, device="cpu", restart=True)
        assert workspace.last_model().name == expected
        assert [run.name for run in model_folds(workspace.last_model())] == [expected]
