"""Devices: those of the machine are found, missing ones are refused, and the precision is as documented."""

from __future__ import annotations

import pytest
import torch

from autoseg.errors import ResourceError, UsageError
from autoseg.nets.device import Device, choose_device, out_of_memory

CPU = torch.device("cpu")


def with_cpu(monkeypatch: pytest.MonkeyPatch, **capabilities: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)


def with_gpus(monkeypatch: pytest.MonkeyPatch, count: int, bf16: bool = True) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)


@pytest.mark.parametrize("name", ["avx512_bf16", "amx_bf16"])
def test_cpu_computes_in_bf16_only_where_it_can(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with_cpu(monkeypatch, **{name: True})
    assert choose_device("cpu") == Device(CPU, torch.bfloat16)
    with_cpu(monkeypatch, avx2=True)
    assert choose_device("cpu") == Device(CPU, torch.float32)
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert choose_device("cpu") == Device(CPU, torch.float32)


def test_auto_takes_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch, 0)
    assert choose_device("auto").torch_device == CPU
    with_gpus(monkeypatch, 1)
    assert choose_device("auto") == Device(torch.device("cuda"), torch.bfloat16)
    with_gpus(monkeypatch, 2, bf16=False)
    assert choose_device("cuda:1") == Device(torch.device("cuda:1"), torch.float16)


@pytest.mark.parametrize("name", ["gpu", "cpu:x", "meta", ""])
def test_unknown_device(name: str) -> None:
    with pytest.raises(UsageError, match="unknown device"):
        choose_device(name)


def test_missing_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch, 0)
    with pytest.raises(UsageError, match="no such GPU"):
        choose_device("cuda")
    with_gpus(monkeypatch, 1)
    with pytest.raises(UsageError, match=r"no such GPU.*cuda:1.*1 CUDA devices"):
        choose_device("cuda:1")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UsageError, match="no Apple GPU"):
        choose_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("mps") == Device(torch.device("mps"), torch.float32)


def test_convolutions_compute_in_the_devices_type() -> None:
    convolution, image = torch.nn.Conv2d(1, 1, 1), torch.ones(1, 1, 2, 2)
    for dtype in (torch.float32, torch.bfloat16):
        with Device(CPU, dtype).autocast():
            assert convolution(image).dtype == dtype
    assert convolution.weight.dtype == torch.float32


def test_only_fp16_needs_loss_scaling() -> None:
    assert [Device(CPU, t).needs_scaler for t in (torch.float16, torch.bfloat16, torch.float32)] == [True, False, False]


def test_a_device_as_text() -> None:
    assert str(Device(torch.device("cuda:1"), torch.bfloat16)) == "cuda:1 (bfloat16)"


def test_out_of_memory_becomes_a_resource_error() -> None:
    with pytest.raises(ResourceError, match=r"out of memory.*fix: take less"), out_of_memory("take less"):
        torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="size of tensor"), out_of_memory("take less"):
        torch.zeros(2) + torch.zeros(3)
