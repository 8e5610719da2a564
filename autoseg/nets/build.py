"""The network of a plan, with new weights."""

from __future__ import annotations

import math

import torch

from autoseg.errors import PlanError
from autoseg.footprint import map_size
from autoseg.nets import PointHead, UNet
from autoseg.nets.device import Device
from autoseg.plan import Configuration, Plan
from autoseg.plan.plugins import plugin_failure, plugin_of
from autoseg.plan.registries import BLOCKS


def build_network(plan: Plan, configuration: Configuration, device: Device) -> UNet:
    """Builds the plan's network on the device, with new weights from torch's global generator.

    Raises:
        UsageError, PlanError: the block of a plugin cannot be used.
    """
    c, head = configuration, None
    _check_added_block(c.network.kind, c.ndim)
    if c.landmarks is not None:
        voxels = math.prod(map_size(c.network, c.patch.patch_size))
        n_features, n_landmarks = c.network.features[0], len(plan.data.landmarks)
        head = PointHead(c.ndim, n_features, n_landmarks, loss=c.landmarks.loss, voxels=voxels, scn=c.landmarks.scn)
    network = UNet(
        c.network,
        len(plan.data.channels),
        plan.data.n_classes,
        n_previous_classes=plan.n_previous_classes(c),
        point_head=head,
    )
    return network.to(device.torch_device)


def _check_added_block(kind: str, ndim: int) -> None:
    """Tries the block of a plugin on a few voxels, since what is wrong with it would show deep inside of a network."""
    plugin = plugin_of(f"{BLOCKS.kind} {kind}")
    if plugin is None:
        return
    try:
        with torch.no_grad():
            block = BLOCKS[kind](ndim, 2, 3, (3,) * ndim, (2,) * ndim)
            shape = tuple(block(torch.zeros(1, 2, *(8,) * ndim)).shape)
    except Exception as error:
        raise plugin_failure(f"the block '{kind}' cannot be used", plugin.path, error, "mend that line") from error
    if shape != (1, 3, *(4,) * ndim):
        raise PlanError(
            f"the block '{kind}' gives maps of another shape than it should",
            file=plugin.path,
            found=f"{shape} of maps (1, 2{', 8' * ndim}), for 3 channels and stride 2",
            allowed=f"(1, 3{', 4' * ndim})",
        )
