"""The network as torch compiles it, where that works."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from autoseg.device import Device
from autoseg.nets import Output
from autoseg.progress import log

Forward = Callable[[Tensor], Output]


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
