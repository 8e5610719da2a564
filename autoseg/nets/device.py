"""The device that networks run on, and the precision that they compute in."""

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
    """A torch device and the type that convolutions compute in on it; weights and loss stay float32."""

    torch_device: torch.device
    compute: torch.dtype

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Computes in the device's type inside; does nothing for float32."""
        if self.compute == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.torch_device.type, self.compute)

    @property
    def needs_scaler(self) -> bool:
        """True for fp16, whose gradients underflow without loss scaling; bf16 has the exponent of float32."""
        return self.compute == torch.float16

    def free_gb(self) -> float | None:
        """Free memory of the device, 10⁹ bytes; None where the system does not tell.

        What this process has freed and kept is given back first.
        """
        if self.torch_device.type == "cuda":
            torch.cuda.empty_cache()
            return torch.cuda.mem_get_info(self.torch_device)[0] / 1e9
        give_back_freed_memory()
        return free_ram_gb()

    @property
    def more_memory(self) -> str:
        """Advice where a case does not fit."""
        return "a machine with more memory" if self.torch_device.type == "cpu" else "--device cpu, or a GPU with more memory"

    def __str__(self) -> str:
        return f"{self.torch_device} ({str(self.compute).removeprefix('torch.')})"


def choose_device(name: str) -> Device:
    """The device of a name, in bf16 where the hardware multiplies it, in fp16 on older GPUs, else in float32.

    On a CPU bf16 takes half the time of a step off if the CPU has bf16 instructions (benchmarks/results/step_nnunet.md: 46 % of
    nnU-Net's own network; a narrow one gains less), and makes a step several times slower without them.

    Args:
        name: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        UsageError: unknown device, or one that this machine does not have.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise _unknown_device(name) from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise _unknown_device(name)
    if device.type == "cuda":
        if not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count():
            raise UsageError("no such GPU", found=name, allowed=f"{torch.cuda.device_count()} CUDA devices", fix="--device cpu")
        return Device(device, torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("no Apple GPU here", found=name, allowed="cpu, cuda", fix="--device cpu")
    if device.type == "cpu" and _cpu_has_bf16():
        return Device(device, torch.bfloat16)
    return Device(device, torch.float32)


@contextlib.contextmanager
def out_of_memory(fix: str) -> Iterator[None]:
    """Turns torch's out-of-memory errors into a ResourceError.

    Args:
        fix: of the message.

    Raises:
        ResourceError: memory is used up.
    """
    try:
        yield
    except RuntimeError as error:
        if not lacks_memory(error):
            raise
        raise ResourceError("out of memory", found=str(error).splitlines()[0], fix=fix) from error


def lacks_memory(error: Exception) -> bool:
    """True for an error that says that memory is used up.

    On a CPU, and where page-locked memory runs out, torch raises a plain RuntimeError.
    """
    return isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in ("allocate memory", "out of memory"))
    )


def _unknown_device(name: str) -> UsageError:
    return UsageError("unknown device", found=name, allowed="auto, cpu, cuda, cuda:1, mps")


def _cpu_has_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
