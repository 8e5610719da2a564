"""Compiling a network with torch, where that works and is worth it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from autoseg.nets import Output
from autoseg.nets.device import Device
from autoseg.system.progress import log

Forward = Callable[[Tensor], Output]

MIN_SECONDS, MIN_STEPS = 1200.0, 20_000  # to go of a run on a GPU


def is_worth_compiling(device: Device, seconds: float, steps: int) -> bool:
    """Whether compiled steps save a run more time than compiling takes, which is a minute or so.

    On a GPU a compiled step takes 0.58 of the time with patches of 128³ voxels, 0.83 with small ones (benchmarks/results/
    step_cuda.md, step_nnunet_cuda.md): in 20 000 steps even that is more than a minute.

    Args:
        seconds: not yet spent of the run's budget; 0 where it is one of epochs.
        steps: not yet spent; 0 where it is one of time.
    """
    return device.torch_device.type == "cuda" and (seconds >= MIN_SECONDS or steps >= MIN_STEPS)


def compiled(network: torch.nn.Module, example: Tensor, device: Device) -> Forward:
    """The compiled network, tried forward and backward on a batch like `example`; the network itself where that fails.

    Training can go on without it, so any error (no C++ compiler, no Triton, an unsupported operation) is
    one note in the log.
    """
    try:
        faster: Forward = torch.compile(network)
        with device.autocast():
            outputs = faster(example)
        parts = [*outputs.logits, *([] if outputs.maps is None else [outputs.maps])]
        torch.stack([part.float().sum() for part in parts]).sum().backward()
    except Exception as error:
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        log.warning("note: the network cannot be compiled here (%s: %s); training goes on without", type(error).__name__, reason)
        return network
    finally:
        network.zero_grad(set_to_none=True)
    return faster
