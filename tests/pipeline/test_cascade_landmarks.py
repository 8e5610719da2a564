"""Two stages for landmarks without label maps: the second is told where the first has found them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.landmark_phantoms import make_dataset, make_landmark_plan, preprocess_phantoms

from autoseg.dataset import Dataset, images_in, load_landmarks
from autoseg.imaging.image import Image
from autoseg.inference.model import Model, load_model
from autoseg.inference.predict import PredictReport, predict
from autoseg.io import read_grid, read_image, write_landmarks
from autoseg.nets.build import build_network
from autoseg.nets.device import Device
from autoseg.pipeline.cascade import cascade_of
from autoseg.pipeline.fingerprint import fingerprint_dataset
from autoseg.pipeline.preprocess import preprocess_dataset, preprocess_previous_stage
from autoseg.pipeline.training import training_job
from autoseg.pipeline.workspace import Workspace
from autoseg.plan import LandmarkPlan, Plan, save_plan
from autoseg.preprocessing.landmark_spots import mirrored_previous_classes, paint_spots
from autoseg.preprocessing.placement import Prepared
from autoseg.preprocessing.store import StoredCase, write_case
from autoseg.runs.budget import RunBudget
from autoseg.runs.job import TrainingJob
from autoseg.runs.options import TrainingOptions
from autoseg.training.sampling import PatchSampler
from autoseg.training.train import train


def two_stages(dataset: Dataset, pictures: bool) -> Plan:
    """A coarse grid, and windows that show a quarter of a case on a fine one."""
    plan = make_landmark_plan(dataset, pictures, epochs=2)
    (fine,) = plan.configurations.values()
    coarse = replace(fine, space=replace(fine.space, spacing_mm=(2.0, 2.0) if pictures else (3.0, 2.0, 2.0)))
    window = replace(fine.patch, patch_size=(16, 20) if pictures else (12, 16, 16))
    stages = "2d" if pictures else "3d"
    configurations = {
        f"{stages}_lowres": coarse,
        f"{stages}_cascade": replace(fine, previous_stage=f"{stages}_lowres", patch=window),
    }
    return replace(plan, default_configuration=f"{stages}_lowres", configurations=configurations)


@pytest.mark.parametrize("pictures", [False, True])
def test_from_the_folds_of_one_stage_to_predictions_of_the_next(
    pictures: bool, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset(tmp_path / "data", 5, pictures=pictures)
    workspace = Workspace(tmp_path / "work")
    fingerprint_dataset(dataset, workspace, workers=0).raise_if_failed()
    plan = two_stages(dataset, pictures)
    before, name = plan.configurations
    save_plan(plan, workspace.dataset_folder(dataset.name) / "plan.json")
    preprocess_dataset(dataset, workspace, configuration=before, workers=0).raise_if_failed()
    for fold in "01234":
        train(training_job(dataset, workspace, before, fold), TrainingOptions(RunBudget(epochs=2)), float32_cpu)
    preprocess_dataset(dataset, workspace, configuration=name, workers=0).raise_if_failed()
    assert preprocess_previous_stage(dataset, workspace, configuration=name, workers=0) == ()
    job = training_job(dataset, workspace, name, "0")
    _sees_what_was_found(job, workspace, before)
    record = train(job, TrainingOptions(RunBudget(epochs=2)), float32_cpu)
    assert record.mre is not None
    model, _ = load_model([job.run], float32_cpu)
    assert model.previous_stage is not None
    assert predict(model, (), images_in(tmp_path / "data" / "imagesTr", 1), tmp_path / "points") == PredictReport(5, 0)
    image: Image = read_image(dataset.cases[0].images, ("MR",))
    placed = model.predict_image(image, True).landmarks
    assert placed is not None
    monkeypatch.setattr(
        "autoseg.inference.model.paint_landmarks", lambda found, placement, before: np.zeros(placement.target.shape, np.uint8)
    )
    told_nothing = model.predict_image(image, True).landmarks
    assert told_nothing is not None
    assert not np.allclose(placed.points_mm, told_nothing.points_mm, atol=1e-3)


def _sees_what_was_found(job: TrainingJob, workspace: Workspace, before: str) -> None:
    """Spots in the last channel of a batch are those of the fold that did not learn from the case."""
    case = job.training[0]
    stored = StoredCase.open(job.prepared, case.name, job.previous_stage)
    previous = stored.previous_prediction()
    assert previous is not None
    assert set(np.unique(previous)) == {0, 1, 2, 3}
    files = list(workspace.runs(job.dataset).glob(f"{before}/fold_*/validation/{case.name}.*"))
    assert len(files) == 1
    sampler = PatchSampler([stored], job.plan.configurations[job.configuration], job.plan.data.labels, 0)
    batch = replace(sampler, landmarks=job.plan.data.landmarks).batch(0)
    assert batch.image.shape[1] == 2
    assert set(batch.image[:, 1].unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}


def test_spots_move_with_the_landmarks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turned, scaled and mirrored, each lies around its landmark; errors are made up in some patches."""
    dataset = make_dataset(tmp_path / "data", 2)
    made = two_stages(dataset, False)
    fine = made.configurations["3d_cascade"]
    fine = replace(fine, training=replace(fine.training, augmentation="default", mirror_axes=(2,)))
    job = preprocess_phantoms(
        tmp_path, dataset, replace(made, default_configuration="3d_cascade", configurations={"3d_cascade": fine})
    ).job
    case = StoredCase.open(job.prepared, "c0")
    spots = paint_spots(case.points, (3, 3, 3), case.shape)
    write_case(tmp_path / "before", "c0", Prepared(spots[None], None, case.placement), "")
    sampler = PatchSampler([StoredCase.open(job.prepared, "c0", tmp_path / "before")], fine, dataset.labels, 0)
    sampler = replace(sampler, landmarks=dataset.landmarks)
    worn = [sampler.batch(step) for step in range(12)]
    monkeypatch.setattr("autoseg.training.sampling.apply_corruptions", lambda labels, changes: labels)
    found = 0
    for step, other in enumerate(worn):
        batch = sampler.batch(step)
        for channel, points in zip(batch.image[:, 1].numpy(), batch.points.numpy()):
            for number, point in enumerate(points, start=1):
                inside = (channel == number).sum() > 20 and (point > 4).all() and (point < np.array(channel.shape) - 5).all()
                if inside:  # and so is the whole spot
                    assert np.abs(np.argwhere(channel == number).mean(0) - point).max() < 0.5
                    found += 1
        assert batch.image.shape == other.image.shape
    assert found > 10
    assert any(not torch.equal(a.image[:, 1], sampler.batch(step).image[:, 1]) for step, a in enumerate(worn))


def test_spots_have_the_size_that_the_first_stage_was_trained_for(tmp_path: Path) -> None:
    """Whatever the plan says now; and they are made again if that stage was trained anew."""
    dataset = make_dataset(tmp_path / "data", 1)
    plan = two_stages(dataset, False)
    wide = replace(plan.configurations["3d_lowres"], landmarks=LandmarkPlan((3.0, 3.0, 3.0), "spatial_ce", None))
    cascade = cascade_of(plan, "3d_cascade", tmp_path / "runs", tmp_path / "prepared")
    assert cascade is not None
    validation = tmp_path / "runs" / "3d_lowres" / "fold_0" / "validation"
    found = load_landmarks(dataset.cases[0], dataset, read_grid(dataset.cases[0].images[0]))
    write_landmarks(validation / "c0.mrk.json", found)
    stored = StoredCase.open(
        preprocess_phantoms(tmp_path, dataset, replace(plan, default_configuration="3d_cascade")).job.prepared, "c0"
    )
    keys, voxels = [], []
    for trained in (plan, replace(plan, configurations={**plan.configurations, "3d_lowres": wide})):
        save_plan(trained, validation.parent / "plan.json")
        keys.append(cascade.key(validation / "c0.mrk.json", ""))
        voxels.append(np.count_nonzero(cascade._on_grid(dataset.cases[0], validation / "c0.mrk.json", stored.placement)))
    assert keys[0] != keys[1]
    assert voxels[1] > 4 * voxels[0]


def test_a_mirror_swaps_the_sides_of_what_was_found(float32_cpu: Device, tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", 1)
    plan = two_stages(dataset, False)
    configuration = plan.configurations["3d_cascade"]
    torch.manual_seed(0)
    model = Model((build_network(plan, configuration, float32_cpu).eval(),), plan, configuration, float32_cpu)
    swapped = np.array(mirrored_previous_classes(dataset.labels, dataset.landmarks))
    assert swapped.tolist() == [0, 3, 2, 1]
    rng = np.random.default_rng(0)
    image, previous = rng.standard_normal((1, 12, 16, 16)).astype(np.float32), rng.integers(0, 4, (12, 16, 16))
    straight = model.predict_logits(image, True, previous).peaks
    turned = model.predict_logits(image[..., ::-1], True, swapped[previous][..., ::-1]).peaks
    assert straight is not None
    assert turned is not None
    points = turned.points[list(dataset.landmarks.mirror_partners)]
    points[:, 2] = 15 - points[:, 2]
    np.testing.assert_allclose(points, straight.points, atol=1e-4)
