"""Dice + cross entropy with deep supervision, without one-hot copies of the label map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SMOOTH = 1e-5  # in numerator and denominator of the soft Dice, as nnU-Net


def dice_ce(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """Cross entropy minus the mean soft Dice of the structures (background left out), per sample.

    Args:
        logits: (B, K, *size), any float type.
        target: (B, *size) int64 class indices; voxels of `ignore_index` count for nothing.

    Returns:
        A float32 scalar between about -1 (perfect) and +inf. Samples without any annotated voxel take no part in the mean;
        a batch of nothing else gives 0.

    Source: Isensee et al., nnU-Net, Nature Methods 2021 (loss = CE + Dice, equal weights).
    """
    logits = logits.float()
    known = target != ignore_index
    log_p = F.log_softmax(logits, dim=1)
    classes = logits.shape[1]
    safe = torch.where(known, target, 0)
    picked = log_p.gather(1, safe.unsqueeze(1)).squeeze(1)
    cross_entropy = -(picked * known).sum() / known.sum().clamp(min=1)

    batch = logits.shape[0]
    p = log_p.exp().flatten(2) * known.flatten(1).unsqueeze(1)
    flat = safe.flatten(1)
    rows = torch.arange(batch, device=logits.device).unsqueeze(1) * classes + flat
    weight = known.flatten(1).float()
    true_p = (picked.exp() * known).flatten(1)
    overlap = true_p.new_zeros(batch * classes).index_add_(0, rows.flatten(), true_p.flatten()).view(batch, classes)
    size = weight.new_zeros(batch * classes).index_add_(0, rows.flatten(), weight.flatten()).view(batch, classes)
    dice = (2 * overlap + SMOOTH) / (size + p.sum(2) + SMOOTH)
    annotated = weight.amax(1)
    return cross_entropy - (dice[:, 1:].mean(1) * annotated).sum() / annotated.sum().clamp(min=1)


def deep_supervision(outputs: Sequence[Tensor], target: Tensor, ignore_index: int) -> Tensor:
    """`dice_ce` over all decoder levels, finest first, weights 1, 1/2, 1/4, … normalised to sum 1.

    The coarsest of several levels gets no weight, as in nnU-Net; targets are taken at the voxels nearest to the coarse ones.
    """
    used = outputs if len(outputs) == 1 else outputs[:-1]
    weights = [0.5**i for i in range(len(used))]
    total = outputs[0].new_zeros((), dtype=torch.float32)
    for logits, weight in zip(used, weights):
        total = total + weight / sum(weights) * dice_ce(logits, nearest_resize(target, logits.shape[2:]), ignore_index)
    return total


def nearest_resize(target: Tensor, size: Sequence[int]) -> Tensor:
    """(B, *size) integers at another size by picking voxels: half-pixel centres, no values gained."""
    for axis, (have, want) in enumerate(zip(target.shape[1:], size), start=1):
        if have != want:
            index = ((torch.arange(want, device=target.device) + 0.5) * have / want).long()
            target = target.index_select(axis, index)
    return target
