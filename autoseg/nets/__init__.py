"""Networks, built from the plan and from nothing else."""

from autoseg.nets.unet import UNet, build_network

__all__ = ["UNet", "build_network"]
