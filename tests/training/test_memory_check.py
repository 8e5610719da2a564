"""A training that cannot fit is refused before it begins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.tiny import Tiny

from autoseg.errors import ResourceError
from autoseg.nets.device import Device
from autoseg.plan import Plan
from autoseg.runs.budget import RunBudget
from autoseg.runs.options import TrainingOptions
from autoseg.training import distributed
from autoseg.training.memory_check import check_memory
from autoseg.training.train import train


def test_too_large_plan_is_refused(tiny: Tiny, float32_cpu: Device, tmp_path: Path) -> None:
    check_memory(tiny.plan, "3d_fullres", float32_cpu)
    huge = replace(tiny.configuration, patch=replace(tiny.configuration.patch, batch_size=2_000_000))
    plan = replace(tiny.plan, configurations={"3d_fullres": huge})
    with pytest.raises(
        ResourceError, match=r"more memory than is free; found: about \d+\.\d GB for patch 8×16×16, batch 2000000; allowed: .* GB"
    ):
        train(replace(tiny.job(tmp_path / "fold_0"), plan=plan), TrainingOptions(RunBudget(epochs=1)), float32_cpu)
    assert not (tmp_path / "fold_0" / "run.json").exists()


def test_unknown_free_memory(tiny: Tiny, float32_cpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Device, "free_gb", lambda _: None)
    huge = replace(tiny.configuration, patch=replace(tiny.configuration.patch, batch_size=2_000_000))
    check_memory(replace(tiny.plan, configurations={"3d_fullres": huge}), "3d_fullres", float32_cpu)
    monkeypatch.setattr(Device, "free_gb", lambda _: 1e-6)
    with pytest.raises(ResourceError, match=r"allowed: 0\.0 GB; fix: autoseg plan_and_preprocess --replan --memory 0\.\d"):
        check_memory(tiny.plan, "3d_fullres", float32_cpu)


def test_error_names_the_largest_batch_that_fits(tiny: Tiny, float32_cpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Device, "free_gb", lambda _: 1.0)

    def plan(batch: int) -> Plan:
        patch = replace(tiny.configuration.patch, batch_size=batch)
        return replace(tiny.plan, configurations={"3d_fullres": replace(tiny.configuration, patch=patch)})

    with pytest.raises(ResourceError) as caught:
        check_memory(plan(2_000_000), "3d_fullres", float32_cpu)
    named = int(str(caught.value).split("patch.batch_size ")[1].split()[0])
    check_memory(plan(named), "3d_fullres", float32_cpu)
    with pytest.raises(ResourceError, match=f"batch {named + 1}; .*; fix: patch.batch_size {named} in plan.json, or autoseg"):
        check_memory(plan(named + 1), "3d_fullres", float32_cpu)


def test_memory_of_a_share_of_a_batch(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of a CPU they share."""
    large = replace(tiny.configuration, patch=replace(tiny.configuration.patch, batch_size=100_000))
    plan, gpu = replace(tiny.plan, configurations={"3d_fullres": large}), Device(torch.device("cuda"), torch.bfloat16)
    monkeypatch.setattr(Device, "free_gb", lambda _: 1.0)
    with pytest.raises(ResourceError, match=r"batch 100000; allowed: 1\.0 GB"):
        check_memory(plan, "3d_fullres", gpu)
    monkeypatch.setattr(distributed, "world_size", lambda: 10_000)
    check_memory(plan, "3d_fullres", gpu)
    with pytest.raises(ResourceError, match="batch 100000"):
        check_memory(plan, "3d_fullres", replace(gpu, torch_device=torch.device("cpu")))
