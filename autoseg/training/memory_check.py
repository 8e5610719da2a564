"""Check of the memory before the first step: the system may kill a training that takes too much without a message."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace

import torch

from autoseg.errors import ResourceError
from autoseg.footprint import TrainingMemory, plan_memory
from autoseg.nets.device import Device
from autoseg.plan import Compute, DeviceKind, Plan
from autoseg.training.distributed import local_batch_size


def check_memory(plan: Plan, configuration: str, device: Device) -> None:
    """Check that a plan's training fits into the free memory.

    Each of several processes has a GPU for its share of the batch; on a CPU they share the memory, too.

    Raises:
        ResourceError: the plan takes more memory than is free.
    """
    free = device.free_gb()
    if free is None:
        return
    compute: Compute = "float32" if device.compute == torch.float32 else "bfloat16"
    kind: DeviceKind = "cuda" if device.torch_device.type == "cuda" else "cpu"
    chosen = plan.configurations[configuration]

    def memory(batch: int) -> TrainingMemory:
        local_batch = batch if kind == "cpu" else local_batch_size(batch)
        smaller = replace(chosen, patch=replace(chosen.patch, batch_size=local_batch))
        return plan_memory(replace(plan, configurations={configuration: smaller}), configuration, compute, kind)

    def needed(batch: int) -> float:
        """GB beyond the base, which the process has taken already."""
        estimate = memory(batch)
        return (estimate.total - estimate.base) / 1e9

    batch = chosen.patch.batch_size
    if needed(batch) <= free:
        return
    largest = bisect_right(range(1, batch), free, key=needed)
    total = free + memory(batch).base / 1e9
    raise ResourceError(
        "training with this plan takes more memory than is free",
        found=f"about {needed(batch):.1f} GB for patch {'×'.join(map(str, chosen.patch.patch_size))}, batch {batch}",
        allowed=f"{free:.1f} GB",
        fix=(f"patch.batch_size {largest} in plan.json, or " if largest else "")
        + f"autoseg plan_and_preprocess --replan --memory {total:.1f}",
    )
