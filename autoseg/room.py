"""Whether there is memory for a training, before its first step: the system may end one that takes too much without a word."""

from __future__ import annotations

from dataclasses import replace

import torch

from autoseg.device import Device
from autoseg.errors import ResourceError
from autoseg.footprint import plan_memory
from autoseg.parallel import patches_here
from autoseg.plan import Compute, DeviceKind, Plan


def check_room(plan: Plan, configuration: str, device: Device) -> None:
    """Each of several processes has a GPU for its share of the batch; on a CPU they share the memory, too.

    Raises:
        ResourceError: the plan takes more memory than is free.
    """
    free = device.free_gb()
    if free is None:
        return
    compute: Compute = "float32" if device.compute == torch.float32 else "bfloat16"
    kind: DeviceKind = "cuda" if device.place.type == "cuda" else "cpu"
    chosen = plan.configurations[configuration]
    patch = chosen.patch if kind == "cpu" else replace(chosen.patch, batch_size=patches_here(chosen.patch.batch_size))
    here = replace(plan, configurations={configuration: replace(chosen, patch=patch)})
    memory = plan_memory(here, configuration, compute, kind)
    needed = (memory.total - memory.base) / 1e9  # the base is there already
    if needed > free:
        raise ResourceError(
            "training with this plan takes more memory than is free",
            found=f"about {needed:.1f} GB for patch {'×'.join(map(str, patch.patch_size))}, batch {patch.batch_size}",
            allowed=f"{free:.1f} GB",
            fix=f"autoseg plan_and_preprocess --replan --memory {max(1, int(0.9 * free))}, or a smaller batch in the plan",
        )
