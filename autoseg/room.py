"""Whether there is memory for a training, before its first step: the system may end one that takes too much without a word."""

from __future__ import annotations

import torch

from autoseg.device import Device
from autoseg.errors import ResourceError
from autoseg.footprint import plan_memory
from autoseg.plan import Compute, Plan


def check_room(plan: Plan, configuration: str, device: Device) -> None:
    """
    Raises:
        ResourceError: the plan takes more memory than is free.
    """
    free = device.free_gb()
    if free is None:
        return
    compute: Compute = "float32" if device.compute == torch.float32 else "bfloat16"
    memory = plan_memory(plan, configuration, compute, "cuda" if device.place.type == "cuda" else "cpu")
    needed = (memory.total - memory.base) / 1e9  # the base is there already
    if needed > free:
        patch = plan.configurations[configuration].patch
        raise ResourceError(
            "training with this plan takes more memory than is free",
            found=f"about {needed:.1f} GB for patch {'×'.join(map(str, patch.patch_size))}, batch {patch.batch_size}",
            allowed=f"{free:.1f} GB",
            fix=f"autoseg plan_and_preprocess --replan --memory {max(1, int(0.9 * free))}, or a smaller batch in the plan",
        )
