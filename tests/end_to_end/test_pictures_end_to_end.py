"""The whole pipeline on PNG and JPG of mixed size and colour, with nothing but two folders given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.io
from PIL import Image as Pillow

from autoseg.dataset import find_dataset, images_in, open_dataset
from autoseg.dataset.reading import CaseReader
from autoseg.evaluation.label_maps import evaluate_label_maps
from autoseg.inference.model import load_model
from autoseg.inference.predict import PredictReport, predict
from autoseg.nets.device import Device
from autoseg.pipeline.fingerprint import fingerprint_dataset
from autoseg.pipeline.plan import PlanOptions, plan_dataset
from autoseg.pipeline.preprocess import preprocess_dataset
from autoseg.pipeline.training import training_job
from autoseg.pipeline.workspace import Workspace
from autoseg.plan import NetworkPlan, PatchPlan, Plan, save_plan
from autoseg.runs.budget import RunBudget
from autoseg.runs.options import TrainingOptions
from autoseg.training.train import train


def draw(folder: Path, n: int) -> Path:
    """Bright discs on dark ground; every third image has colour, every fifth is a JPG."""
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for i in range(n):
        rng = np.random.default_rng(i)
        height, width = (int(s) for s in rng.integers(36, 60, 2))
        y, x = np.mgrid[:height, :width]
        inside = np.hypot(y - height / 2, x - width / 3) < 9
        image = (rng.normal(60, 10, (height, width)) + 120 * inside).clip(1, 255).astype(np.uint8)
        picture = np.stack([image, image // 2, image // 3], axis=-1) if i % 3 == 0 else image
        ending = ".jpg" if i % 5 == 0 else ".png"
        Pillow.fromarray(picture).save(folder / "images" / f"disc_{i}{ending}")
        Pillow.fromarray(255 * inside.astype(np.uint8)).save(folder / "labels" / f"disc_{i}.png")
    return folder


def shrink(plan: Plan) -> Plan:
    """The plan with a network and a patch for a test."""
    name, whole = plan.configuration(None)
    network = NetworkPlan("plain_unet", (8, 16), ((1, 1), (2, 2)), ((3, 3), (3, 3)), (1, 1), (1,), False)
    training = replace(whole.training, epochs=1, steps_per_epoch=30, learning_rate=0.01)
    small = replace(whole, patch=PatchPlan((32, 32), 2, 0.5), network=network, training=training)
    return replace(plan, ladder=(), configurations={name: small})


def test_from_two_folders_to_masks(tmp_path: Path, float32_cpu: Device) -> None:
    dataset, workspace = open_dataset(draw(tmp_path / "discs", 6)), Workspace(tmp_path / "work")
    fingerprint = fingerprint_dataset(dataset, workspace, workers=0).fingerprint
    assert fingerprint.structures[0].n_cases == 6
    plan = plan_dataset(dataset, workspace, PlanOptions("cpu"))
    assert list(plan.configurations) == ["2d"]
    assert [c.normalization for c in plan.data.channels] == ["rgb_0_1"] * 3
    save_plan(shrink(plan), workspace.dataset_folder("discs") / "plan.json")
    assert len(preprocess_dataset(dataset, workspace, workers=0).done) == 6
    job = training_job(dataset, workspace, None, "0")
    record = train(job, TrainingOptions(RunBudget(epochs=1)), float32_cpu)
    assert sorted(p.name for p in (job.run / "validation").iterdir()) == [f"{c.name}.png" for c in job.validation]
    assert record.case_dice is not None
    assert record.case_dice > 0.5

    model, _ = load_model([job.run], float32_cpu)
    cases = images_in(dataset.root / "images", 3)
    assert predict(model, (), cases, tmp_path / "masks", save_probabilities=True) == PredictReport(6, 0)
    for case in cases:
        height, width = skimage.io.imread(case.images[0]).shape[:2]
        mask = skimage.io.imread(tmp_path / "masks" / f"{case.name}.png")
        assert (mask.shape, mask.dtype) == ((height, width), np.uint8)
        assert set(np.unique(mask)) == {0, 255}
        probabilities = np.load(tmp_path / "masks" / f"{case.name}_probabilities.npy")
        assert probabilities.shape == (2, 1, height, width)
        np.testing.assert_array_equal(probabilities[1, 0] > 0.5, mask > 0)
    labels = {c.name: c.label for c in dataset.cases if c.label is not None}
    report = evaluate_label_maps(labels, tmp_path / "masks", dataset.labels, out=tmp_path / "report", workers=0)
    assert report.summary.n_cases == 6
    assert report.summary.mean_dice is not None
    assert report.summary.mean_dice > 0.5
    assert report.failures == ()


@pytest.mark.real
@pytest.mark.parametrize(("name", "n_cases", "n_channels"), [("nuclei", 120, 3), ("brain_slices_2d", 20, 1)])
def test_real_flat_datasets(real_data: Callable[[str], Path], tmp_path: Path, name: str, n_cases: int, n_channels: int) -> None:
    root, workspace = real_data(name), Workspace(tmp_path)
    dataset = open_dataset(find_dataset(str(root), []), workspace.label_values(name))
    reader = CaseReader(dataset)
    fingerprint_dataset(dataset, workspace, reader=reader).raise_if_failed()
    plan = plan_dataset(dataset, workspace, PlanOptions("cpu"))
    assert (plan.default_configuration, {c.ndim for c in plan.configurations.values()}) == ("2d", {2})
    assert len(plan.data.channels) == n_channels
    report = preprocess_dataset(dataset, workspace, reader=reader)
    assert (len(report.done), report.failures) == (n_cases, ())
