"""Losses, by name and as functions."""

from autoseg.losses.dice_ce import SMOOTH, dice_ce
from autoseg.losses.named import (
    LOSSES,
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
    "LOSSES",
    "SMOOTH",
    "Loss",
    "balanced_ce",
    "ce",
    "deep_supervision",
    "dice",
    "dice_ce",
    "dice_focal",
    "focal",
    "nearest_resize",
    "topk_ce",
]
