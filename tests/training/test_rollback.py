"""Trainings that go wrong: what is taken back, how often, and what is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.runs import EPOCHS, dice, history
from helpers.tiny import Tiny
from safetensors.torch import load_file

from autoseg.errors import DataError
from autoseg.nets.device import Device
from autoseg.preprocessing.placement import Prepared
from autoseg.preprocessing.store import StoredCase, write_case
from autoseg.runs.budget import RunBudget
from autoseg.runs.history import Epoch
from autoseg.runs.options import TrainingOptions
from autoseg.training import rollback as rollback_module
from autoseg.training import step as step_module
from autoseg.training import train as train_module
from autoseg.training.checkpoint import load_state
from autoseg.training.rollback import NotFinite, has_collapsed, roll_back_to_best, roll_back_to_last
from autoseg.training.run import begin_or_resume, make_scaler
from autoseg.training.sampling import PatchSampler
from autoseg.training.schedule import learning_rate_factor
from autoseg.training.train import train


def test_not_finite_loss_names_the_cases(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = replace(tiny.configuration, training=replace(tiny.configuration.training, augmentation="none"))
    job = tiny.job(tmp_path / "run", plan=replace(tiny.plan, configurations={"3d_fullres": plain}))
    case = StoredCase.open(job.prepared, job.training[0].name)
    image, label = case.read()
    image[:] = np.inf
    write_case(tmp_path / "prepared", case.name, Prepared(image, label, case.placement), "key")
    broken = replace(job, prepared=tmp_path / "prepared", validation=())
    with pytest.raises(DataError, match=rf"case {case.name}, {case.name}: the loss is not finite.*nan at step 0"):
        train(broken, EPOCHS, float32_cpu)
    assert not (job.run / "run.json").exists()
    told = [m for m in caplog.messages if "half the learning rate" in m]
    where = f"the loss is not finite (nan at step 0, cases {case.name}, {case.name}): back to step 0"
    assert told == [f"{where}, with half the learning rate ({i} of 3)" for i in (1, 2, 3)]


@pytest.mark.parametrize(("what", "compute"), [("loss", "float32"), ("gradient", "float32"), ("loss", "float16")])
def test_rollback_halves_the_learning_rate(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str, compute: str
) -> None:
    """At the fifth step: back to the third, after which the run was saved, and on with other batches."""
    original, steps, cases = step_module.deep_supervision, [], []

    def loss(*given: Any) -> torch.Tensor:
        value = original(*given)
        steps.append(len(steps))
        if len(steps) == 5:
            value = value + (float("nan") if what == "loss" else (value - value.detach()).sqrt())  # of 0: its slope is infinite
        return value

    monkeypatch.setattr(step_module, "deep_supervision", loss)
    batch = PatchSampler.batch
    monkeypatch.setattr(PatchSampler, "batch", lambda self, step: cases.append((self.seed, step)) or batch(self, step))
    job = tiny.job(tmp_path)
    record = train(job, replace(EPOCHS, threads=0), Device(torch.device("cpu"), getattr(torch, compute)))
    assert f"the {what} is not finite" in caplog.text
    assert "back to step 3, with half the learning rate (1 of 3)" in caplog.text
    assert [step for _, step in cases] == [0, 1, 2, 3, 4, 3, 4, 5]
    assert {seed for seed, _ in cases[:5]} == {0}
    assert {seed for seed, _ in cases[5:]} == {1000003}
    assert record.steps == 6
    assert load_state(tmp_path / "last.safetensors").rollbacks == 1
    rates = [float(row["learning_rate"]) for row in history(tmp_path)]
    assert rates == pytest.approx(
        [0.01 * learning_rate_factor("cosine", 2 / 6, 0.02), 0.005 * learning_rate_factor("cosine", 5 / 6, 0.02)], rel=1e-4
    )
    assert all(bool(t.isfinite().all()) for t in load_file(tmp_path / "last.safetensors").values())


def test_rollback_restores_the_loss_scale(tiny: Tiny, tmp_path: Path) -> None:
    """To the same number of steps until it rises, and ready for gradients although the last ones were not used."""
    run = begin_or_resume(tiny.job(tmp_path), EPOCHS, Device(torch.device("cpu"), torch.float16))
    run.state = replace(run.state, loss_scale=512.0, scale_steps=7)
    run.scaler = make_scaler(run.model.device, run.state)
    run.save()
    run.scaler.scale(next(run.network.parameters()).sum()).backward()
    run.scaler.unscale_(run.optimizer)
    run.scaler.update(64.0)
    run.scaler.unscale_(run.optimizer)
    roll_back_to_last(run, NotFinite("the loss is not finite", found="nan", case="a"))
    assert (run.scaler.get_scale(), run.scaler.state_dict()["_growth_tracker"]) == (512.0, 7)
    again = load_state(tmp_path / "last.safetensors")
    assert (again.loss_scale, again.scale_steps) == (512.0, 7)
    run.scaler.scale(next(run.network.parameters()).sum()).backward()
    run.scaler.unscale_(run.optimizer)


def test_collapsed_network_goes_back_to_its_best(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scores = dice(0.5, 0.04, 0.06)
    monkeypatch.setattr(train_module, "interim_score", lambda *_: next(scores))
    saved: list[Any] = []
    monkeypatch.setattr(
        rollback_module, "log", SimpleNamespace(warning=lambda *_: saved.append(load_file(tmp_path / "last.safetensors")))
    )
    record = train(tiny.job(tmp_path), TrainingOptions(RunBudget(epochs=3)), float32_cpu)
    assert (record.steps, record.stopped) == (9, None)
    best = load_file(tmp_path / "best.safetensors")
    assert len(saved) == 1
    assert not any(name.startswith("optimizer/") for name in saved[0])
    for name, weights in best.items():
        assert torch.equal(saved[0][name], weights)
        assert torch.equal(saved[0][name.replace("ema/", "network/")], weights)
    assert load_state(tmp_path / "last.safetensors").rollbacks == 1


def test_repeated_collapse_is_an_error(tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = dice(0.5, 0.0, 0.0, 0.0, 0.0)
    monkeypatch.setattr(train_module, "interim_score", lambda *_: next(scores))
    message = r"come to predict background only; .*fallen from 0\.500 to 0\.000 at step 15, after 3 attempts.*; fix: a lower"
    with pytest.raises(DataError, match=message):
        train(tiny.job(tmp_path), TrainingOptions(RunBudget(epochs=6)), float32_cpu)


def test_untrained_network_has_not_collapsed(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = dice(0.05, 0.0, None)
    monkeypatch.setattr(train_module, "interim_score", lambda *_: next(scores))
    train(tiny.job(tmp_path), TrainingOptions(RunBudget(epochs=3)), float32_cpu)
    assert load_state(tmp_path / "last.safetensors").rollbacks == 0


@pytest.mark.parametrize(
    ("errors", "collapses"),
    [
        ([2.0, 0.5, 9.0, 0.5], 0),  # of a patch of 24×32×32 mm, the diagonal of which is 51 mm, a quarter is 12.8
        ([2.0, 0.5, 14.0, 0.5], 1),
        ([20.0, 40.0], 0),
        ([8.0, 14.0], 0),
    ],
)
def test_collapse_of_landmarks(tiny: Tiny, float32_cpu: Device, tmp_path: Path, errors: list[float], collapses: int) -> None:
    """A large error that is ten times the best one, and no smaller one."""
    run = begin_or_resume(tiny.job(tmp_path), TrainingOptions(RunBudget(epochs=4)), float32_cpu)
    found = 0
    for mre in errors:
        row = Epoch(1, 1, 1.0, 1e-3, 0.5, None, 0.1, 0.0, None, mre)
        found += has_collapsed(run, row)
        run.state = replace(run.state, best=max(run.state.best or -1e9, -mre))
    assert found == collapses


def test_repeated_collapse_of_landmarks_is_an_error(tiny: Tiny, float32_cpu: Device, tmp_path: Path) -> None:
    run = begin_or_resume(tiny.job(tmp_path), TrainingOptions(RunBudget(epochs=4)), float32_cpu)
    run.state = replace(run.state, best=-0.25, rollbacks=3)
    with pytest.raises(DataError, match=r"find landmarks no better than by chance; .*has risen from 0\.25 to 30 mm at step 0"):
        roll_back_to_best(run, Epoch(1, 1, 1.0, 1e-3, 0.5, None, 0.1, 0.0, None, 30.0))
