"""A training step, from a batch to better weights, in its order."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.tiny import Tiny

from autoseg.nets.device import Device
from autoseg.preprocessing.store import StoredCase
from autoseg.runs.budget import RunBudget
from autoseg.runs.options import TrainingOptions
from autoseg.training.loader import Loader
from autoseg.training.run import begin_or_resume
from autoseg.training.sampling import PatchSampler
from autoseg.training.step import step


def test_a_step_begins_with_the_next_batches_before_it_waits(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(torch.Tensor, "backward", lambda *_: done.append("backward"))
    monkeypatch.setattr(Loader, "draw_ahead", lambda self: done.append("ahead"))
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: done.append("wait") or [0.0, 0.0])
    run = begin_or_resume(tiny.job(tmp_path), TrainingOptions(RunBudget(epochs=1)), float32_cpu)
    monkeypatch.setattr(run.optimizer, "step", lambda: done.append("step"))
    cases = [StoredCase.open(run.job.prepared, case.name) for case in run.job.training]
    with Loader(PatchSampler(cases, run.configuration, tiny.plan.data.labels, 0), 0, threads=0) as loader:
        step(run, loader, 0.0)
    assert done == ["backward", "ahead", "wait", "step"]
