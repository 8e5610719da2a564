"""The memory that the prediction of a case takes, checked before it is taken: a machine that swaps, or kills, says nothing."""

from __future__ import annotations

from math import prod

from autoseg.errors import ResourceError
from autoseg.footprint import PREDICT_BASE, plan_io, predicting_memory
from autoseg.plan import Configuration, Plan
from autoseg.preprocessing.placement import Placement
from autoseg.system.machine import free_ram_gb

_CHECKED_GB = 1.0  # less is taken without asking


def check_room(plan: Plan, configuration: Configuration, placement: Placement) -> None:
    """Check that what the prediction of a case takes on a CPU fits into the free memory.

    Args:
        placement: of the prepared case.

    Raises:
        ResourceError: it does not.
    """
    source, target = placement.source.shape, placement.target.shape
    needed = predicting_memory(
        configuration.network,
        configuration.patch.patch_size,
        plan_io(plan, configuration),
        batch_size=configuration.patch.batch_size,
        compute="float32",
        source_voxels=prod(source),
        target_voxels=prod(target),
    )
    needed_gb = (needed - PREDICT_BASE) / 1e9
    free_gb = free_ram_gb() if needed_gb > _CHECKED_GB else None
    if free_gb is not None and needed_gb > free_gb:
        raise ResourceError(
            "not enough memory to predict the image",
            found=f"{needed_gb:.1f} GB for {plan.data.n_classes} maps of {' × '.join(map(str, target))} voxels",
            allowed=f"{free_gb:.1f} GB that are free",
            fix="a machine with more memory, or cut the image to the part that matters",
        )
