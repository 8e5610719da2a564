"""Where the network runs and in which precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from autoseg.errors import ResourceError, UsageError
from autoseg.system.allocator import give_back_freed_memory
from autoseg.system.machine import free_ram_gb


@dataclass(frozen=True)
class Device:
    """A torch device and the type that convolutions compute in there; weights and loss stay float32."""

    torch_device: torch.device
    compute: torch.dtype

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.compute == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.torch_device.type, self.compute)

    @property
    def needs_scaler(self) -> bool:
        """fp16 gradients underflow without loss scaling; bf16 has the exponent of float32."""
        return self.compute == torch.float16

    def free_gb(self) -> float | None:
        """Memory that is free there; None where the system does not tell. What this process has freed and kept is given back."""
        if self.torch_device.type == "cuda":
            torch.cuda.empty_cache()
            return torch.cuda.mem_get_info(self.torch_device)[0] / 1e9
        give_back_freed_memory()
        return free_ram_gb()

    def __str__(self) -> str:
        return f"{self.torch_device} ({str(self.compute).removeprefix('torch.')})"


def choose_device(wanted: str) -> Device:
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps`. bf16 where the hardware multiplies it, fp16 on older GPUs, else float32.

    On a CPU bf16 takes half the time of a step off if the CPU has bf16 instructions (benchmarks/results/step_nnunet.md: 46 % of
    nnU-Net's own network; a narrow one gains less), and would multiply it if it has not.

    Raises:
        UsageError: unknown device, or one that this machine does not have.
    """
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise _unknown(wanted) from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise _unknown(wanted)
    if device.type == "cuda":
        if not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count():
            raise UsageError("no such GPU", found=wanted, allowed=f"{torch.cuda.device_count()} CUDA devices", fix="--device cpu")
        return Device(device, torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("no Apple GPU here", found=wanted, allowed="cpu, cuda", fix="--device cpu")
    if device.type == "cpu" and _cpu_multiplies_bf16():
        return Device(device, torch.bfloat16)
    return Device(device, torch.float32)


@contextlib.contextmanager
def out_of_memory(fix: str) -> Iterator[None]:
    """Raises `ResourceError` where torch finds no memory."""
    try:
        yield
    except RuntimeError as error:
        if not lacks_memory(error):
            raise
        raise ResourceError("out of memory", found=str(error).splitlines()[0], fix=fix) from error


def lacks_memory(error: Exception) -> bool:
    """Whether an error says that memory is used up; torch says so with a plain RuntimeError on a CPU,
    and where memory that a GPU can copy from runs out."""
    return isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in ("allocate memory", "out of memory"))
    )


def _unknown(wanted: str) -> UsageError:
    return UsageError("unknown device", found=wanted, allowed="auto, cpu, cuda, cuda:1, mps")


def _cpu_multiplies_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
