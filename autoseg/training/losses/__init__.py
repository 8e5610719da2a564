"""Losses of class logits and of landmark maps, by name and as functions."""

from autoseg.plan.registries import LOSSES
from autoseg.training.losses.dice_ce import SMOOTH, dice_ce
from autoseg.training.losses.landmarks import LANDMARK_LOSSES, LandmarkLoss, cone_bce, dsnt, mse, spatial_ce
from autoseg.training.losses.segmentation import (
    Loss,
    balanced_ce,
    ce,
    deep_supervision,
    dice,
    dice_focal,
    focal,
    nearest_resize,
    topk_ce,
)

__all__ = [
    "LANDMARK_LOSSES",
    "LOSSES",
    "SMOOTH",
    "LandmarkLoss",
    "Loss",
    "balanced_ce",
    "ce",
    "cone_bce",
    "deep_supervision",
    "dice",
    "dice_ce",
    "dice_focal",
    "dsnt",
    "focal",
    "mse",
    "nearest_resize",
    "spatial_ce",
    "topk_ce",
]
