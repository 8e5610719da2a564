"""Preparing a whole dataset: only what has changed, one bad case never stops the rest."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg.dataset import Dataset, open_dataset
from autoseg.errors import PlanError, UsageError
from autoseg.imaging.landmarks import LandmarkSet
from autoseg.plan import (
    SCHEMA_VERSION,
    ChannelPlan,
    Configuration,
    DataPlan,
    InferencePlan,
    NetworkPlan,
    Origin,
    PatchPlan,
    Plan,
    SpacePlan,
    TrainingPlan,
)
from autoseg.preprocessing.dataset import PREPROCESSING_VERSION, prepared_key, preprocess
from autoseg.preprocessing.store import StoredCase, stored_key, stored_names


def _plan(dataset: Dataset, spacing: tuple[float, ...] = (1, 1, 1)) -> Plan:
    channels = tuple(ChannelPlan(c, "zscore", 0, 1, 0, 1) for c in dataset.channels)
    configuration = Configuration(
        None,
        SpacePlan("LPS", spacing, None, "nonzero", 3, 1),
        PatchPlan((8, 8, 8), 2, 0.33),
        NetworkPlan("plain_unet", (8, 16), ((1, 1, 1), (2, 2, 2)), ((3, 3, 3), (3, 3, 3)), (1, 1), (1,), False),
        None,
        TrainingPlan(1, 1, None, "adamw", 1e-3, 0, "cosine", 0, 0.9, "none", ()),
        InferencePlan(0.5, ()),
        (),
        None,
        {},
    )
    origin = Origin("", 8, "cpu", "0", "plain", None, None, "adamw_cosine")
    return Plan(
        SCHEMA_VERSION,
        "t",
        "segmentation",
        DataPlan(channels, dataset.labels, dataset.landmarks),
        "3d",
        {"3d": configuration},
        (),
        origin,
        {},
    )


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    root = tmp_path / "Dataset001_T"
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    about = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "ball": 4}}
    (root / "dataset.json").write_text(json.dumps(about))
    rng = np.random.default_rng(0)
    for name in "abcd":
        _write(root / "imagesTr" / f"{name}_0000.nii.gz", rng.uniform(1, 9, (6, 7, 8)).astype(np.float32))
        _write(root / "labelsTr" / f"{name}.nii.gz", (rng.uniform(size=(6, 7, 8)) > 0.7).astype(np.uint8) * 4)
    return open_dataset(root)


def _write(path: Path, array: np.ndarray) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


def _keys(dataset: Dataset) -> dict[str, str]:
    return {c.name: f"digest {c.name}" for c in dataset.cases}


def test_first_run_then_reuse(dataset: Dataset, tmp_path: Path) -> None:
    folder, plan = tmp_path / "prepared", _plan(dataset)
    report = preprocess(dataset, plan, "3d", folder, _keys(dataset))
    assert (report.done, report.reused, report.removed) == (("a", "b", "c", "d"), (), ())
    assert report.failures == ()
    assert StoredCase.open(folder, "a").classes_present == (1,)
    again = preprocess(dataset, plan, "3d", folder, _keys(dataset))
    assert (again.done, again.reused, again.removed) == ((), ("a", "b", "c", "d"), ())


def test_only_changed_cases_are_preprocessed_again(dataset: Dataset, tmp_path: Path) -> None:
    folder, plan = tmp_path / "prepared", _plan(dataset)
    preprocess(dataset, plan, "3d", folder, _keys(dataset), workers=0)
    changed = preprocess(dataset, plan, "3d", folder, _keys(dataset) | {"b": "other"}, workers=0)
    assert (changed.done, changed.reused) == (("b",), ("a", "c", "d"))
    (folder / "c.json").unlink()  # as if killed
    resumed = preprocess(dataset, plan, "3d", folder, _keys(dataset) | {"b": "other"}, workers=0)
    assert (resumed.done, resumed.reused) == (("c",), ("a", "b", "d"))
    finer = preprocess(dataset, _plan(dataset, (0.5, 1, 1)), "3d", folder, _keys(dataset), workers=0)
    assert finer.done == ("a", "b", "c", "d")
    assert StoredCase.open(folder, "a").shape == (12, 7, 8)


def test_cases_that_left_the_dataset_are_removed(dataset: Dataset, tmp_path: Path) -> None:
    folder, plan = tmp_path / "prepared", _plan(dataset)
    preprocess(dataset, plan, "3d", folder, _keys(dataset))
    (folder / "half.json.partial").write_bytes((folder / "a.json").read_bytes())  # a killed run left it of a case that is gone
    (folder / "half.image.b2nd").write_bytes(b"")
    (folder / "settings.json").write_text("{}")  # not a case
    fewer = replace(dataset, cases=dataset.cases[1:])
    keys = _keys(fewer)
    del keys["d"]  # could not be read before
    report = preprocess(fewer, plan, "3d", folder, keys)
    assert (report.done, report.reused, report.removed) == ((), ("b", "c"), ("a", "d", "half"))
    assert stored_names(folder) == ("b", "c")
    assert not list(folder.glob("half.*"))
    assert (folder / "settings.json").is_file()


def test_bad_cases_are_listed_and_not_left_in_the_store(dataset: Dataset, tmp_path: Path) -> None:
    folder, plan = tmp_path / "prepared", _plan(dataset)
    preprocess(dataset, plan, "3d", folder, _keys(dataset))
    _write(dataset.root / "labelsTr" / "a.nii.gz", np.zeros((6, 7, 9), dtype=np.uint8))
    (dataset.root / "labelsTr" / "b.nii.gz").unlink()
    cases = tuple(replace(c, label=None) if c.name == "c" else c for c in dataset.cases)
    report = preprocess(replace(dataset, cases=cases), plan, "3d", folder, dict.fromkeys("abcd", "new"))
    assert report.done == ("d",)
    reasons = {f.case: f.reason for f in report.failures}
    assert "differ in shape" in reasons["a"]
    assert "no such file" in reasons["b"]
    assert "the case has no label file" in reasons["c"]
    assert {f.stage for f in report.failures} == {"preprocess 3d"}
    assert [stored_key(folder, n) is None for n in "abcd"] == [True, True, True, False]


def test_a_plan_for_other_landmarks(dataset: Dataset, tmp_path: Path) -> None:
    pointed = replace(dataset, landmarks=LandmarkSet(("nose",)))
    with pytest.raises(
        PlanError, match=r"made for other landmarks; found: nose; .*fix: autoseg plan --replan, or put the landmarks"
    ):
        preprocess(pointed, _plan(dataset), "3d", tmp_path, _keys(dataset))
    keys = {prepared_key("x", _plan(d).data, _plan(d).configurations["3d"].space) for d in (dataset, pointed)}
    assert len(keys) == 2


def test_unknown_configuration(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no configuration '2d'"):
        preprocess(dataset, _plan(dataset), "2d", tmp_path, _keys(dataset))


def test_key_depends_on_everything(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = _plan(dataset)
    space = plan.configurations["3d"].space
    keys = {
        prepared_key("x", plan.data, space),
        prepared_key("y", plan.data, space),
        prepared_key("x", plan.data, replace(space, image_order=1)),
        prepared_key("x", replace(plan.data, channels=(replace(plan.data.channels[0], std=2),)), space),
    }
    monkeypatch.setattr("autoseg.preprocessing.dataset.PREPROCESSING_VERSION", PREPROCESSING_VERSION + 1)
    assert len(keys | {prepared_key("x", plan.data, space)}) == 5


@pytest.mark.real
def test_whole_hippocampus(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    dataset = open_dataset(real_data("Task04_Hippocampus"))
    start = time.perf_counter()
    report = preprocess(dataset, _plan(dataset), "3d", tmp_path, _keys(dataset))
    print(f"{len(report.done)} cases in {time.perf_counter() - start:.2f} s")
    assert report.failures == ()
    assert len(report.done) == len(dataset.cases)
    assert all(StoredCase.open(tmp_path, n).classes_present == (1, 2) for n in report.done)
