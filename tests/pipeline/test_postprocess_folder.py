"""Component rules of a model on a folder of masks."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.tiny import Tiny

from autoseg.errors import UsageError
from autoseg.imaging.geometry import Grid
from autoseg.imaging.image import Image, LabelMap
from autoseg.io import read_label_map, write_image, write_label_map
from autoseg.pipeline.postprocess import PostprocessReport, postprocess_folder
from autoseg.plan import save_plan
from autoseg.postprocessing.component_rules import Rule
from autoseg.runs.record import RunRecord, load_run
from autoseg.system.files import write_text
from autoseg.system.records import to_json

LARGEST = Rule("largest_foreground")
LEFT = Rule("largest_per_structure", "left kidney")
RECORD = RunRecord("Phantom", "3d_fullres", "0", True, 1.0, 6, "1 case", 0.5, {}, (LARGEST, LEFT))


def write_model(tiny: Tiny, folder: Path, *rules: tuple[Rule, ...]) -> Path:
    """A model folder with a fold for each tuple of rules; cleaning needs no weights."""
    for i, chosen in enumerate(rules):
        write_text(folder / f"fold_{i}" / "run.json", to_json(replace(RECORD, fold=str(i), postprocess=chosen)))
        save_plan(tiny.plan, folder / f"fold_{i}" / "plan.json")
    return folder


def write_mask(tiny: Tiny, path: Path) -> np.ndarray:
    """Two left kidneys that touch through a right one, the second a voxel smaller, and a stone on its own."""
    data = np.zeros((3, 4, 9), dtype=np.uint8)
    data[1, 1, :3], data[1, 1, 3], data[1, 1, 4:6] = 1, 2, 1
    data[2, 3, 8] = 3
    grid = Grid.from_spacing(data.shape, (3, 1, 1), origin=(5, 6, 7))
    write_image(path, Image(np.zeros((1, *data.shape), np.float32), grid, ("MRI",)))
    write_label_map(path, LabelMap(data, grid, tiny.dataset.labels), like=path)
    return data


def cleaned(tiny: Tiny, tmp_path: Path, *rules: tuple[Rule, ...]) -> np.ndarray:
    write_mask(tiny, tmp_path / "masks" / "a.nii.gz")
    model = write_model(tiny, tmp_path / "model", *rules)
    assert postprocess_folder(tmp_path / "masks", tmp_path / "out", model=model, workers=0) == PostprocessReport(1)
    before, after = (read_label_map(tmp_path / d / "a.nii.gz", tiny.dataset.labels) for d in ("masks", "out"))
    assert after.grid == before.grid
    return after.data


def test_rules_of_a_fold_are_applied(tiny: Tiny, tmp_path: Path) -> None:
    data = cleaned(tiny, tmp_path, (LARGEST, LEFT))
    assert data[1, 1].tolist() == [1, 1, 1, 2, 0, 0, 0, 0, 0]
    assert data.sum() == 5


def test_folds_must_agree_on_a_rule(tiny: Tiny, tmp_path: Path) -> None:
    data = cleaned(tiny, tmp_path, (LARGEST, LEFT), (LEFT,))
    assert data[1, 1].tolist() == [1, 1, 1, 2, 0, 0, 0, 0, 0]
    assert data[2, 3, 8] == 3


def test_without_rules_masks_are_copied(tiny: Tiny, tmp_path: Path) -> None:
    assert np.array_equal(cleaned(tiny, tmp_path, ()), write_mask(tiny, tmp_path / "again.nii.gz"))


def test_a_broken_mask_is_listed_and_the_others_are_done(tiny: Tiny, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    write_mask(tiny, masks / "a.nii.gz")
    shutil.copy(masks / "a.nii.gz", masks / "b.nii.gz")
    (masks / "broken.nii.gz").write_bytes(b"no mask")
    report = postprocess_folder(masks, tmp_path / "out", model=write_model(tiny, tmp_path / "model", (LEFT,)) / "fold_0")
    assert report.done == 2
    assert [(f.case, f.stage) for f in report.failures] == [("broken", "postprocess")]


def test_a_training_that_has_not_finished_has_chosen_no_rules(tiny: Tiny, tmp_path: Path) -> None:
    write_mask(tiny, tmp_path / "masks" / "a.nii.gz")
    model = write_model(tiny, tmp_path / "model", (LEFT,))
    write_text(model / "fold_0" / "run.json", to_json(replace(load_run(model / "fold_0"), finished=False)))
    with pytest.raises(UsageError, match="component rules are chosen at the end of a training"):
        postprocess_folder(tmp_path / "masks", tmp_path / "out", model=model)
    assert not (tmp_path / "out").exists()


def test_folders_that_are_not_there(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no model in this folder"):
        postprocess_folder(tmp_path, tmp_path, model=tmp_path / "model")
    with pytest.raises(UsageError, match="no such file or folder"):
        postprocess_folder(tmp_path / "masks", tmp_path, model=write_model(tiny, tmp_path / "model", ()))


def test_probabilities_are_left_alone_and_a_header_file_becomes_a_single_one(tiny: Tiny, tmp_path: Path) -> None:
    masks, out = tmp_path / "masks", tmp_path / "out"
    data = write_mask(tiny, masks / "a.nii.gz")
    sitk.WriteImage(sitk.ReadImage(str(masks / "a.nii.gz")), str(masks / "b.mhd"))
    shutil.copy(masks / "a.nii.gz", masks / "a_probabilities.nii.gz")
    assert postprocess_folder(masks, out, model=write_model(tiny, tmp_path / "model", ()), workers=0) == PostprocessReport(2)
    assert sorted(p.name for p in out.iterdir()) == ["a.nii.gz", "b.mha"]
    assert np.array_equal(read_label_map(out / "b.mha", tiny.dataset.labels).data, data)


def test_masks_are_not_replaced(tiny: Tiny, tmp_path: Path) -> None:
    write_mask(tiny, tmp_path / "masks" / "a.nii.gz")
    with pytest.raises(UsageError, match="among the images"):
        postprocess_folder(tmp_path / "masks", tmp_path / "masks", model=write_model(tiny, tmp_path / "model", (LEFT,)))
