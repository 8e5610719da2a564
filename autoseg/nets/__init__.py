"""Networks, built from the plan and from nothing else."""

from autoseg.nets.point_head import PointHead
from autoseg.nets.scn import SpatialConfiguration
from autoseg.nets.unet import Output, UNet

__all__ = ["Output", "PointHead", "SpatialConfiguration", "UNet"]
