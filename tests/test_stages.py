"""The stages on a workspace: what each writes, what it keeps when run again, what it says when the data has changed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import Tiny

from autoseg import stages
from autoseg.batch import Failure
from autoseg.dataset import Dataset, open_dataset
from autoseg.errors import DataError, PlanError, UsageError
from autoseg.fingerprint import load_fingerprint
from autoseg.folds import load_folds
from autoseg.plan import load_plan, save_plan
from autoseg.stages import _gpu_memory_gb as ask_the_driver
from autoseg.stages import describe_plan, ensure_fingerprint, fingerprint_dataset, forget_run, plan_dataset, prepare_dataset
from autoseg.workspace import Workspace

NAME = "Dataset001_Phantom"


@pytest.fixture
def dataset(tiny: Tiny, tmp_path: Path) -> Dataset:
    """A copy that a test may change."""
    shutil.copytree(tiny.data, tmp_path / NAME)
    return open_dataset(tmp_path / NAME)


@pytest.fixture
def workspace(tiny: Tiny, tmp_path: Path) -> Workspace:
    """The tiny dataset's documents without its prepared cases and runs."""
    shutil.copytree(tiny.workspace.about(NAME), tmp_path / "work" / "datasets" / NAME)
    return Workspace(tmp_path / "work")


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "_gpu_memory_gb", lambda: None)


def add_case(dataset: Dataset, name: str) -> Dataset:
    for part, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        shutil.copy(dataset.root / part / f"phantom_000{ending}", dataset.root / part / f"{name}{ending}")
    return open_dataset(dataset.root)


def test_fingerprint_makes_folds_and_later_extends_them(dataset: Dataset, tmp_path: Path) -> None:
    workspace, failures = Workspace(tmp_path / "new"), list[Failure]()
    fingerprint = fingerprint_dataset(dataset, workspace, failures, 0)
    about = workspace.about(NAME)
    assert load_fingerprint(about / "fingerprint.json") == fingerprint
    before = load_folds(about / "splits.json")
    assert before.cases == tuple(c.name for c in dataset.cases)
    assert before.dataset == fingerprint.hash

    (dataset.root / "labelsTr" / "phantom_001.nii.gz").write_bytes(b"no label map")
    again = fingerprint_dataset(add_case(dataset, "phantom_100"), workspace, failures, 0)
    assert [f.case for f in failures] == ["phantom_001"]
    after = load_folds(about / "splits.json")
    assert after.cases == ("phantom_000", "phantom_002", "phantom_003", "phantom_004", "phantom_100")
    assert again.hash != fingerprint.hash
    old = {name: i for i, fold in enumerate(before.validation) for name in fold}
    assert all(old.get(name, i) == i for i, fold in enumerate(after.validation) for name in fold)


def test_plan_is_written_remembered_and_kept(dataset: Dataset, workspace: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    path = workspace.about(NAME) / "plan.json"
    edited = path.read_bytes()
    plan_dataset(dataset, workspace)
    assert path.read_bytes() == edited
    assert caplog.text == ""
    assert workspace.last_dataset() == dataset.root.resolve()
    new = plan_dataset(dataset, workspace, replan=True)
    assert load_plan(path) == new
    assert new.configurations["3d_fullres"].network.features[0] == 16
    assert (workspace.about(NAME) / "plan.previous.json").read_bytes() == edited


def test_a_plan_that_no_longer_fits_is_kept_and_said_to_be_so(
    dataset: Dataset, workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    kept = load_plan(workspace.about(NAME) / "plan.json")
    assert plan_dataset(dataset, workspace, "cuda", 11) == kept
    assert "for cpu with 8 GB, plain family; it is kept, --replan makes one for cuda with 11 GB, plain family" in caplog.text
    assert plan_dataset(dataset, workspace, "cpu", 8) == kept
    fingerprint_dataset(add_case(dataset, "phantom_100"), workspace, [], 0)
    assert plan_dataset(dataset, workspace) == kept
    assert "the dataset has changed" in caplog.text
    replanned = plan_dataset(dataset, workspace, "cuda", 11, replan=True)
    assert (replanned.origin.device, replanned.origin.memory_gb) == ("cuda", 11)


def test_auto_plans_for_the_gpu_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (stages._budget("auto", None).device, stages._budget("auto", None).memory_gb) == ("cpu", stages.CPU_MEMORY_GB)
    assert stages._budget("cuda:1", 24).memory_gb == 24
    monkeypatch.setattr(stages, "_gpu_memory_gb", lambda: 11.0)
    assert (stages._budget("auto", None).device, stages._budget("auto", None).memory_gb) == ("cuda", 11.0)
    assert (stages._budget("cpu", None).device, stages._budget("cpu", None).memory_gb) == ("cpu", stages.CPU_MEMORY_GB)
    assert stages._budget("auto", 6).memory_gb == 6


def test_prepared_cases_are_kept_until_their_files_change(dataset: Dataset, workspace: Workspace) -> None:
    failures: list[Failure] = []
    names = tuple(c.name for c in dataset.cases)
    fingerprint_dataset(dataset, workspace, failures, 0)
    assert prepare_dataset(dataset, workspace, None, failures, 0).done == names
    assert prepare_dataset(dataset, workspace, "3d_fullres", failures, 0).reused == names
    shutil.copy(dataset.root / "imagesTr" / "phantom_001_0000.nii.gz", dataset.root / "imagesTr" / "phantom_000_0000.nii.gz")
    fingerprint_dataset(dataset, workspace, failures, 0)
    report = prepare_dataset(dataset, workspace, None, failures, 0)
    assert (report.done, report.reused) == (names[:1], names[1:])
    assert failures == []


def test_a_workspace_of_before_the_fingerprint_grew(dataset: Dataset, workspace: Workspace) -> None:
    """Planning takes the fingerprint again by itself; the plan, made from the same cases, still fits."""
    path = workspace.about(NAME) / "fingerprint.json"
    new = path.read_text(encoding="utf-8")
    old = json.loads(new)
    old["schema_version"] = 1
    for case in old["cases"]:
        del case["tails"], case["places"]
    path.write_text(json.dumps(old), encoding="utf-8")
    (workspace.about(NAME) / "cases.jsonl").unlink()
    with pytest.raises(PlanError, match=r"another schema version.*fix: autoseg fingerprint"):
        plan_dataset(dataset, workspace)
    ensure_fingerprint(dataset, workspace, [])
    assert path.read_text(encoding="utf-8") == new
    assert plan_dataset(dataset, workspace) == load_plan(workspace.about(NAME) / "plan.json")


def test_stages_out_of_order(dataset: Dataset, workspace: Workspace, tmp_path: Path) -> None:
    empty = Workspace(tmp_path / "empty")
    with pytest.raises(UsageError, match="no fingerprint"):
        plan_dataset(dataset, empty)
    with pytest.raises(UsageError, match="no plan"):
        prepare_dataset(dataset, empty, None, [], 0)
    other = Dataset(NAME, dataset.root, dataset.channels, dataset.labels, ())
    with pytest.raises(DataError, match="no usable case"):
        prepare_dataset(other, workspace, None, [], 0)
    with pytest.raises(UsageError, match="no configuration '2d'"):
        prepare_dataset(dataset, workspace, "2d", [], 0)


def test_a_plan_edited_by_hand_prepares_anew(tiny: Tiny, dataset: Dataset, workspace: Workspace) -> None:
    from dataclasses import replace

    fingerprint_dataset(dataset, workspace, [], 0)
    prepare_dataset(dataset, workspace, None, [], 0)
    coarse = replace(tiny.configuration, space=replace(tiny.configuration.space, spacing_mm=(3.0, 3.0, 3.0)))
    save_plan(replace(tiny.plan, configurations={"3d_fullres": coarse}), workspace.about(NAME) / "plan.json")
    assert len(prepare_dataset(dataset, workspace, None, [], 0).done) == 5


def test_forgetting_moves_a_run_aside(tmp_path: Path) -> None:
    run = tmp_path / "fold_0"
    forget_run(run)  # nothing there, nothing to do
    for content in ("first", "second"):
        run.mkdir()
        (run / "run.json").write_text(content, encoding="utf-8")
        forget_run(run)
        assert not run.exists()
        assert (tmp_path / "fold_0.previous" / "run.json").read_text(encoding="utf-8") == content


def test_a_plan_in_a_few_words(tiny: Tiny) -> None:
    text = describe_plan(tiny.plan, Path("work/plan.json"))
    assert "3d_fullres: spacing 3×2×2 mm, patch 8×16×16, batch 2, 3 stages of 4, 8, 8 features" in text
    assert text.endswith("work/plan.json")


def test_a_driver_that_hangs_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], **_: object) -> None:
        raise subprocess.TimeoutExpired(command, 10)

    monkeypatch.setattr(stages.shutil, "which", lambda _: "nvidia-smi")
    monkeypatch.setattr(stages.subprocess, "run", hang)
    assert ask_the_driver() is None


def test_a_second_configuration_is_prepared_when_it_is_named(tiny: Tiny, dataset: Dataset, workspace: Workspace) -> None:
    from dataclasses import replace

    fingerprint_dataset(dataset, workspace, [], 0)
    coarse = replace(tiny.configuration, space=replace(tiny.configuration.space, spacing_mm=(4.0, 3.0, 3.0)))
    both = replace(tiny.plan, configurations={"3d_fullres": tiny.configuration, "3d_lowres": coarse})
    save_plan(both, workspace.about(NAME) / "plan.json")
    assert len(prepare_dataset(dataset, workspace, None, [], 0).done) == 5
    assert not workspace.prepared(NAME, "3d_lowres").exists()
    assert len(prepare_dataset(dataset, workspace, "3d_lowres", [], 0).done) == 5
    assert workspace.prepared(NAME, "3d_lowres").is_dir()
