"""Cross entropy minus soft Dice with its gradient written out: on a CPU half the time and memory of what autograd makes of it.

With p the softmax, y the true class of a voxel, w 1 where it is known and n the number of known voxels, I, S and P are sums over
the voxels of a sample: of p at the true class, of voxels of a class, of p of a class. Then D = (2 I + s) / (S + P + s), so that
dD/dI = 2 / (S + P + s) and dD/dP = -D / (S + P + s): apart from the true class, each voxel's gradient is p times (a number for
the class plus a number for the voxel). Only p is kept in float32; the gradient is written once, in the type of the logits.

Each of several processes that share a batch returns its part of the loss (see `training.distributed`).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from autoseg.training.distributed import all_reduce_sum

SMOOTH = 1e-5  # in numerator and denominator of the soft Dice, as nnU-Net
CLASSES_AT_ONCE = 8  # so that intermediate values stay in the cache, and take little memory


def dice_ce(logits: Tensor, target: Tensor, ignore_index: int, batch_dice: bool = False) -> Tensor:
    """Cross entropy minus soft Dice of the structures, between about -1 (perfect) and +inf.

    The probability of a true class counts as at least the smallest normal number of the type (1e-38 for float32).

    Source: Isensee et al., nnU-Net, Nature Methods 2021 (equal weights).
    """
    loss: Tensor = _DiceCe.apply(logits, target, ignore_index, batch_dice)
    return loss


class _DiceCe(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, ignore_index: int, batch_dice: bool) -> Tensor:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        is_known = (target != ignore_index).flatten(1)
        index = torch.where(is_known, target.flatten(1), 0).unsqueeze(1)
        weight = is_known.to(dtype)
        p = F.softmax(logits.flatten(2), 1, dtype=dtype)
        picked = p.gather(1, index).squeeze(1)
        count = all_reduce_sum(weight.sum()).clamp(min=1)
        cross_entropy = -(picked.clamp(min=torch.finfo(dtype).tiny).log() * weight).sum() / count

        overlap, size, predicted = (sums_by_comparing if p.is_cuda else sums_by_adding)(p, index, picked, weight)
        annotated = weight.amax(1)
        if batch_dice:
            overlap, size, predicted = all_reduce_sum(torch.stack([overlap, size, predicted]).sum(1, keepdim=True))
            annotated = annotated.amax(0, keepdim=True)
        total = size + predicted + SMOOTH
        dice = (2 * overlap + SMOOTH) / total
        n = all_reduce_sum(annotated.sum()).clamp(min=1)
        share = (annotated / n / (p.shape[1] - 1)).unsqueeze(1).repeat(1, p.shape[1])
        share[:, 0] = 0  # background
        # with batch Dice every process's samples change the whole Dice, of which it returns 1/n
        slope = share * n if batch_dice else share
        grad_overlap, grad_predicted = ((x / total).expand(len(p), -1) for x in (-2 * slope, slope * dice))
        ctx.save_for_backward(p, index, weight, picked, grad_overlap, grad_predicted, count)
        ctx.logits = logits.dtype, logits.shape
        return cross_entropy - (dice * share).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (outer,) = gradients
        p, index, weight, picked, grad_overlap, grad_predicted, count = ctx.saved_tensors
        dtype, shape = ctx.logits
        at_true = picked * grad_overlap.gather(1, index.squeeze(1))
        inner = torch.bmm(grad_predicted.unsqueeze(1), p).squeeze(1) + at_true
        voxel_factor = outer * weight * (1 / count - inner)
        class_factor = outer * grad_predicted
        gradient = torch.empty(p.shape, dtype=dtype, device=p.device)
        for first in range(0, p.shape[1], CLASSES_AT_ONCE):
            part = slice(first, first + CLASSES_AT_ONCE)
            factor = torch.addcmul(voxel_factor.unsqueeze(1), weight.unsqueeze(1), class_factor[:, part].unsqueeze(2))
            torch.mul(factor, p[:, part], out=gradient[:, part])
        factor = voxel_factor + weight * class_factor.gather(1, index.squeeze(1))
        true = picked * factor + outer * weight * (at_true - 1 / count)
        gradient.scatter_(1, index, true.to(dtype).unsqueeze(1))  # whole, since sums of the parts would round in half precision
        return gradient.view(shape), None, None, None


def sums_by_adding(p: Tensor, index: Tensor, picked: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums I, S and P, (B, K) each, of probabilities (B, K, V), added voxel by voxel.

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


def sums_by_comparing(p: Tensor, index: Tensor, picked: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums I, S and P as in `sums_by_adding`, a few classes at a time.

    On a GPU it is faster: there threads would wait for each other to add to few sums.
    """
    sums = []
    for first in range(0, p.shape[1], CLASSES_AT_ONCE):
        part = p[:, first : first + CLASSES_AT_ONCE]
        is_class = index == torch.arange(first, first + part.shape[1], device=p.device).unsqueeze(1)
        overlap, size = (torch.where(is_class, values.unsqueeze(1), 0).sum(2) for values in (picked * weight, weight))
        sums.append((overlap, size, (part * weight.unsqueeze(1)).sum(2)))
    overlap, size, predicted = (torch.cat(parts, 1) for parts in zip(*sums))
    return overlap, size, predicted
