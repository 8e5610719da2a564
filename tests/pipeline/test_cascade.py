"""Two stages, from the first one's folds to a prediction, and what is said when a fold is missing."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny import Tiny
from typer.testing import CliRunner

from autoseg.cli import app
from autoseg.dataset import images_in
from autoseg.errors import PlanError, UsageError
from autoseg.imaging.geometry import Box
from autoseg.imaging.image import Image
from autoseg.imaging.labels import LabelSet
from autoseg.inference.model import Model, load_model
from autoseg.inference.predict import PredictReport, predict
from autoseg.io import read_image, read_label_map, write_label_map
from autoseg.nets.build import build_network
from autoseg.nets.device import Device
from autoseg.pipeline.cascade import Cascade, cascade_of
from autoseg.pipeline.preprocess import preprocess_dataset, preprocess_previous_stage
from autoseg.pipeline.training import training_job
from autoseg.pipeline.workspace import Workspace
from autoseg.plan import Plan, load_plan, save_plan
from autoseg.preprocessing.store import StoredCase, stored_names
from autoseg.runs.budget import RunBudget
from autoseg.runs.options import TrainingOptions
from autoseg.splits.folds import load_folds, save_folds
from autoseg.system.workers import read_failures
from autoseg.training import sampling
from autoseg.training.sampling import PatchSampler
from autoseg.training.train import train

NAMES = ["phantom_000", "phantom_001", "phantom_002", "phantom_003", "phantom_004"]


def cascaded(plan: Plan) -> Plan:
    fine = plan.configurations["3d_fullres"]
    coarse = replace(fine, space=replace(fine.space, spacing_mm=(3.0, 4.0, 4.0)))
    configurations = {"3d_fullres": fine, "3d_lowres": coarse, "3d_cascade": replace(fine, previous_stage="3d_lowres")}
    return replace(plan, configurations=configurations)


@pytest.fixture(scope="module")
def workspace(tiny: Tiny, float32_cpu: Device, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """All folds of the first stage, trained for a moment."""
    workspace = Workspace(tmp_path_factory.mktemp("cascade"))
    shutil.copytree(tiny.workspace.dataset_folder(tiny.dataset.name), workspace.dataset_folder(tiny.dataset.name))
    save_plan(cascaded(tiny.plan), workspace.dataset_folder(tiny.dataset.name) / "plan.json")
    preprocess_dataset(tiny.dataset, workspace, configuration="3d_lowres", workers=0).raise_if_failed()
    for fold in "01234":
        train(training_job(tiny.dataset, workspace, "3d_lowres", fold), TrainingOptions(RunBudget(epochs=1)), float32_cpu)
    preprocess_dataset(tiny.dataset, workspace, configuration="3d_cascade", workers=0).raise_if_failed()
    assert preprocess_previous_stage(tiny.dataset, workspace, configuration="3d_cascade", workers=0) == ()
    return workspace


def cascade(tiny: Tiny, workspace: Workspace) -> Cascade:
    plan = load_plan(workspace.dataset_folder(tiny.dataset.name) / "plan.json")
    found = cascade_of(plan, "3d_cascade", workspace.runs(tiny.dataset.name), workspace.prepared(tiny.dataset.name))
    assert found is not None
    return found


def test_a_single_stage_is_no_cascade(tiny: Tiny, workspace: Workspace) -> None:
    assert cascade_of(cascaded(tiny.plan), "3d_lowres", Path("runs"), Path("prepared")) is None
    preprocess_previous_stage(tiny.dataset, workspace, configuration="3d_lowres", workers=0)  # nothing to do


def test_each_case_has_the_label_map_of_the_fold_that_did_not_learn_from_it(tiny: Tiny, workspace: Workspace) -> None:
    found = cascade(tiny, workspace)
    folds = load_folds(workspace.dataset_folder(tiny.dataset.name) / "splits.json")
    points = found.runs / "fold_0" / "validation" / f"{NAMES[0]}.mrk.json"  # beside label maps lie landmarks, if there are any
    points.touch()
    maps = found.predictions(folds)
    points.unlink()
    assert sorted(maps) == NAMES
    for fold in "01234":
        assert {maps[name].parent.parent.name for name in folds.validation_cases(fold)} == {f"fold_{fold}"}
    assert stored_names(found.folder) == tuple(NAMES)
    case = StoredCase.open(found.prepared, NAMES[0], found.folder)
    previous = case.previous_prediction()
    assert previous is not None
    assert previous.shape == case.shape
    # brought home to the label map's own grid, which has finer pixels, most voxels are what the file says
    y, x = (np.arange(n) * case.shape[i] // n for i, n in ((1, case.placement.crop.shape[1]), (2, case.placement.crop.shape[2])))
    values = read_label_map(maps[NAMES[0]], tiny.dataset.labels).data[case.placement.crop.slices]
    assert np.mean(previous[:, y][:, :, x] == values) > 0.8


def test_label_maps_are_prepared_again_when_a_prediction_has_changed(tiny: Tiny, workspace: Workspace, tmp_path: Path) -> None:
    copy = Workspace(tmp_path / "work")
    shutil.copytree(workspace.root, copy.root)
    found = cascade(tiny, copy)
    stamps = {p.name: p.stat().st_mtime_ns for p in found.folder.glob("*.json")}
    preprocess_previous_stage(tiny.dataset, copy, configuration="3d_cascade", workers=0)
    assert {p.name: p.stat().st_mtime_ns for p in found.folder.glob("*.json")} == stamps
    folds = load_folds(copy.dataset_folder(tiny.dataset.name) / "splits.json")
    path = found.predictions(folds)[NAMES[2]]
    label_map = read_label_map(path, tiny.dataset.labels)
    write_label_map(path, replace(label_map, data=np.full_like(label_map.data, 2)), like=path)
    assert NAMES[2] not in {c.name for c in training_job(tiny.dataset, copy, "3d_cascade", "all").training}
    (found.folder / "gone.json").write_text("{}")
    preprocess_previous_stage(tiny.dataset, copy, configuration="3d_cascade", workers=0)
    assert {n for n, t in stamps.items() if (found.folder / n).stat().st_mtime_ns != t} == {f"{NAMES[2]}.json"}
    previous = StoredCase.open(found.prepared, NAMES[2], found.folder).previous_prediction()
    assert previous is not None
    assert (previous == 2).all()
    assert stored_names(found.folder) == tuple(NAMES)
    z, y, x = label_map.data.shape
    grid = label_map.grid.crop(Box((0, 0, 0), (z - 1, y, x)))
    write_label_map(path, replace(label_map, data=label_map.data[:-1], grid=grid), like=path)
    failures = preprocess_previous_stage(tiny.dataset, copy, configuration="3d_cascade", workers=0)
    assert [f.case for f in failures] == [NAMES[2]]
    assert "has another shape than the case" in failures[0].reason


def test_the_list_of_failures_follows_each_call(tiny: Tiny, workspace: Workspace, tmp_path: Path) -> None:
    copy = Workspace(tmp_path / "work")
    shutil.copytree(workspace.root, copy.root)
    path = cascade(tiny, copy).predictions(load_folds(copy.dataset_folder(tiny.dataset.name) / "splits.json"))[NAMES[2]]
    whole = path.read_bytes()
    label_map = read_label_map(path, tiny.dataset.labels)
    z, y, x = label_map.data.shape
    grid = label_map.grid.crop(Box((0, 0, 0), (z - 1, y, x)))
    write_label_map(path, replace(label_map, data=label_map.data[:-1], grid=grid), like=path)

    def trained(configuration: str) -> tuple[int, list[tuple[str, str]]]:
        words = ["train", "-d", str(tiny.data), "--root", str(copy.root), "-c", configuration, "-f", "0", "--epochs", "1"]
        code = CliRunner().invoke(app, [*words, "--device", "cpu"], catch_exceptions=False).exit_code
        return code, [(f.case, f.stage) for f in read_failures(copy.dataset_folder(tiny.dataset.name) / "failed.csv")]

    row = (NAMES[2], "prepare 3d_lowres for 3d_cascade")
    assert trained("3d_cascade") == (4, [row])
    assert trained("3d_cascade") == (4, [row])
    assert trained("3d_lowres") == (0, [row])  # which knows nothing of the other stage
    path.write_bytes(whole)
    assert trained("3d_cascade") == (0, [])


def test_folds_and_cases_that_are_missing_are_named(
    tiny: Tiny, workspace: Workspace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = Workspace(tmp_path / "work")
    shutil.copytree(workspace.root, copy.root)
    runs = copy.runs(tiny.dataset.name) / "3d_lowres"
    folds = load_folds(copy.dataset_folder(tiny.dataset.name) / "splits.json")
    for path in (runs / "fold_1" / "validation").glob("*"):
        path.unlink()
    (name,) = folds.validation_cases("1")
    preprocess_previous_stage(tiny.dataset, copy, configuration="3d_cascade", workers=0)
    assert f"left out of 3d_cascade: 1 case that no fold of 3d_lowres was validated on, {name}; autoseg train" in caplog.text
    assert {c.name for c in training_job(tiny.dataset, copy, "3d_cascade", "all").training} == set(NAMES) - {name}
    assert "are not prepared" not in caplog.text
    held_out = replace(folds, validation=folds.validation[:2], training_only=tuple(sorted(NAMES[2:])))
    save_folds(
        replace(held_out, validation=(tuple(NAMES[:1]), tuple(NAMES[1:2]))),
        copy.dataset_folder(tiny.dataset.name) / "splits.json",
    )
    caplog.clear()
    preprocess_previous_stage(tiny.dataset, copy, configuration="3d_cascade", workers=0)
    assert "left out of 3d_cascade: 4 cases that no fold" in caplog.text
    save_folds(folds, copy.dataset_folder(tiny.dataset.name) / "splits.json")
    for path in runs.glob("fold_*/validation/*"):
        path.unlink()
    with pytest.raises(UsageError, match=r"3d_lowres was not validated on any case; .*--restart with a larger --time"):
        training_job(tiny.dataset, copy, "3d_cascade", "0")
    (runs / "fold_1" / "run.json").unlink()
    (runs / "fold_3" / "run.json").unlink()
    with pytest.raises(
        UsageError, match=r"all of its folds come first.*not finished: fold 1, fold 3; fix: autoseg train -c 3d_lowres -f 1"
    ):
        preprocess_previous_stage(tiny.dataset, copy, configuration="3d_cascade", workers=0)


def test_the_sampler_shows_what_the_stage_before_said(tiny: Tiny, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    found = cascade(tiny, workspace)
    case = StoredCase.open(found.prepared, NAMES[1], found.folder)
    configuration = found.plan.configurations["3d_cascade"]
    plain = replace(configuration, training=replace(configuration.training, augmentation="none", mirror_axes=()))
    batch = PatchSampler([case], plain, found.plan.data.labels, 0).batch(0)
    assert batch.image.shape == (2, 2, 8, 16, 16)
    previous = case.previous_prediction()
    assert previous is not None
    windows = np.lib.stride_tricks.sliding_window_view(previous, (8, 16, 16)).reshape(-1, 8 * 16 * 16)
    for shown in batch.image[:, 1].flatten(1).numpy():
        assert (windows == shown).all(axis=1).any()
    sampler = PatchSampler([case], configuration, found.plan.data.labels, 0)
    worn = [sampler.batch(step) for step in range(20)]
    assert {int(v) for batch in worn for v in batch.image[:, 1].unique()} <= {0, 1, 2, 3, 4}
    monkeypatch.setattr(sampling, "apply_corruptions", lambda labels, changes: labels)
    as_said = [sampler.batch(step) for step in range(20)]
    for a, b in zip(worn, as_said):
        assert torch.equal(a.image[:, 0], b.image[:, 0])
        assert torch.equal(a.label, b.label)
    patches = zip(*(torch.cat([batch.image[:, 1] for batch in batches]) for batches in (worn, as_said)))
    changed = sum(not torch.equal(a, b) for a, b in patches)
    assert 0 < changed < 40  # errors in some patches, not in all: see `draw_corruptions`


def test_a_mirror_swaps_the_sides_of_the_stage_before(tiny: Tiny, float32_cpu: Device) -> None:
    plan = cascaded(tiny.plan)
    configuration = plan.configurations["3d_cascade"]
    network = build_network(plan, configuration, float32_cpu).eval()
    model = Model((network,), plan, configuration, float32_cpu)
    labels = tiny.dataset.labels
    assert labels.mirror_partners != tuple(range(5))  # the phantoms have a left and a right
    rng = np.random.default_rng(0)
    image = rng.standard_normal((1, 8, 16, 16)).astype(np.float32)
    previous = rng.integers(0, 5, (8, 16, 16)).astype(np.uint8)
    straight = model.logits(image, True, previous)
    swapped = np.array(labels.mirror_partners, dtype=np.uint8)[previous[..., ::-1]]
    turned = model.logits(image[..., ::-1], True, swapped)
    np.testing.assert_allclose(turned[..., ::-1][list(labels.mirror_partners)], straight, atol=1e-5)


def test_training_and_prediction(tiny: Tiny, workspace: Workspace, float32_cpu: Device, tmp_path: Path) -> None:
    job = training_job(tiny.dataset, workspace, "3d_cascade", "0")
    assert (len(job.training), len(job.validation), job.prepared.name) == (4, 1, "3d_fullres")
    record = train(job, TrainingOptions(RunBudget(epochs=1)), float32_cpu)
    assert record.case_dice is not None
    model, _ = load_model([job.run], float32_cpu)
    assert model.previous_stage is not None
    assert len(model.previous_stage.networks) == 5
    cases = images_in(tiny.data / "imagesTs", 1)
    assert predict(model, (), cases, tmp_path / "masks") == PredictReport(2, 0)
    image: Image = read_image(cases[0].images, ("MR",))
    labels: LabelSet = tiny.dataset.labels
    written = read_label_map(next((tmp_path / "masks").glob(f"{cases[0].name}*")), labels)
    assert np.array_equal(written.data, model.predict_image(image, True).labels)
    # the second stage listens to the first: another first stage, another answer
    prepared = StoredCase.open(job.prepared, NAMES[0], job.previous_stage)
    voxels, _ = prepared.read()
    nothing = model.logits(voxels, False, np.zeros(prepared.shape, np.uint8))
    everything = model.logits(voxels, False, np.ones(prepared.shape, np.uint8))
    assert np.abs(nothing - everything).max() > 1e-3


def test_the_stage_before_must_be_there_and_of_the_same_data(
    tiny: Tiny, workspace: Workspace, float32_cpu: Device, tmp_path: Path
) -> None:
    job = training_job(tiny.dataset, workspace, "3d_cascade", "0")
    train(job, TrainingOptions(RunBudget(epochs=1)), float32_cpu)
    alone = tmp_path / "3d_cascade" / "fold_0"
    shutil.copytree(job.run, alone)
    with pytest.raises(UsageError, match=r"no model in this folder; file: .*3d_lowres"):
        load_model([alone], float32_cpu)
    before = tmp_path / "3d_lowres" / "fold_0"
    shutil.copytree(workspace.run(tiny.dataset.name, "3d_lowres", "0"), before)
    assert load_model([alone], float32_cpu)[0].previous_stage is not None
    plan = load_plan(before / "plan.json")
    save_plan(replace(plan, data=replace(plan.data, unseen=("left stone",))), before / "plan.json")
    with pytest.raises(PlanError, match=r"3d_lowres was trained on other data; file: .*fold_0; fix: train it again"):
        load_model([alone], float32_cpu)
