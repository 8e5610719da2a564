"""Files of a dataset that lie outside of its folder are read, and said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers.tiny import Tiny

from autoseg.dataset import open_dataset

NOTE = "with files outside of the dataset's folder"


@pytest.fixture
def dataset(tiny: Tiny, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny.data, tmp_path / "Dataset001_X"))


def test_a_dataset_that_is_whole_gets_no_note(dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    open_dataset(dataset)
    (tmp_path / "link").symlink_to(dataset)
    open_dataset(tmp_path / "link")
    (dataset / "inner").mkdir()
    (dataset / "imagesTr" / "phantom_000_0000.nii.gz").rename(dataset / "inner" / "a.nii.gz")
    (dataset / "imagesTr" / "phantom_000_0000.nii.gz").symlink_to(dataset / "inner" / "a.nii.gz")
    assert len(open_dataset(dataset).cases) == 5
    assert NOTE not in caplog.text


def test_links_to_files_and_folders(dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("phantom_001", "phantom_003"):
        (dataset / "labelsTr" / f"{name}.nii.gz").rename(tmp_path / f"{name}.nii.gz")
        (dataset / "labelsTr" / f"{name}.nii.gz").symlink_to(tmp_path / f"{name}.nii.gz")
    assert len(open_dataset(dataset).cases) == 5
    elsewhere = f"phantom_001, phantom_003 (phantom_001 is {tmp_path / 'phantom_001.nii.gz'})"
    assert f"note: 2 cases {NOTE}, which are read where they are: {elsewhere}" in caplog.text
    caplog.clear()
    (dataset / "imagesTr").rename(tmp_path / "imagesTr")
    (dataset / "imagesTr").symlink_to(tmp_path / "imagesTr")
    open_dataset(dataset)
    assert f"note: 5 cases {NOTE}" in caplog.text
    assert caplog.text.count(NOTE) == 1


def test_paths_in_lists(dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(dataset / "imagesTr", tmp_path / "other")
    rows = [
        f"a,{tmp_path}/other/phantom_000_0000.nii.gz,labelsTr/phantom_000.nii.gz",
        "b,../other/phantom_001_0000.nii.gz,labelsTr/phantom_001.nii.gz",
        "c,imagesTr/../imagesTr/phantom_002_0000.nii.gz,labelsTr/phantom_002.nii.gz",
        f"d,{dataset}/imagesTr/phantom_003_0000.nii.gz,labelsTr/phantom_003.nii.gz",
    ]
    (dataset / "cases.csv").write_text("\n".join(["case,image,label", *rows]))
    open_dataset(dataset)
    assert f"note: 2 cases {NOTE}, which are read where they are: a, b (a is {tmp_path / 'other'}" in caplog.text
    (dataset / "cases.csv").unlink()
    caplog.clear()
    meta = json.loads((dataset / "dataset.json").read_text())
    files = [f"../other/phantom_00{i}_0000.nii.gz" for i in range(2)]
    meta["training"] = [{"image": file, "label": "labelsTr/phantom_000.nii.gz"} for file in files]
    (dataset / "dataset.json").write_text(json.dumps(meta))
    open_dataset(dataset)
    assert f"note: 2 cases {NOTE}" in caplog.text
