"""autoseg plan: what its words mean, what is written and what is only printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.nnunet_fingerprint import FOUND
from helpers.tiny import Tiny
from jsonschema import Draft202012Validator
from typer.testing import CliRunner, Result

from autoseg.cli import app
from autoseg.errors import AutosegError, UsageError
from autoseg.pipeline import plan as planning


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "find_gpu", lambda: None)


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder as nnU-Net leaves it, without images."""
    folder = tmp_path / "Dataset003_Liver"
    folder.mkdir()
    about = {"channel_names": {"0": "CT", "1": "PET"}, "labels": {"background": 0, "liver": 1, "tumour": 2}}
    (folder / "dataset.json").write_text(json.dumps(about), encoding="utf-8")
    (folder / "dataset_fingerprint.json").write_text(json.dumps(FOUND), encoding="utf-8")
    return folder


def plan(*words: object) -> Result:
    """`autoseg plan …`; an error of autoseg is raised here."""
    result = CliRunner().invoke(app, ["plan", *map(str, words)])
    if isinstance(result.exception, AutosegError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def test_nnunets_folder_is_planned_and_nothing_written(foreign: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    root = ("--root", tmp_path / "work")
    document = json.loads(plan(foreign, "--family", "plain", "--memory", 8, "--json", *root).stdout)
    fine = document["configurations"]["3d_fullres"]
    assert len(fine["patch"]["patch_size"]) == 3
    assert fine["patch"]["batch_size"] == 2
    assert fine["network"]["kind"] == "plain_unet"
    assert (document["name"], document["origin"]["device"]) == ("Dataset003_Liver", "cuda")
    assert plan("-d", foreign, "--json", *root).stdout == plan(foreign, "--json", "--memory", 8, *root).stdout
    on_cpu = json.loads(plan(foreign, "--device", "cpu", "--family", "residual", "--json", *root).stdout)
    assert on_cpu["origin"]["device"] == "cpu"
    assert on_cpu["configurations"]["3d_fullres"]["network"]["features"][0] == 16
    note = plan(foreign, *root).stdout
    assert note.startswith("Plan of Dataset003_Liver: segmentation, for cuda with 8 GB")
    assert plan("show", foreign, *root).stdout == note
    assert sorted(tmp_path.rglob("*")) == before


def test_a_broken_fingerprint_of_nnunet(foreign: Path) -> None:
    (foreign / "dataset_fingerprint.json").write_text("{", encoding="utf-8")
    with pytest.raises(AutosegError, match=r"dataset_fingerprint\.json is not valid JSON; file: .*Dataset003_Liver"):
        plan(foreign)


def test_a_dataset_by_its_path_is_scanned_planned_and_shown(tiny: Tiny, tmp_path: Path) -> None:
    root = ("--root", tmp_path / "work")
    made = json.loads(plan(tiny.data, "--json", "--device", "cpu", *root).stdout)
    path = tmp_path / "work" / "datasets" / tiny.dataset.name / "plan.json"
    assert json.loads(path.read_text(encoding="utf-8")) == made
    note = plan("show", tiny.data, *root).stdout
    assert "3d_fullres: network" in note
    assert plan("show", *root).stdout == note  # the last one planned
    assert plan("show", path).stdout == plan("show", path.parent).stdout == note
    assert json.loads(plan("show", path, "--json").stdout) == made


def test_differences_between_two_plans(tiny: Tiny, foreign: Path, tmp_path: Path) -> None:
    work = tiny.workspace.dataset_folder(tiny.dataset.name) / "plan.json"
    assert plan("diff", work, work).stdout == "no difference\n"
    text = plan("diff", work, foreign).stdout
    assert "name\n  - Dataset001_Phantom\n  + Dataset003_Liver\n" in text
    assert "origin.device\n  - cpu\n  + cuda\n" in text
    differences = json.loads(plan("diff", work, foreign, "--json").stdout)
    assert [entry["value"] for entry in differences["origin.device"]] == ["cpu", "cuda"]


@pytest.mark.parametrize("words", [("diff",), ("diff", "a"), ("show", "a", "b"), ("a", "b"), ("a", "-d", "b")])
def test_too_few_or_too_many(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=r"plan takes one dataset, and plan diff two of them; found: .*; allowed: plan \[PATH\]"):
        plan(*words)


@pytest.mark.parametrize("words", [("show", "a"), ("diff", "a", "b"), ("schema",)])
def test_settings_need_a_plan_that_is_made(words: tuple[str, ...]) -> None:
    fix = "fix: autoseg plan --set KEY=VALUE, then plan show"
    with pytest.raises(UsageError, match=rf"--set changes a plan that is made; found: plan {words[0]}; {fix}"):
        plan(*words, "--set", "training.loss=focal")


def test_a_setting_for_nnunets_folder_is_in_what_is_printed(foreign: Path) -> None:
    document = json.loads(plan(foreign, "--set", "training.loss=ce", "--json").stdout)
    assert {c["training"]["loss"] for c in document["configurations"].values()} == {"ce"}


def test_unknown_family(foreign: Path) -> None:
    with pytest.raises(UsageError, match="no such family of networks - did you mean 'plain'"):
        plan(foreign, "--family", "plane")


def test_a_time_budget(foreign: Path) -> None:
    document = json.loads(plan(foreign, "--time", "10m", "--device", "cpu", "--json").stdout)
    assert {c["training"]["time_s"] for c in document["configurations"].values()} == {600.0}
    with pytest.raises(UsageError, match=r"too little time to train; found: 10 s; allowed: 20 s or more"):
        plan(foreign, "--time", "10s")


def test_the_schema_of_plans_accepts_a_plan(foreign: Path) -> None:
    validator = Draft202012Validator(json.loads(plan("schema").stdout))
    document = json.loads(plan(foreign, "--json").stdout)
    validator.validate(document)
    document["configurations"]["2d"]["network"]["kind"] = "plain"
    assert not validator.is_valid(document)


@pytest.mark.parametrize("command", ["plan", "plan_and_preprocess"])
def test_memory_that_is_no_number_is_one_sentence(command: str, foreign: Path) -> None:
    result = CliRunner().invoke(app, [command, "-d", str(foreign), "--memory", "lots"])
    assert str(result.exception) == "--memory must be a number of GB; found: lots; allowed: such as 8 or 11.5"
