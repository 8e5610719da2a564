"""The network of a plan, with new weights."""

from __future__ import annotations

import math

from autoseg.footprint import map_size
from autoseg.nets import PointHead, UNet
from autoseg.nets.device import Device
from autoseg.plan import Configuration, Plan


def build_network(plan: Plan, configuration: Configuration, device: Device) -> UNet:
    """Builds the plan's network on the device, with new weights from torch's global generator."""
    c, head = configuration, None
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
