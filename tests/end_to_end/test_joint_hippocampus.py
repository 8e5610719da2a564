"""Label maps and landmarks of the hippocampus, learnt together in one run, from the dataset to both kinds of files and scores."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from autoseg.cli import app
from autoseg.dataset import Dataset, load_landmarks
from autoseg.fingerprint.dataset import load_fingerprint
from autoseg.imaging.geometry import Grid
from autoseg.imaging.image import LabelMap
from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import NO_LANDMARKS, State
from autoseg.inference.model import Model
from autoseg.io import read_grid
from autoseg.nets.build import build_network
from autoseg.nets.device import Device
from autoseg.pipeline.preprocess import preprocess_dataset
from autoseg.pipeline.training import training_job
from autoseg.pipeline.workspace import Workspace
from autoseg.plan import NetworkPlan, Plan, load_plan, save_plan
from autoseg.preprocessing.store import StoredCase
from autoseg.runs.job import TrainingJob
from autoseg.runs.options import TrainingOptions
from autoseg.runs.record import RunRecord
from autoseg.training.checkpoint import load_state
from autoseg.training.train import train
from autoseg.training.validation import case_scores

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
try:
    from _joint_dataset import make_joint_dataset, mean_position_mre, structure_landmarks
finally:
    sys.path.pop(0)

WORSE = 0.02  # Dice that training both may cost
FLOOR = 0.6  # Dice that a network cannot have by chance; the test holds an untrained one against it


@dataclass(frozen=True)
class Joint:
    dataset: Dataset
    workspace: Workspace
    plan: Plan
    job: TrainingJob
    record: RunRecord

    @property
    def mean_position_mre(self) -> float:
        facts = load_fingerprint(self.workspace.dataset_folder(self.dataset.name) / "fingerprint.json").cases
        return mean_position_mre(facts, {c.name for c in self.job.training}, {c.name for c in self.job.validation})

    @property
    def judged(self) -> list[StoredCase]:
        return [StoredCase.open(self.job.prepared, c.name) for c in self.job.validation]


def autoseg(*words: str) -> str:
    result = CliRunner().invoke(app, [*words, "-q"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def small(plan: Plan) -> Plan:
    """The planner's plan, but for voxels of 2 mm, an eighth as many, a small network and a short training."""
    name, whole = plan.configuration(None)
    assert whole.landmarks is not None
    ones, twos, threes = (1,) * 3, (2,) * 3, (3,) * 3
    chosen = replace(
        whole,
        space=replace(whole.space, spacing_mm=(2.0, 2.0, 2.0)),
        patch=replace(whole.patch, patch_size=(20, 28, 20), batch_size=4),
        network=NetworkPlan("plain_unet", (12, 24, 32), (ones, twos, twos), (threes,) * 3, (1, 2, 2), (1, 1), True),
        landmarks=replace(whole.landmarks, sigma_mm=(3.0, 3.0, 3.0), scn=None),
        training=replace(whole.training, epochs=3, steps_per_epoch=100, learning_rate=0.01, ema_decay=0.95),
        footprint=None,
    )
    return replace(plan, ladder=(), configurations={name: chosen})


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory, real_data: Callable[[str], Path], float32_cpu: Device) -> Joint:
    """24 cases, planned by the command, trained on fold 0."""
    source = real_data("Task04_Hippocampus")
    root = tmp_path_factory.mktemp("joint")
    dataset, workspace = make_joint_dataset(source, root / source.name, 24), Workspace(root / "work")
    where = ("-d", str(dataset.root), "--root", str(workspace.root))
    autoseg("plan_and_preprocess", *where, "--device", "cpu", "--workers", "0")
    file = workspace.dataset_folder(dataset.name) / "plan.json"
    plan = small(load_plan(file))
    save_plan(plan, file)
    preprocess_dataset(dataset, workspace, workers=0).raise_if_failed()
    job = training_job(dataset, workspace, None, "0")
    return Joint(dataset, workspace, plan, job, train(job, TrainingOptions(), float32_cpu))


def test_ends_of_a_bar_by_hand() -> None:
    """A bar along y of 2 mm slices, drawn on axes in another order and reversed."""
    data = np.zeros((12, 5, 7), dtype=np.uint8)  # y from back to front, x, z
    data[2:9, 2, 3] = 1
    affine = np.array([[0, 1, 0, 10], [-2, 0, 0, 50], [0, 0, 1, -3], [0, 0, 0, 1]], dtype=float)
    found = structure_landmarks(LabelMap(data, Grid((12, 5, 7), affine), LabelSet(("bar", "none"), (1, 2))))
    assert found.names == ("bar centre", "bar front", "bar back", "none centre", "none front", "none back")
    assert found.points_mm[:3] == pytest.approx(np.array([[12, 40, 0], [12, 34, 0], [12, 46, 0]]))
    assert found.state.tolist() == [State.PRESENT] * 3 + [State.ABSENT] * 3


@pytest.mark.real
@pytest.mark.slow
def test_the_dataset_has_both(joint: Joint) -> None:
    assert joint.plan.task == "segmentation and landmarks"
    assert joint.dataset.labels.names == ("Anterior", "Posterior")
    assert (len(joint.job.training), len(joint.job.validation)) == (19, 5)
    for case in joint.dataset.cases:
        assert case.label is not None
        found = load_landmarks(case, joint.dataset, read_grid(case.images[0]))
        assert found.present.all()
        ends = found.points_mm.reshape(2, 3, 3)
        assert (ends[:, 1, 1] < ends[:, 0, 1]).all()  # the front lies before the centre, the back behind it
        assert (ends[:, 0, 1] < ends[:, 2, 1]).all()


@pytest.mark.real
@pytest.mark.slow
def test_both_heads_have_learnt(joint: Joint, float32_cpu: Device) -> None:
    record = joint.record
    assert record.case_dice is not None
    assert record.mre is not None
    assert min(d for d in record.structure_dice.values() if d is not None) > FLOOR
    assert record.mre < joint.mean_position_mre
    network = build_network(joint.plan, joint.plan.configuration(None)[1], float32_cpu).eval()
    untrained = case_scores(Model((network,), joint.plan, joint.plan.configuration(None)[1], float32_cpu), joint.judged)
    assert untrained.dice is not None
    assert untrained.mre is not None
    assert untrained.dice < FLOOR / 2
    assert untrained.mre > 2 * joint.mean_position_mre
    assert load_state(joint.job.run / "last.safetensors").best == pytest.approx(record.case_dice, abs=0.1)  # Dice decides


@pytest.mark.real
@pytest.mark.slow
def test_label_maps_are_as_good_as_without_landmarks(joint: Joint, float32_cpu: Device, tmp_path: Path) -> None:
    """The same cases, steps and seed."""
    name, both = joint.plan.configuration(None)
    data = replace(joint.plan.data, landmarks=NO_LANDMARKS)
    plan = replace(joint.plan, ladder=(), task="segmentation", data=data, configurations={name: replace(both, landmarks=None)})
    alone = train(replace(joint.job, plan=plan, run=tmp_path / "run"), TrainingOptions(), float32_cpu)
    assert alone.steps == joint.record.steps
    assert alone.case_dice is not None
    assert joint.record.case_dice is not None
    assert joint.record.case_dice > alone.case_dice - WORSE


@pytest.mark.real
@pytest.mark.slow
def test_predictions_of_both_are_written_and_scored(joint: Joint, tmp_path: Path) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    for case in joint.job.validation:
        (images / case.images[0].name).symlink_to(case.images[0].resolve())
    autoseg("predict", "-m", str(joint.job.run), "-i", str(images), "-o", str(masks), "--device", "cpu")
    names = [c.name for c in joint.job.validation]
    written = {f"{n}{e}" for n in names for e in (".nii.gz", ".mrk.json")}
    assert {p.name for p in masks.iterdir()} == {"landmarks.csv", "predicted.jsonl", *written}
    where = ("-d", str(joint.dataset.root), "--root", str(joint.workspace.root))
    report = json.loads(autoseg("evaluate", "-p", str(masks), "-o", str(tmp_path / "report"), *where, "--json"))
    maps, points = report["label_maps"]["summary"], report["landmarks"]["summary"]
    assert (maps["n_cases"], points["n_cases"]) == (5, 5)
    assert joint.record.case_dice is not None
    assert maps["mean_dice"] > joint.record.case_dice - 0.02  # which is that before component rules
    assert points["mean_macro"]["value"] == pytest.approx(joint.record.mre, abs=0.1)
    assert [p["landmark"] for p in points["landmarks"]] == list(joint.dataset.landmarks.names)
