"""Coarse views of landmark maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from autoseg.heatmaps import a_few


def pooled(maps: Tensor, factor: Sequence[int], summed: bool = False) -> Tensor:
    """Mean, or sum, over cells of `factor` voxels; the last cell along an axis may hold fewer.

    Args:
        maps: (B, N, *size).

    Returns:
        (B, N, *coarse), sizes divided by the factors and rounded up.
    """
    pool = F.avg_pool2d if len(factor) == 2 else F.avg_pool3d
    cell = [min(f, n) for f, n in zip(factor, maps.shape[2:])]
    return pool(maps, cell, ceil_mode=True, divisor_override=1 if summed else None)


def shares(logits: Tensor, factor: Sequence[int]) -> Tensor:
    """The probability that a landmark is in each cell of `factor` voxels, with "not here" as in `autoseg.heatmaps`.

    Apart from the logits no whole map is kept for the gradient, which is written out.

    Args:
        logits: (B, N, *size) of any float type.

    Returns:
        (B, N, *coarse) float32 or wider, sizes divided by the factors and rounded up.
    """
    found: Tensor = _Shares.apply(logits, tuple(factor))
    return found


class _Shares(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, factor: tuple[int, ...]) -> Tensor:
        rows = logits.detach().flatten(0, 1)
        kind = torch.promote_types(logits.dtype, torch.float32)
        log_z, cells = [], []
        for some in a_few(rows):
            values = rows[some].to(kind)
            log_z.append(F.softplus(values.flatten(1).logsumexp(1)))
            p = (values - _spread(log_z[-1], values)).exp_()
            cells.append(pooled(p.unsqueeze(0), factor, summed=True)[0])
        share = torch.cat(cells)
        ctx.save_for_backward(logits, torch.cat(log_z), share)
        ctx.factor = factor
        return share.unflatten(0, logits.shape[:2])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (above,) = gradients
        logits, log_z, share = ctx.saved_tensors
        above = above.flatten(0, 1)
        above = above - _spread((above * share).flatten(1).sum(1), above)
        rows = logits.detach().flatten(0, 1)
        gradient = torch.empty_like(rows)
        for some in a_few(rows):
            p = (rows[some].to(share.dtype) - _spread(log_z[some], rows)).exp_()
            gradient[some] = p.mul_(repeated(above[some], ctx.factor, rows.shape[1:]))
        return gradient.unflatten(0, logits.shape[:2]), None


def repeated(cells: Tensor, factor: Sequence[int], size: Sequence[int]) -> Tensor:
    """(N, *size), each voxel with the value of its cell, from (N, *coarse)."""
    for axis, (f, n) in enumerate(zip(factor, size), 1):
        cells = cells.repeat_interleave(f, axis).narrow(axis, 0, n)
    return cells


def _spread(values: Tensor, like: Tensor) -> Tensor:
    """(N,) so that they broadcast over (N, *size)."""
    return values.view(-1, *(1,) * (like.ndim - 1))
