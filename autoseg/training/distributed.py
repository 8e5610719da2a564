"""Several processes that train one network together, one a GPU, as torchrun starts them:

    torchrun --nproc-per-node 2 -m autoseg train

Each holds the same weights, draws its share of every batch and computes its part of the batch's loss and of its gradient; every
process applies the summed gradient, so weights, averages and optimizer states stay identical without being communicated. What a
loss counts or sums over the batch before it divides is added up over the processes (`all_reduce_sum`), so that the parts sum to
the loss that one process would have of the whole batch. What a clock, a user or a score decides, the first process decides for
all, and it alone writes files and scores cases. In a process of its own every function here does nothing, or gives back what it
was given.

Gradients are added up when all are there, not while the first ones are still computed: 31 M weights are 124 MB a step.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from autoseg.errors import ResourceError, UsageError
from autoseg.system.machine import announced_processes
from autoseg.system.progress import log

LONGEST_WAIT = timedelta(days=7)  # for the first process, which may be predicting large cases; torchrun ends those that hang


def local_device(device: str) -> str:
    """The device of this process: each of several on a machine takes the GPU of its number.

    Raises:
        UsageError: several processes on one GPU.
    """
    if announced_processes() == 1 or device == "cpu":
        return device
    if device not in ("auto", "cuda"):
        raise UsageError("several processes need a GPU each", found=f"--device {device}", allowed="auto, cuda, cpu")
    return f"cuda:{os.environ['LOCAL_RANK']}" if torch.cuda.is_available() else device


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun has started; all but the first log errors only."""
    if announced_processes() == 1:
        yield
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=LONGEST_WAIT)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    level = log.level
    if not is_first():
        log.setLevel("ERROR")
    try:
        yield
    finally:
        log.setLevel(level)
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process among those that train together, from 0."""
    return dist.get_rank() if _is_distributed() else 0


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if _is_distributed() else 1


def is_first() -> bool:
    """Whether this is the process that decides, writes and scores."""
    return rank() == 0


def local_batch_size(batch_size: int) -> int:
    """Number of patches of a batch that this process learns from."""
    return len(range(batch_size)[rank() :: world_size()])


def check_shares(batch_size: int) -> None:
    """Check that each process has a patch to learn from.

    Raises:
        UsageError: more processes than patches in a batch.
    """
    if batch_size < world_size():
        raise UsageError(
            "more processes than patches in a batch",
            found=f"{world_size()} processes, {batch_size} in a batch",
            fix=f"--nproc-per-node {batch_size}, or a larger patch.batch_size in the plan",
        )


def log_shares(batch_size: int) -> None:
    """Log how the processes share a batch.

    Raises:
        UsageError: more processes than patches in a batch.
    """
    check_shares(batch_size)
    n = world_size()
    if n == 1:
        return
    log.info("%d processes share each batch of %d patches", n, batch_size)
    if batch_size % n:
        log.warning(
            "note: %d patches do not divide evenly among %d processes: those with %d wait for those with %d",
            *(batch_size, n, batch_size // n, batch_size // n + 1),
        )


def barrier() -> None:
    """Wait until all processes have come here."""
    if world_size() > 1:
        with _error_names_the_process():
            dist.barrier()


def broadcast_float(value: float) -> float:
    """Broadcast a number from the first process."""
    if world_size() == 1:
        return value
    tensor = torch.tensor([value], dtype=torch.float64)
    with _error_names_the_process():
        dist.broadcast(tensor, 0)
    return tensor.item()


def broadcast_score(value: float | None) -> float | None:
    """Broadcast a score from the first process; None where there is none."""
    number = broadcast_float(math.nan if value is None else value)
    return None if math.isnan(number) else number


def broadcast_bool(value: bool) -> bool:
    """Broadcast an answer from the first process."""
    return bool(broadcast_float(value))


def all_reduce_sum(part: Tensor) -> Tensor:
    """Sum a tensor over the processes; each part gets the gradient of the sum."""
    if world_size() == 1:
        return part
    total: Tensor = _AllReduceSum.apply(part)
    return total


def all_reduce_float(value: float) -> float:
    """Sum a number over the processes."""
    return float(all_reduce_sum(torch.tensor(value, dtype=torch.float64)))


def all_reduce_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace gradients by their sum over the processes."""
    if world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    with _error_names_the_process():
        dist.all_reduce(flat)
    torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(flat.split([g.numel() for g in gradients]), gradients)])


def all_gather_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Collect the names of all processes, one process after another."""
    if world_size() == 1:
        return names
    parts: list[tuple[str, ...]] = [()] * world_size()
    with _error_names_the_process():
        dist.all_gather_object(parts, names)
    return tuple(name for part in parts for name in part)


class _AllReduceSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        total = part.clone(memory_format=torch.contiguous_format)
        with _error_names_the_process():
            dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


@contextlib.contextmanager
def _error_names_the_process() -> Iterator[None]:
    """Turn an error of communication into one that names this process.

    Raises:
        ResourceError: another process has ended.
    """
    try:
        yield
    except RuntimeError as error:
        raise ResourceError(
            f"process {rank()} of {world_size()} has lost another process that trains with it",
            found=str(error).strip().splitlines()[0].split(". ")[0],
            fix="read the messages of the other process; the same command continues",
        ) from error


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
