"""The network as torch compiles it, where that works."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from autoseg.device import Device
from autoseg.nets import Output
from autoseg.progress import log
from autoseg.schedule import RunBudget

Forward = Callable[[Tensor], Output]

WORTH_SECONDS, WORTH_STEPS = 1200.0, 5000  # of a run on a GPU: twenty times what compiling takes, or about as long


def is_worth_compiling(device: Device, budget: RunBudget, steps_per_epoch: int) -> bool:
    """Whether a run gains more by compiled steps than compiling takes, which is about a minute.

    On a GPU a compiled step takes 0.58 of the time (benchmarks/results/step_cuda.md); a CPU gains little, if anything.
    """
    if device.place.type != "cuda":
        return False
    return (budget.seconds or 0.0) >= WORTH_SECONDS or (budget.epochs or 0) * steps_per_epoch >= WORTH_STEPS


def compiled(network: torch.nn.Module, example: Tensor, device: Device) -> Forward:
    """The compiled network, tried forward and backward on a batch like `example`; the network itself where that fails.

    Whatever goes wrong then (no C++ compiler, no Triton, an operation that it does not know), training can go on without, so it
    is said once and no more.
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
