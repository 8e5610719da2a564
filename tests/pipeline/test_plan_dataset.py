"""The planning stage: what is written, what is kept when it is run again, and for which machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from helpers.tiny import DATASET_NAME as NAME
from helpers.tiny import Tiny, add_case

from autoseg.dataset import Dataset
from autoseg.errors import PlanError, UsageError
from autoseg.footprint import NetworkIO, multiply_accumulates
from autoseg.footprint.speed import cpu_throughput
from autoseg.pipeline import plan as planning
from autoseg.pipeline.fingerprint import fingerprint_dataset
from autoseg.pipeline.plan import CPU_MEMORY_GB, PlanOptions, describe_plan, note_speed, plan_dataset
from autoseg.pipeline.workspace import Workspace
from autoseg.plan import LandmarkPlan, load_plan, save_plan
from autoseg.system.machine import Gpu


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "find_gpu", lambda: None)


def test_plan_is_written_remembered_and_kept(dataset: Dataset, workspace: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    path = workspace.dataset_folder(NAME) / "plan.json"
    path.unlink()
    plan = plan_dataset(dataset, workspace)
    assert load_plan(path) == plan
    assert plan.configurations["3d_fullres"].network.features[0] == 16
    assert workspace.last_dataset() == dataset.root.resolve()
    written = path.stat().st_mtime_ns
    assert plan_dataset(dataset, workspace) == plan
    assert path.stat().st_mtime_ns == written
    assert caplog.text == ""


def test_edits_by_hand_are_kept_when_planned_again(
    tiny: Tiny, dataset: Dataset, workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    folder = workspace.dataset_folder(NAME)
    (folder / "plan.json").unlink()
    planned = plan_dataset(dataset, workspace)
    fine = planned.configurations["3d_fullres"]
    edited = replace(fine, training=replace(fine.training, epochs=7))
    save_plan(replace(planned, configurations={**planned.configurations, "3d_fullres": edited}), folder / "plan.json")
    again = plan_dataset(dataset, workspace, PlanOptions("cuda", 11), replan=True)
    assert (again.origin.device, again.configurations["3d_fullres"].training.epochs) == ("cuda", 7)
    assert again.configurations["2d"].training.epochs == planned.configurations["2d"].training.epochs
    assert "note: edit by hand kept: configurations.3d_fullres.training.epochs: 7 instead of 200" in caplog.text
    assert load_plan(folder / "plan.json") == again
    assert load_plan(folder / "plan.previous.json").configurations["3d_fullres"] == edited
    # and again: the edit is known from what was planned, not from what was kept
    third = plan_dataset(dataset, workspace, PlanOptions("cpu"), replan=True)
    assert (third.origin.device, third.configurations["3d_fullres"].training.epochs) == ("cpu", 7)

    flat = third.configurations["2d"]
    patch = replace(flat.patch, patch_size=tuple(n + d for n, d in zip(flat.patch.patch_size, flat.network_divisors)))
    save_plan(replace(third, configurations={**third.configurations, "2d": replace(flat, patch=patch)}), folder / "plan.json")
    before = (folder / "plan.json").read_bytes()
    caplog.clear()
    plan_dataset(dataset, workspace, PlanOptions("cpu"), replan=True)
    assert "edit by hand kept: configurations.2d.patch.patch_size" in caplog.text
    (folder / "plan.json").write_bytes(before.replace(b'"postprocess"', b'"postproces"', 1))
    with pytest.raises(PlanError, match=r"unknown key 'configurations\.3d_fullres\.postproces'"):
        plan_dataset(dataset, workspace, replan=True)


def test_a_plan_whose_edits_are_not_known_is_put_aside(
    dataset: Dataset, workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    folder = workspace.dataset_folder(NAME)
    (folder / "plan.planned.json").unlink()
    edited = (folder / "plan.json").read_bytes()
    new = plan_dataset(dataset, workspace, replan=True)
    assert new.configurations["3d_fullres"].network.features[0] == 16
    assert (folder / "plan.previous.json").read_bytes() == edited
    assert "it is unknown what was edited by hand" in caplog.text


def test_a_plan_that_no_longer_fits_is_kept_and_said_to_be_so(
    dataset: Dataset, workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    kept = load_plan(workspace.dataset_folder(NAME) / "plan.json")
    assert plan_dataset(dataset, workspace, PlanOptions("cuda", 11)) == kept
    assert (
        "for cpu with 8 GB, plain family; it is kept, --replan (Python: replan=True) makes one for cuda with 11 GB, plain family"
        in caplog.text
    )
    assert plan_dataset(dataset, workspace, PlanOptions("cpu", 8, time_s=600)) == kept
    assert "--replan (Python: replan=True) makes one for cpu with 8 GB, plain family, 10 min" in caplog.text
    caplog.clear()
    workspace.remember_speed("cpu", 77.0)
    assert plan_dataset(dataset, workspace, PlanOptions("cpu", 8)) == kept
    assert caplog.text == ""
    fingerprint_dataset(add_case(dataset, "phantom_100"), workspace, workers=0)
    assert plan_dataset(dataset, workspace) == kept
    assert "the dataset has changed" in caplog.text
    replanned = plan_dataset(dataset, workspace, PlanOptions("cuda", 11), replan=True)
    assert (replanned.origin.device, replanned.origin.memory_gb) == ("cuda", 11)


def test_auto_plans_for_the_gpu_there_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)

    def what(device: str, memory: float | None = None) -> tuple[str, float]:
        budget = PlanOptions(device, memory).budget(workspace)
        return budget.device, budget.memory_gb

    assert what("auto") == ("cpu", CPU_MEMORY_GB)
    assert what("cuda:1", 24) == ("cuda", 24)
    monkeypatch.setattr(planning, "find_gpu", lambda: Gpu("NVIDIA RTX 3080", 11.0))
    assert what("auto") == ("cuda", 11)
    assert what("cpu") == ("cpu", CPU_MEMORY_GB)
    assert what("auto", 6) == ("cuda", 6)
    assert PlanOptions("cpu").budget_elsewhere().device == "cpu"
    assert PlanOptions().budget_elsewhere().memory_gb == 8


@pytest.mark.parametrize("device", ["gpu", "cdua", "cuda:x", "tpu"])
def test_unknown_devices(device: str, tmp_path: Path) -> None:
    for budget in (PlanOptions(device).budget_elsewhere, lambda: PlanOptions(device).budget(Workspace(tmp_path))):
        with pytest.raises(UsageError, match=rf"unknown device; found: {device}; allowed: auto, cpu, cuda, cuda:1, mps"):
            budget()


def test_trainings_tell_how_fast_the_machine_is(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.remember_speed("cpu", 43.21)
    workspace.remember_speed("cuda", 5000)
    assert workspace.speeds() == {"cpu": 43.2, "cuda": 5000}
    assert PlanOptions("cpu", time_s=600).budget(workspace).speed == 43.2
    assert (
        PlanOptions("cpu").budget(workspace).speed == cpu_throughput()
    )  # without a limit of time plans do not follow what was run


def test_only_steps_of_some_size_tell(tiny: Tiny, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    small = tiny.plan
    large = replace(tiny.configuration, patch=replace(tiny.configuration.patch, patch_size=(64, 256, 256)))
    plan = replace(small, configurations={"3d_fullres": large})
    macs = 3 * 2 * multiply_accumulates(large.network, (64, 256, 256), NetworkIO(1, 5))
    note_speed(workspace, small, "3d_fullres", "cpu", 0.1)
    note_speed(workspace, plan, "3d_fullres", "mps", 0.1)
    note_speed(workspace, plan, "3d_fullres", "cpu", 0.0)
    assert workspace.speeds() == {}
    note_speed(workspace, plan, "3d_fullres", "cpu", 0.5)
    assert workspace.speeds()["cpu"] == pytest.approx(macs / 0.5e9, abs=0.06)


def test_no_fingerprint_yet(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no fingerprint"):
        plan_dataset(dataset, Workspace(tmp_path / "empty"))


def test_a_plan_in_a_few_words(tiny: Tiny) -> None:
    text = describe_plan(tiny.plan, Path("work/plan.json"))
    assert "3d_fullres: spacing 3×2×2 mm, patch 8×16×16, batch 2, 3 stages of 4, 8, 8 features" in text
    assert text.endswith("work/plan.json")
    two = replace(tiny.plan, configurations={**tiny.plan.configurations, "2d": tiny.configuration}, default_configuration="2d")
    assert "2d (to train first): spacing" in describe_plan(two, Path("plan.json"))
    pointed = replace(tiny.configuration, landmarks=LandmarkPlan((3.0, 2.0, 2.0), "spatial_ce", None))
    plan = replace(tiny.plan, configurations={"2d": pointed}, default_configuration="2d")
    text = describe_plan(plan, Path("plan.json"), "px")  # of pictures
    assert "spacing 3×2×2 px" in text
    assert "0 landmarks, sigma 3×2×2 px, spatial_ce" in text
