"""A training step: what it changes, and what it leaves alone where it fails."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.tiny import Tiny

from autoseg.nets.device import Device
from autoseg.preprocessing.store import StoredCase
from autoseg.runs.budget import RunBudget
from autoseg.runs.options import TrainingOptions
from autoseg.training import step as step_module
from autoseg.training.loader import Loader
from autoseg.training.rollback import NotFinite
from autoseg.training.run import TrainingRun, begin_or_resume
from autoseg.training.sampling import PatchSampler
from autoseg.training.step import step


@pytest.fixture
def run(tiny: Tiny, float32_cpu: Device, tmp_path: Path) -> TrainingRun:
    return begin_or_resume(tiny.job(tmp_path), TrainingOptions(RunBudget(epochs=1)), float32_cpu)


def first_step(run: TrainingRun) -> None:
    cases = [StoredCase.open(run.job.prepared, case.name) for case in run.job.training]
    with Loader(PatchSampler(cases, run.configuration, run.job.plan.data.labels, 0), 0, threads=0) as loader:
        step(run, loader, 0.5)


def copies(network: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def test_step_moves_weights_and_their_average(run: TrainingRun) -> None:
    """The average begins with a tenth of the way left to the old weights, whatever the plan's decay."""
    before = copies(run.network)
    first_step(run)
    after, averaged = copies(run.network), copies(run.model.networks[0])
    assert any(not torch.equal(a, b) for a, b in zip(before, after))
    for old, new, average in zip(before, after, averaged, strict=True):
        torch.testing.assert_close(average, 0.1 * old + 0.9 * new)
    assert (run.state.step, run.state.loss_steps) == (1, 1)
    assert run.state.mean_loss == run.state.loss_total > 0


def test_step_that_fails_changes_nothing(run: TrainingRun, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = step_module.total_loss
    monkeypatch.setattr(step_module, "total_loss", lambda *arguments: usual(*arguments) * float("nan"))
    before, state = copies(run.network), run.state
    with pytest.raises(NotFinite, match="the loss is not finite"):
        first_step(run)
    assert all(torch.equal(a, b) for a, b in zip(before, copies(run.network), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, copies(run.model.networks[0]), strict=True))
    assert run.state == state
