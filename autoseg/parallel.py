"""Several processes that train one network together, one a GPU, as torchrun starts them:

    torchrun --nproc-per-node 2 -m autoseg train

Each holds the same weights, draws its share of every batch and computes its gradient; the mean of the gradients is what all of
them step by, so that weights, averages and optimizers stay equal without being sent. What a clock, a user or a score decides,
the first process decides for all, and it alone writes files and scores cases. In a process of its own every function here does
nothing, or gives back what it was given.

Gradients are averaged when all are there, not while the first ones are still computed: 31 M weights are 124 MB a step.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Iterable, Iterator
from datetime import timedelta

import torch
import torch.distributed as dist

from autoseg.device import Device
from autoseg.errors import UsageError

LONGEST_WAIT = timedelta(days=7)  # for the first process, which may be predicting large cases; torchrun ends those that hang


def place_here(wanted: str) -> str:
    """The device for this process: of several on a machine, each takes the GPU of its number."""
    if _size_to_be() > 1 and wanted in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{os.environ['LOCAL_RANK']}"
    return wanted


@contextlib.contextmanager
def together(device: Device) -> Iterator[None]:
    """Inside, the processes that torchrun has started work together; all but the first say only what is wrong."""
    if _size_to_be() == 1:
        yield
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.place.type == "cuda" else "gloo", timeout=LONGEST_WAIT)
    if device.place.type == "cuda":
        torch.cuda.set_device(device.place)
    log = logging.getLogger("autoseg")
    before = log.level
    if not is_first():
        log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process among those that work together, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes work together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the process that decides, writes and scores."""
    return rank() == 0


def wait() -> None:
    """Until all have come here."""
    if size() > 1:
        dist.barrier()


def decided(value: float) -> float:
    """What the first process gives here, in every process."""
    if size() == 1:
        return value
    said = torch.tensor([value], dtype=torch.float64)
    dist.broadcast(said, 0)
    return said.item()


def decided_score(value: float | None) -> float | None:
    """`decided` for a score, which may be unknown."""
    said = decided(math.nan if value is None else value)
    return None if math.isnan(said) else said


def yes(value: bool) -> bool:
    """`decided` for a question."""
    return bool(decided(value))


def check_share(batch_size: int) -> None:
    """
    Raises:
        UsageError: a process would have nothing to do.
    """
    if batch_size < size():
        raise UsageError(
            "more processes than patches in a batch", found=f"{size()} processes", allowed=batch_size, fix="--nproc-per-node"
        )


def weighted(loss: torch.Tensor, patches: int, batch_size: int) -> torch.Tensor:
    """A loss of `patches` of a batch, such that its mean over the processes is the mean over the batch."""
    return loss if size() == 1 else loss * (patches * size() / batch_size)


def mean(value: float) -> float:
    """Over the processes."""
    if size() == 1:
        return value
    total = torch.tensor([value], dtype=torch.float64)
    dist.all_reduce(total)
    return total.item() / size()


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replaces gradients by their mean over the processes."""
    if size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= size()
    torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(flat.split([g.numel() for g in gradients]), gradients)])


def gathered(names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of all processes, one process after another."""
    if size() == 1:
        return names
    parts: list[tuple[str, ...]] = [()] * size()
    dist.all_gather_object(parts, names)
    return tuple(name for part in parts for name in part)


def _size_to_be() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))
