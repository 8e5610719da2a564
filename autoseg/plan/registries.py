"""Losses, blocks, augmentations and planner rules by name, which plugins may add to.

A line here is all that a new built-in one needs beside its own file. Homes are text, so that a plan is read without torch.
"""

from __future__ import annotations

from autoseg.system.registry import Registry

LOSSES = Registry(
    "loss",
    ("logits", "target", "ignore_index", "batch_dice"),
    {
        "dice_ce": "autoseg.training.losses.dice_ce:dice_ce",
        "dice_focal": "autoseg.training.losses.segmentation:dice_focal",
        "dice": "autoseg.training.losses.segmentation:dice",
        "ce": "autoseg.training.losses.segmentation:ce",
        "balanced_ce": "autoseg.training.losses.segmentation:balanced_ce",
        "topk_ce": "autoseg.training.losses.segmentation:topk_ce",
        "focal": "autoseg.training.losses.segmentation:focal",
    },
)
"""`(logits (B, K, *size), target (B, *size) int64, ignore_index, batch_dice) -> scalar`, of label maps: `training.loss`; see
autoseg/training/losses/segmentation.py."""

BLOCKS = Registry(
    "block",
    ("ndim", "n_in", "n_out", "kernel", "stride"),
    {
        "plain_unet": "autoseg.nets.blocks:ConvBlock",
        "residual_unet": "autoseg.nets.blocks:ResidualBlock",
    },
)
"""`(ndim, n_in, n_out, kernel, stride) -> nn.Module` from (B, n_in, *size) to (B, n_out, *size / stride, rounded up), which the
encoder of a U-Net is made of: `network.kind`. With a true attribute `needs_stem` a convolution to the width of the first stage
comes before; a method `initialise` of a module is called once its weights are drawn. See autoseg/nets/blocks.py."""

AUGMENTATIONS = Registry("augmentation", ("rng", "image"), {"default": None, "none": None})
"""`(numpy.random.Generator, image (C, Z, Y, X) float32) -> image` of the same shape and type: `training.augmentation`. It draws
its parameters from the generator and is a function of them and the image otherwise. It comes after the default augmentation, on a
patch whose intensities are normalised and whose label map and landmarks stay as they are, in a thread of the CPU."""

PLANNER_RULES = Registry(
    "planner_rule",
    ("configuration", "fingerprint", "budget"),
    {
        "postprocess": "autoseg.planner.postprocess:plan_postprocess",
    },
)
"""`(Configuration, Fingerprint, Budget) -> Configuration`: what the planner does to each configuration at the end, one after the
other. Those of plugins come last, and in every plan that is made while they are loaded."""

REGISTRIES = {registry.kind: registry for registry in (LOSSES, BLOCKS, AUGMENTATIONS, PLANNER_RULES)}
