"""Cross entropy minus soft Dice with its gradient written out: on a CPU half the time and memory of what autograd makes of it.

With p the softmax, y the true class of a voxel, w 1 where it is known and n the number of known voxels, I, S and P are sums over
the voxels of a sample: of p at the true class, of voxels of a class, of p of a class. Then D = (2 I + s) / (S + P + s), so that
dD/dI = 2 / (S + P + s) and dD/dP = -D / (S + P + s): each voxel's gradient is p times a number a class plus a number a voxel, but
for the true class. Only p is kept in float32; the gradient is written once, in the type of the logits.

Of several processes that share a batch each gives its part of the loss (see `distributed`).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from autoseg.training.distributed import all_reduce_sum

SMOOTH = 1e-5  # in numerator and denominator of the soft Dice, as nnU-Net
CLASSES_AT_ONCE = 8  # so that what lies between stays in the cache, and takes little memory


def dice_ce(logits: Tensor, target: Tensor, ignore_index: int, batch_dice: bool = False) -> Tensor:
    """Cross entropy minus soft Dice of the structures, between about -1 (perfect) and +inf.

    A true class is never taken for less likely than the smallest normal number of the type (1e-38 for float32).

    Source: Isensee et al., nnU-Net, Nature Methods 2021 (equal weights).
    """
    loss: Tensor = _DiceCe.apply(logits, target, ignore_index, batch_dice)
    return loss


class _DiceCe(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, ignore_index: int, batch_dice: bool) -> Tensor:
        kind = torch.promote_types(logits.dtype, torch.float32)
        known = (target != ignore_index).flatten(1)
        index = torch.where(known, target.flatten(1), 0).unsqueeze(1)
        weight = known.to(kind)
        p = F.softmax(logits.flatten(2), 1, dtype=kind)
        picked = p.gather(1, index).squeeze(1)
        count = all_reduce_sum(weight.sum()).clamp(min=1)
        cross_entropy = -(picked.clamp(min=torch.finfo(kind).tiny).log() * weight).sum() / count

        overlap, size, predicted = (by_comparing if p.is_cuda else by_adding)(p, index, picked, weight)
        annotated = weight.amax(1)
        if batch_dice:
            overlap, size, predicted = all_reduce_sum(torch.stack([overlap, size, predicted]).sum(1, keepdim=True))
            annotated = annotated.amax(0, keepdim=True)
        whole = size + predicted + SMOOTH
        dice = (2 * overlap + SMOOTH) / whole
        n = all_reduce_sum(annotated.sum()).clamp(min=1)
        share = (annotated / n / (p.shape[1] - 1)).unsqueeze(1).repeat(1, p.shape[1])
        share[:, 0] = 0  # background
        moved = share * n if batch_dice else share  # by the samples of a process the whole of a Dice that it gives a share of
        of_overlap, of_predicted = ((x / whole).expand(len(p), -1) for x in (-2 * moved, moved * dice))
        ctx.save_for_backward(p, index, weight, picked, of_overlap, of_predicted, count)
        ctx.logits = logits.dtype, logits.shape
        return cross_entropy - (dice * share).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (above,) = gradients
        p, index, weight, picked, of_overlap, of_predicted, count = ctx.saved_tensors
        kind, shape = ctx.logits
        at_true = picked * of_overlap.gather(1, index.squeeze(1))
        inner = torch.bmm(of_predicted.unsqueeze(1), p).squeeze(1) + at_true
        of_voxel = above * weight * (1 / count - inner)
        of_class = above * of_predicted
        gradient = torch.empty(p.shape, dtype=kind, device=p.device)
        for first in range(0, p.shape[1], CLASSES_AT_ONCE):
            some = slice(first, first + CLASSES_AT_ONCE)
            factor = torch.addcmul(of_voxel.unsqueeze(1), weight.unsqueeze(1), of_class[:, some].unsqueeze(2))
            torch.mul(factor, p[:, some], out=gradient[:, some])
        factor = of_voxel + weight * of_class.gather(1, index.squeeze(1))
        true = picked * factor + above * weight * (at_true - 1 / count)
        gradient.scatter_(1, index, true.to(kind).unsqueeze(1))  # whole, since sums of the parts would round in half precision
        return gradient.view(shape), None, None, None


def by_adding(p: Tensor, index: Tensor, picked: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """I, S and P (B, K) of probabilities (B, K, V), voxel after voxel.

    Args:
        index: (B, 1, V) true classes.
        picked: (B, V) probabilities of the true class.
        weight: (B, V).
    """
    classes = p.shape[1]
    rows = (torch.arange(len(p), device=p.device).unsqueeze(1) * classes + index.squeeze(1)).flatten()
    overlap, size = (
        p.new_zeros(len(p) * classes).index_add_(0, rows, values.flatten()).view(-1, classes)
        for values in (picked * weight, weight)
    )
    return overlap, size, torch.bmm(p, weight.unsqueeze(2)).squeeze(2)


def by_comparing(p: Tensor, index: Tensor, picked: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same, some classes after others: threads of a GPU would wait for each other to add to few sums."""
    found = []
    for first in range(0, p.shape[1], CLASSES_AT_ONCE):
        some = p[:, first : first + CLASSES_AT_ONCE]
        here = index == torch.arange(first, first + some.shape[1], device=p.device).unsqueeze(1)
        of_class = [torch.where(here, values.unsqueeze(1), 0).sum(2) for values in (picked * weight, weight)]
        found.append((*of_class, (some * weight.unsqueeze(1)).sum(2)))
    overlap, size, predicted = (torch.cat(parts, 1) for parts in zip(*found))
    return overlap, size, predicted
