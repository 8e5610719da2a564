"""The compiled network: the same weights and numbers as the network itself, which takes its place where it cannot be had."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.runs import EPOCHS, interrupt_at, same_outcome
from helpers.tiny import Tiny, TinyRuns
from safetensors.torch import load_file

from autoseg.nets.build import build_network
from autoseg.nets.device import Device
from autoseg.runs.budget import RunBudget
from autoseg.runs.options import TrainingOptions
from autoseg.training import run as run_module
from autoseg.training.compilation import compiled, is_worth_compiling
from autoseg.training.train import train

original = torch.compile


def refused(network: torch.nn.Module) -> None:
    """As torch does at once on a Python or a system that is not supported."""
    raise RuntimeError("torch.compile is not supported here\nand a long explanation")


def broken(network: torch.nn.Module) -> Callable[..., Any]:
    """As without a C++ compiler, which is missed only when there is something to compile."""

    def forward(image: torch.Tensor) -> None:
        raise RuntimeError("torch.compile is not supported here\nand a long explanation")

    return forward


def broken_backward(network: torch.nn.Module) -> Callable[..., Any]:
    def fail(gradient: torch.Tensor) -> None:
        raise RuntimeError("torch.compile is not supported here\nand a long explanation")

    def forward(image: torch.Tensor) -> Any:
        outputs = network(image)
        for map in outputs.logits:
            map.register_hook(fail)
        return outputs

    return forward


def traced(network: torch.nn.Module) -> Callable[..., Any]:
    """Everything of compiling but the machine code, so that numbers are the same to the last bit."""
    return original(network, backend="eager")


@pytest.mark.parametrize("compile", [refused, broken, broken_backward])
def test_failed_compilation_trains_uncompiled(
    tiny: Tiny,
    tiny_runs: TinyRuns,
    float32_cpu: Device,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    compile: Callable[..., Any],
) -> None:
    """To the same end as if nobody had tried."""
    monkeypatch.setattr(torch, "compile", compile)
    run = tmp_path / "fold_0"
    train(tiny.job(run), replace(EPOCHS, compiled=True), float32_cpu)
    same_outcome(run, tiny_runs.runs[0])
    why = "RuntimeError: torch.compile is not supported here"
    told = f"note: the network cannot be compiled here ({why}); training goes on without"
    assert [m for m in caplog.messages if "compiled" in m] == [told]


def test_compilation_error_without_message(
    tiny: Tiny, float32_cpu: Device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def silent(network: torch.nn.Module) -> None:
        raise NotImplementedError

    monkeypatch.setattr(torch, "compile", silent)
    network = torch.nn.Identity()
    assert compiled(network, torch.zeros(1), float32_cpu) is network
    assert "(NotImplementedError: no reason given)" in caplog.text


def test_no_compilation_on_cpu_by_default(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[object] = []
    monkeypatch.setattr(torch, "compile", tried.append)
    train(tiny.job(tmp_path / "fold_0"), TrainingOptions(RunBudget(epochs=1)), float32_cpu)
    assert not tried


@pytest.mark.parametrize(
    ("device", "seconds", "steps", "worth"),
    [
        ("cuda", 1200.0, 0, True),
        ("cuda", 1199.0, 0, False),
        ("cuda", 0.0, 20_000, True),
        ("cuda", 0.0, 19_999, False),
        ("cpu", 86400.0, 250_000, False),
    ],
)
def test_is_worth_compiling(device: str, seconds: float, steps: int, worth: bool) -> None:
    assert is_worth_compiling(Device(torch.device(device), torch.bfloat16), seconds, steps) is worth


@pytest.mark.parametrize(("budget", "left"), [(RunBudget(epochs=10), (0.0, 27)), (RunBudget(3600.0), (3540.0, 0))], ids=str)
def test_compilation_is_decided_by_the_unspent_budget(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: RunBudget, left: tuple[float, int]
) -> None:
    """Three steps, a minute ago."""
    interrupt_at(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        train(tiny.job(tmp_path), TrainingOptions(budget), float32_cpu)
    run = run_module.begin_or_resume(tiny.job(tmp_path), TrainingOptions(budget), float32_cpu)
    run.state = replace(run.state, step=3, elapsed=60.0)
    run.save()
    given: list[tuple[float, int]] = []
    monkeypatch.setattr(run_module, "is_worth_compiling", lambda device, *left: given.append(left))
    run_module.begin_or_resume(tiny.job(tmp_path), TrainingOptions(budget), float32_cpu)
    [(seconds, steps)] = given
    assert (max(seconds, 0.0), max(steps, 0)) == (pytest.approx(left[0], abs=1), left[1])


@pytest.mark.filterwarnings("ignore")  # torch's own, about itself
@pytest.mark.parametrize(("asked", "deterministic", "does"), [(None, False, 1), (None, True, 0), (False, False, 0)])
def test_compile_policy(
    tiny: Tiny,
    float32_cpu: Device,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: bool | None,
    deterministic: bool,
    does: int,
) -> None:
    tried: list[object] = []
    monkeypatch.setattr(torch, "compile", lambda network: tried.append(network) or traced(network))
    monkeypatch.setattr(run_module, "is_worth_compiling", lambda *_: True)
    options = replace(EPOCHS, compiled=asked, deterministic=deterministic)
    run = run_module.begin_or_resume(tiny.job(tmp_path / "fold_0"), options, float32_cpu)
    assert len(tried) == does
    assert (run.forward is not run.network) == bool(does)


@pytest.mark.filterwarnings("ignore")  # torch's own, about itself
def test_compiled_run_resumes_uncompiled(
    tiny: Tiny,
    tiny_runs: TinyRuns,
    float32_cpu: Device,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Compiled up to the fourth step, then not."""
    calls = SimpleNamespace(n=0)

    def counting(network: torch.nn.Module) -> Callable[..., Any]:
        faster = traced(network)

        def forward(image: torch.Tensor) -> Any:
            calls.n += 1
            return faster(image)

        return forward

    run = tmp_path / "fold_0"
    monkeypatch.setattr(torch, "compile", counting)
    interrupt_at(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        train(tiny.job(run), replace(EPOCHS, compiled=True), float32_cpu)
    monkeypatch.undo()
    assert calls.n == 1 + 4  # tried once, then used
    assert "cannot be compiled" not in caplog.text
    assert load_file(run / "last.safetensors").keys() == load_file(tiny_runs.runs[0] / "last.safetensors").keys()
    train(tiny.job(run), EPOCHS, float32_cpu)
    same_outcome(run, tiny_runs.runs[0])


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "cl"))), reason="no C++ compiler on this system")
@pytest.mark.filterwarnings("ignore")
def test_compiled_network_equals_network(tiny: Tiny, float32_cpu: Device, caplog: pytest.LogCaptureFixture) -> None:
    """Outputs, gradients and new weights of a network of two stages."""
    torch.manual_seed(0)
    small = replace(
        tiny.configuration.network,
        features=(2, 2),
        strides=((1, 1, 1), (1, 2, 2)),
        kernel_sizes=((1, 3, 3), (1, 3, 3)),
        encoder_blocks=(1, 1),
        decoder_blocks=(1,),
    )
    network = build_network(tiny.plan, replace(tiny.configuration, network=small), float32_cpu)
    image, before = torch.randn(2, 1, 2, 8, 8), [p.detach().clone() for p in network.parameters()]
    forward = compiled(network, torch.zeros_like(image), float32_cpu)
    assert forward is not network, caplog.text
    assert all(p.grad is None for p in network.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters()))
    results = []
    for each in (network, forward):
        network.zero_grad()
        logits = each(image).logits
        sum(part.square().sum() for part in logits).backward()
        results.append([*logits, *(p.grad for p in network.parameters())])
    for one, two in zip(*results, strict=True):
        assert torch.allclose(one, two, rtol=1e-4, atol=1e-5)
        assert one.abs().max() > 0
