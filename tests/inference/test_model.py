"""Models: folds are averaged, slices go through 2D networks, and a GPU predicts what a CPU does."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.runs import dice, interrupt_at
from helpers.tiny import Tiny, TinyRuns
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from autoseg.errors import DataError, PlanError, UsageError
from autoseg.inference.model import Model, load_model
from autoseg.inference.sliding_window import predict_volume
from autoseg.nets.build import build_network
from autoseg.nets.device import Device
from autoseg.nets.weights import AVERAGED
from autoseg.plan import Configuration, Plan, save_plan
from autoseg.preprocessing.store import StoredCase
from autoseg.runs.budget import RunBudget
from autoseg.runs.options import TrainingOptions
from autoseg.system.files import write_text
from autoseg.system.records import to_json
from autoseg.training import train as train_module
from autoseg.training.train import train


def prepared_image(tiny: Tiny, run: Path) -> np.ndarray:
    job = tiny.job(run)
    return StoredCase.open(job.prepared, job.validation[0].name).read()[0]


def with_plan(run: Path, to: Path, plan: Plan) -> Path:
    """A copy of a run that claims to follow another plan."""
    shutil.copytree(run, to)
    save_plan(plan, to / "plan.json")
    return to


def test_logits_are_those_of_the_sliding_window(tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path) -> None:
    model, records = load_model(tiny_runs.runs[:1], float32_cpu)
    assert records == tiny_runs.records[:1]
    assert not model.networks[0].training
    image = prepared_image(tiny, tmp_path)
    logits = model.logits(image, mirror=False)
    assert logits.shape == (5, *image.shape[1:])
    assert (logits.dtype, image.dtype) == (np.float32, np.float16)
    volume = torch.from_numpy(image.astype(np.float32))
    expected = predict_volume(
        volume,
        lambda b: model.networks[0](b).logits[0].detach(),
        window=(8, 16, 16),
        n_outputs=5,
        overlap=0.5,
        batch_size=2,
    )
    np.testing.assert_array_equal(logits, expected.numpy())


def test_structures_that_no_case_contains_are_never_predicted(tiny: Tiny, float32_cpu: Device, tmp_path: Path) -> None:
    torch.manual_seed(0)
    image = prepared_image(tiny, tmp_path)
    network = build_network(tiny.plan, tiny.configuration, float32_cpu).eval()
    with torch.no_grad():
        network.heads[-1].bias[:] = torch.tensor([0.0, 50.0, 0.0, 60.0, 0.0])  # left kidney, and left stone even more
    usual = Model((network,), tiny.plan, tiny.configuration, float32_cpu)
    assert set(np.unique(usual.logits(image, mirror=False).argmax(0))) == {3}
    unseen = replace(tiny.plan, data=replace(tiny.plan.data, unseen=("left stone", "right stone")))
    never = Model((network,), unseen, tiny.configuration, float32_cpu)
    assert set(np.unique(never.logits(image, mirror=False).argmax(0))) == {1}


def test_mirroring_swaps_the_kidneys(tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path) -> None:
    """A mirrored patient has its sides exchanged."""
    assert 2 in tiny.configuration.inference.mirror_axes
    model, _ = load_model(tiny_runs.runs[:1], float32_cpu)
    image = prepared_image(tiny, tmp_path)[:, :8, :16, :16]  # one window, so that mirroring moves no window
    logits = model.logits(image, mirror=True)
    other_way = model.logits(np.ascontiguousarray(image[..., ::-1]), mirror=True)
    np.testing.assert_allclose(other_way[[0, 2, 1, 4, 3]][..., ::-1], logits, atol=1e-4)
    assert np.abs(model.logits(image, mirror=False) - logits).max() > 1e-3


def test_folds_are_averaged(tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path) -> None:
    image = prepared_image(tiny, tmp_path)
    both, records = load_model(tiny_runs.runs, float32_cpu)
    assert [r.fold for r in records] == ["0", "1"]
    single = [load_model([run], float32_cpu)[0].logits(image, mirror=False) for run in tiny_runs.runs]
    assert np.abs(single[0] - single[1]).max() > 1e-3
    np.testing.assert_allclose(both.logits(image, mirror=False), np.mean(single, axis=0), atol=1e-4)


def two_dimensional(configuration: Configuration, axis: int) -> Configuration:
    """Of slices across an axis."""
    network = replace(configuration.network, strides=((1, 1), (2, 2), (2, 2)), kernel_sizes=((3, 3),) * 3)
    space = replace(configuration.space, spacing_mm=(2.0, 2.0), slice_axis=axis)
    return replace(configuration, network=network, space=space, patch=replace(configuration.patch, patch_size=(16, 16)))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_2d_network_sees_slices(tiny: Tiny, float32_cpu: Device, axis: int) -> None:
    configuration = two_dimensional(tiny.configuration, axis)
    torch.manual_seed(0)
    network = build_network(tiny.plan, configuration, float32_cpu).eval()
    image = np.moveaxis(np.random.default_rng(0).standard_normal((1, 3, 24, 20)).astype(np.float32), 1, 1 + axis)
    logits = Model((network,), tiny.plan, configuration, float32_cpu).logits(image, mirror=False)
    assert logits.shape == (5, *image.shape[1:])
    second = (slice(None), *(slice(1, 2) if a == axis else slice(None) for a in range(3)))
    alone = Model((network,), tiny.plan, configuration, float32_cpu).logits(image[second], mirror=False)
    np.testing.assert_allclose(logits[second], alone, atol=1e-5)


def test_a_3d_network_may_have_a_patch_of_one_slice(tiny: Tiny, float32_cpu: Device) -> None:
    configuration = replace(tiny.configuration, patch=replace(tiny.configuration.patch, patch_size=(1, 16, 16)))
    configuration = replace(configuration, network=replace(configuration.network, strides=((1, 1, 1), (1, 2, 2), (1, 2, 2))))
    network = build_network(tiny.plan, configuration, float32_cpu).eval()
    image = np.zeros((1, 2, 20, 20), dtype=np.float32)
    assert Model((network,), tiny.plan, configuration, float32_cpu).logits(image, mirror=True).shape == (5, 2, 20, 20)


@pytest.mark.parametrize("scored", [True, False])
def test_an_interrupted_training_predicts_with_its_best_weights(
    scored: bool,
    tiny: Tiny,
    float32_cpu: Device,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = tmp_path / "fold_0"
    monkeypatch.setattr(train_module, "interim_score", lambda *_: next(scores))
    scores = dice(0.5, 0.25) if scored else dice(None, None)
    interrupt_at(monkeypatch, 8)
    with pytest.raises(KeyboardInterrupt):
        train(tiny.job(run), TrainingOptions(RunBudget(epochs=4)), float32_cpu)
    model, (record,) = load_model([run], float32_cpu)
    assert (record.finished, record.steps, record.case_dice) == (False, 6, 0.5 if scored else None)
    text = "Dice 0.5000" if scored else "Dice --"
    assert caplog.messages[-1] == (
        f"note: {run} has not finished: predicting with its best weights so far ({text} of 0 cases during the training)"
    )
    weights = load_file(run / ("best.safetensors" if scored else "last.safetensors"))
    assert all(torch.equal(weights[f"{AVERAGED}{k}"], v) for k, v in model.networks[0].state_dict().items())


def test_a_folder_without_a_run_is_no_model(float32_cpu: Device, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no trained model"):
        load_model([tmp_path], float32_cpu)


def test_folds_of_different_plans_are_not_averaged(tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path) -> None:
    name, configuration = tiny.plan.configuration(None)
    coarse = replace(configuration, space=replace(configuration.space, spacing_mm=(3.0, 3.0, 3.0)))
    coarse_run = with_plan(tiny_runs.runs[1], tmp_path / "fold_1", replace(tiny.plan, configurations={name: coarse}))
    with pytest.raises(PlanError, match="different plans"):
        load_model([tiny_runs.runs[0], coarse_run], float32_cpu)
    reworded = replace(tiny.plan, configurations={name: replace(configuration, why={})})
    same = with_plan(tiny_runs.runs[1], tmp_path / "fold_2", reworded)
    assert len(load_model([tiny_runs.runs[0], same], float32_cpu)[0].networks) == 2


def test_weights_of_another_network_are_refused(tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path) -> None:
    name, configuration = tiny.plan.configuration(None)
    wide = replace(configuration, network=replace(configuration.network, features=(4, 8, 16)))
    run = with_plan(tiny_runs.runs[0], tmp_path / "fold_0", replace(tiny.plan, configurations={name: wide}))
    with pytest.raises(PlanError, match=r"another network.*encoder\.2"):
        load_model([run], float32_cpu)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16, torch.float16])
def test_a_gpu_trains_and_predicts_what_a_cpu_does(tiny: Tiny, float32_cpu: Device, tmp_path: Path, compute: torch.dtype) -> None:
    gpu = Device(torch.device("cuda"), compute)
    record = train(tiny.job(tmp_path / "run"), TrainingOptions(RunBudget(epochs=2)), gpu)
    assert record.finished
    assert load_model([tmp_path / "run"], gpu)[0].networks[0].encoder[0][0][0].weight.is_cuda
    image = prepared_image(tiny, tmp_path / "run")
    gpu_logits, cpu_logits = (
        load_model([tmp_path / "run"], device)[0].logits(image, mirror=True) for device in (gpu, float32_cpu)
    )
    tolerance = 2e-3 if compute == torch.float32 else 5e-2  # of the largest logit; convolutions on a GPU may run in TF32
    np.testing.assert_allclose(gpu_logits, cpu_logits, atol=tolerance * float(np.abs(cpu_logits).max()))


def test_a_model_of_no_step_is_refused(tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path) -> None:
    """As earlier versions left one where the start took all the time."""
    shutil.copytree(tiny_runs.runs[0], tmp_path / "fold_0")
    write_text(tmp_path / "fold_0" / "run.json", to_json(replace(tiny_runs.records[0], steps=0)))
    with pytest.raises(UsageError, match=r"no step was trained of this model; file: .*fold_0; fix: autoseg train --restart"):
        load_model([tmp_path / "fold_0"], float32_cpu)


@pytest.mark.parametrize("damage", ["nan", "inf", "int64"])
def test_weights_that_are_no_finite_numbers_are_refused(
    tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path, damage: str
) -> None:
    """One is enough to make everything background."""
    shutil.copytree(tiny_runs.runs[0], tmp_path / "fold_0")
    path = tmp_path / "fold_0" / "last.safetensors"
    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    name = next(k for k in tensors if k.startswith(AVERAGED) and k.endswith("weight"))
    if damage == "int64":
        tensors[name] = tensors[name].to(torch.int64)
    else:
        tensors[name].view(-1)[0] = float(damage)
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(DataError, match=r"the weights are no finite numbers, .*found: .*weight: torch\.(float32|int64)"):
        load_model([tmp_path / "fold_0"], float32_cpu)
