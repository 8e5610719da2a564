"""Coarse views of landmark maps, and interpolation back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from autoseg.nets.heatmaps import slices_at_once


def pool_cells(maps: Tensor, factor: Sequence[int], summed: bool = False) -> Tensor:
    """Mean, or sum, over cells of `factor` voxels; the last cell along an axis may be smaller.

    Args:
        maps: (B, N, *size).

    Returns:
        (B, N, *coarse), sizes divided by the factors and rounded up.
    """
    pool = F.avg_pool2d if len(factor) == 2 else F.avg_pool3d
    cell = [min(f, n) for f, n in zip(factor, maps.shape[2:])]
    return pool(maps, cell, ceil_mode=True, divisor_override=1 if summed else None)


def cell_probabilities(logits: Tensor, factor: Sequence[int]) -> Tensor:
    """The probability that a landmark is in each cell of `factor` voxels, with "not here" as in `nets.heatmaps`.

    No gradient flows back.

    Args:
        logits: (B, N, *size) of any float type.

    Returns:
        (B, N, *coarse) float32 or wider, sizes divided by the factors and rounded up.
    """
    rows = logits.detach().flatten(0, 1)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    cells = []
    for part in slices_at_once(rows):
        values = rows[part].to(dtype)
        highest = values.flatten(1).amax(1).clamp(min=0)  # the logit of "not here" is 0
        p = (values - _broadcastable(highest, values)).exp_()
        total = p.flatten(1).sum(1) + (-highest).exp()
        cells.append(pool_cells(p.unsqueeze(0), factor, summed=True)[0] / _broadcastable(total, values))
    return torch.cat(cells).unflatten(0, logits.shape[:2])


def interpolate_cells(coarse: Tensor, factor: Sequence[int], size: Sequence[int]) -> Tensor:
    """Linear interpolation between the centres of cells of `factor` voxels, constant beyond the outermost.

    An axis at a time, each as a product of matrices: several times as fast as `torch.nn.functional.interpolate` on a CPU.

    Args:
        coarse: (B, N, *coarse).

    Returns:
        (B, N, *size).
    """
    last = coarse.ndim - 1
    for axis in reversed(range(2, coarse.ndim)):
        weights = _interpolation(coarse.shape[axis], factor[axis - 2], size[axis - 2], coarse)
        if axis == last:
            coarse = coarse @ weights.T
        else:
            coarse = (weights @ coarse.flatten(axis + 1)).unflatten(-1, coarse.shape[axis + 1 :])
    return coarse


def _interpolation(cells: int, factor: int, size: int, like: Tensor) -> Tensor:
    """(size, cells) weight of each cell in each voxel."""
    position = ((torch.arange(size, device=like.device) + 0.5) / factor - 0.5).clamp(0, cells - 1)
    return (1 - (position.unsqueeze(1) - torch.arange(cells, device=like.device)).abs()).clamp(min=0).to(like.dtype)


def _broadcastable(values: Tensor, like: Tensor) -> Tensor:
    """(N,) values in a shape that broadcasts over `like`, (N, *size)."""
    return values.view(-1, *(1,) * (like.ndim - 1))
