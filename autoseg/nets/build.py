"""The plan's network with new weights."""

from __future__ import annotations

import math

from autoseg.footprint import map_size
from autoseg.nets import PointHead, UNet, build_network
from autoseg.nets.device import Device
from autoseg.plan import Configuration, Plan


def fresh_network(plan: Plan, configuration: Configuration, device: Device) -> UNet:
    """The plan's network with new weights, on the device."""
    c, head = configuration, None
    if c.landmarks is not None:
        voxels = math.prod(map_size(c.network, c.patch.patch_size))
        head = PointHead(c.ndim, c.network.features[0], len(plan.data.landmarks), c.landmarks.loss, voxels, c.landmarks.scn)
    network = build_network(c.network, len(plan.data.channels), plan.data.n_classes, plan.n_previous_classes(c), head)
    return network.to(device.torch_device)
