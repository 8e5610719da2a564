"""Losses of label maps, with deep supervision, without one-hot copies of the label map.

Shapes throughout: logits (B, K, *size) of any float type, target (B, *size) int64 class indices. Voxels of `ignore_index` do not
count, and a batch of nothing else gives 0. Sums are float32 (float64 for float64 logits). Where Dice is part of a loss,
`batch_dice` takes its sums over the whole batch instead of each sample: for small patches or single slices, which often lack
a structure altogether. Each of several processes that share a batch returns its part of the loss (see `training.distributed`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from autoseg.training.distributed import all_reduce_sum
from autoseg.training.losses.dice_ce import SMOOTH, dice_ce

GAMMA = 2.0  # of the focal loss (Lin et al. 2017)
WORST_SHARE = 0.1  # of the voxels: topk_ce learns from these, as nnU-Net's variant

Loss = Callable[[Tensor, Tensor, int, bool], Tensor]


@dataclass(frozen=True)
class Voxels:
    """Log probabilities and targets of the voxels that count, (B, *size) unless another shape is given.

    Args:
        log_p: (B, K, *size) log probabilities.
        picked: log probability of the true class; meaningless where the voxel does not count.
        is_known: true where the voxel counts.
        target: class index, 0 where the voxel does not count.
    """

    log_p: Tensor
    picked: Tensor
    is_known: Tensor
    target: Tensor

    @staticmethod
    def of(logits: Tensor, target: Tensor, ignore_index: int) -> Voxels:
        is_known = target != ignore_index
        safe = torch.where(is_known, target, 0)
        log_p = F.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=1)
        return Voxels(log_p, log_p.gather(1, safe.unsqueeze(1)).squeeze(1), is_known, safe)

    def mean(self, values: Tensor) -> Tensor:
        """Mean of (B, *size) values over the voxels that count."""
        return (values * self.is_known).sum() / all_reduce_sum(self.is_known.sum()).clamp(min=1)


def ce(logits: Tensor, target: Tensor, ignore_index: int, batch_dice: bool = False) -> Tensor:
    """Cross entropy, mean over voxels."""
    voxels = Voxels.of(logits, target, ignore_index)
    return -voxels.mean(voxels.picked)


def balanced_ce(logits: Tensor, target: Tensor, ignore_index: int, batch_dice: bool = False) -> Tensor:
    """Cross entropy in which every class that the batch shows has the same weight, however many voxels it has.

    Source: Xie & Tu, Holistically-Nested Edge Detection, ICCV 2015 (two classes, weights 1 - share); here for any number.
    """
    voxels = Voxels.of(logits, target, ignore_index)
    flat, weight = voxels.target.flatten(), voxels.is_known.flatten().to(voxels.picked.dtype)
    count = all_reduce_sum(weight.new_zeros(logits.shape[1]).index_add_(0, flat, weight))
    total = weight.new_zeros(logits.shape[1]).index_add_(0, flat, (voxels.picked * voxels.is_known).flatten())
    return -(total / count.clamp(min=1)).sum() / (count > 0).sum().clamp(min=1)


def topk_ce(logits: Tensor, target: Tensor, ignore_index: int, batch_dice: bool = False) -> Tensor:
    """Cross entropy of the worst tenth of the voxels (Wu et al. 2016; nnU-Net's TopK10 variant).

    Each of several processes takes the worst tenth of its own voxels.
    """
    voxels = Voxels.of(logits, target, ignore_index)
    losses = -voxels.picked[voxels.is_known]
    n = min(len(losses), max(1, round(WORST_SHARE * len(losses))))
    return losses.topk(n, sorted=False).values.sum() / all_reduce_sum(torch.tensor(n, device=losses.device)).clamp(min=1)


def focal(logits: Tensor, target: Tensor, ignore_index: int, batch_dice: bool = False) -> Tensor:
    """(1 - p)² · cross entropy, p the probability of the true class: voxels that are right already hardly count.

    Source: Lin et al., Focal Loss, ICCV 2017, without class weights.
    """
    return _focal(Voxels.of(logits, target, ignore_index))


def dice(logits: Tensor, target: Tensor, ignore_index: int, batch_dice: bool = False) -> Tensor:
    """Minus the mean soft Dice of the structures (background left out), between -1 (perfect) and 0."""
    return -_soft_dice(Voxels.of(logits, target, ignore_index), batch_dice)


def dice_focal(logits: Tensor, target: Tensor, ignore_index: int, batch_dice: bool = False) -> Tensor:
    """Focal loss minus soft Dice (Zhu et al., AnatomyNet, Medical Physics 2019)."""
    voxels = Voxels.of(logits, target, ignore_index)
    return _focal(voxels) - _soft_dice(voxels, batch_dice)


def deep_supervision(
    outputs: Sequence[Tensor], target: Tensor, ignore_index: int, loss: Loss = dice_ce, batch_dice: bool = False
) -> Tensor:
    """A loss over all decoder levels, finest first, weights 1, 1/2, 1/4, … normalised to sum 1.

    The coarsest of several levels gets no weight, as in nnU-Net; targets are taken at the voxels nearest to the coarse ones.
    """
    used = outputs if len(outputs) == 1 else outputs[:-1]
    weights = [0.5**i for i in range(len(used))]
    total = outputs[0].new_zeros((), dtype=torch.float32)
    for logits, weight in zip(used, weights):
        level = loss(logits, nearest_resize(target, logits.shape[2:]), ignore_index, batch_dice)
        total = total + weight / sum(weights) * level
    return total


def nearest_resize(target: Tensor, size: Sequence[int]) -> Tensor:
    """(B, *size) integers at another size, each the nearest voxel: half-pixel centres, no new values."""
    for axis, (old, new) in enumerate(zip(target.shape[1:], size), start=1):
        if old != new:
            index = ((torch.arange(new, device=target.device) + 0.5) * old / new).long()
            target = target.index_select(axis, index)
    return target


def _focal(voxels: Voxels) -> Tensor:
    return -voxels.mean((1 - voxels.picked.exp()) ** GAMMA * voxels.picked)


def _soft_dice(voxels: Voxels, batch_dice: bool) -> Tensor:
    """Mean soft Dice over structures, and over the samples with an annotated voxel or, with `batch_dice`, once for the batch."""
    batch, classes = voxels.log_p.shape[:2]
    weight = voxels.is_known.flatten(1).to(voxels.log_p.dtype)
    predicted = (voxels.log_p.exp().flatten(2) * weight.unsqueeze(1)).sum(2)
    rows = (torch.arange(batch, device=weight.device).unsqueeze(1) * classes + voxels.target.flatten(1)).flatten()
    overlap = _sum_rows(rows, (voxels.picked.exp() * voxels.is_known).flatten(), batch, classes)
    size = _sum_rows(rows, weight.flatten(), batch, classes)
    annotated = weight.amax(1)
    if batch_dice:
        overlap, size, predicted = all_reduce_sum(torch.stack([overlap, size, predicted]).sum(1, keepdim=True))
        annotated = annotated.amax(0, keepdim=True)
    ratio = (2 * overlap + SMOOTH) / (size + predicted + SMOOTH)
    mean, n = ratio[:, 1:].mean(1) * annotated, all_reduce_sum(annotated.sum()).clamp(min=1)
    if batch_dice:  # every process's samples change the whole Dice, of which it returns 1/n
        return (mean - mean.detach() * (1 - 1 / n)).sum()
    return mean.sum() / n


def _sum_rows(rows: Tensor, values: Tensor, batch: int, classes: int) -> Tensor:
    """(B, K) sums of the values of each row, a class of a sample."""
    return values.new_zeros(batch * classes).index_add_(0, rows, values).view(batch, classes)
