"""Landmark maps from points for training, and points from maps for prediction. Sub-voxel coordinates throughout, 2D or 3D.

A map is a distribution over the voxels of a patch and one more class, "not here", whose logit is fixed at 0: with l the logits of
a landmark, voxel v has probability exp(l_v) / Z and "not here" 1 / Z, where Z = 1 + sum of exp(l). So logits have an absolute
scale, and those of overlapping windows can be averaged. The truth is a Gaussian, each voxel holding what of it falls into its
cube; it sums to 1 over all space, so what lies outside the patch belongs to "not here".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from autoseg.plan.limits import MAP_ELEMENTS_AT_ONCE

REACH = 4.0  # sigmas; what lies beyond (6e-5 along an axis) counts as outside


@dataclass(frozen=True, eq=False)
class Boxes:
    """Gaussians without the voxels where they are 0: a box of K voxels for each landmark.

    Args:
        index: (B, N, K) int64, of the voxels in the flattened patch, each once.
        mass: (B, N, K) the share of the Gaussian that falls into each.
    """

    index: Tensor
    mass: Tensor


def gaussian_boxes(points: Tensor, sigma: Sequence[float], shape: Sequence[int]) -> Boxes:
    """The Gaussian around each point in a patch of `shape`, without a map of the patch.

    Args:
        points: (B, N, d) finite voxel coordinates, inside the patch or not; 0 is the centre of the first voxel.
        sigma: in voxels, one an axis.
    """
    index = torch.zeros((*points.shape[:2], 1), dtype=torch.int64, device=points.device)
    mass = torch.ones((*points.shape[:2], 1), dtype=points.dtype, device=points.device)
    for axis, (s, n) in enumerate(zip(sigma, shape)):
        centre = points[..., axis, None]
        reach = math.ceil(REACH * s)
        width = min(n, 2 * reach + 1)
        first = (centre.round() - reach).clamp(0, n - width)
        voxels = first + torch.arange(width, device=points.device)
        edges = torch.cat([voxels - 0.5, voxels[..., -1:] + 0.5], dim=-1)
        along = torch.special.erf((edges - centre) / (s * math.sqrt(2))).diff(dim=-1) / 2
        index = (index.unsqueeze(-1) * n + voxels.long().unsqueeze(-2)).flatten(2)
        mass = (mass.unsqueeze(-1) * along.unsqueeze(-2)).flatten(2)
    return Boxes(index, mass)


def gaussian_maps(points: Tensor, sigma: Sequence[float], shape: Sequence[int]) -> Tensor:
    """(B, N, *shape) maps of the Gaussian around each point; arguments as in `gaussian_boxes`."""
    boxes = gaussian_boxes(points, sigma, shape)
    flat = points.new_zeros((*points.shape[:2], math.prod(shape)))
    return flat.scatter_(2, boxes.index, boxes.mass).unflatten(2, tuple(shape))


def slices_at_once(maps: Tensor | np.ndarray) -> list[slice]:
    """Slices over (N, *shape) maps that are small enough to be computed with at a time."""
    n = max(1, MAP_ELEMENTS_AT_ONCE // math.prod(maps.shape[1:]))
    return [slice(i, i + n) for i in range(0, len(maps), n)]


def rescale_points(points: Tensor, shape: Sequence[int], size: Sequence[int]) -> Tensor:
    """Coordinates in a patch of `shape`, converted to the same patch sampled with `size` voxels (edges coincide)."""
    factor = torch.tensor([b / a for a, b in zip(shape, size)], dtype=points.dtype, device=points.device)
    return (points + 0.5) * factor - 0.5


def expected_points(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of the position under a softmax over space alone, without "not here" (DSNT).

    Args:
        logits: (B, N, *shape).

    Returns:
        Two (B, N, d) tensors in voxels and voxels².

    Source: Nibali et al., Numerical Coordinate Regression with Convolutional Neural Networks, 2018.
    """
    shape = logits.shape[2:]
    dtype = torch.promote_types(logits.dtype, torch.float32)
    p = logits.flatten(2).softmax(2, dtype=dtype).unflatten(2, shape)
    means, variances = [], []
    for axis, n in enumerate(shape):
        along = p.sum([2 + summed for summed in range(len(shape)) if summed != axis])
        voxels = torch.arange(n, dtype=dtype, device=p.device)
        mean = along @ voxels
        means.append(mean)
        variances.append((along * (voxels - mean.unsqueeze(-1)) ** 2).sum(-1))
    return torch.stack(means, -1), torch.stack(variances, -1)


@dataclass(frozen=True, eq=False)
class Peaks:
    """The highest peak of each of N maps.

    Args:
        points: (N, d) float64 voxel coordinates.
        presence: (N,) float64 probability that the landmark is in the map at all.
        confidence: (N,) float64 probability that the landmark is in the neighbourhood of the peak.
    """

    points: np.ndarray
    presence: np.ndarray
    confidence: np.ndarray


@dataclass(frozen=True, eq=False)
class PeakCandidates:
    """The peaks of one map, the highest first.

    Args:
        points: (K, d) float64 coordinates.
        mass: (K,) float64 probability of the neighbourhood of each.
    """

    points: np.ndarray
    mass: np.ndarray


RADIUS = 2  # voxels: neighbourhood of a peak that a Gaussian is fitted to
MOST_CANDIDATES = 6  # peaks of a map
PEAK_DISTANCE = 4  # voxels around a peak among which none is higher


@torch.no_grad()
def find_peaks(logits: Tensor | np.ndarray, radius: int = RADIUS) -> Peaks:
    """The position in each map, to a fraction of a voxel: a Gaussian fitted to the neighbourhood of its highest voxel.

    The logarithm of a Gaussian is a quadratic polynomial, so this is a linear least-squares fit, each voxel weighted by its
    probability. It is exact for a Gaussian of any width and direction, beyond the border, too. Where the fit has no maximum
    nearby, the position is the highest voxel.

    Args:
        logits: (N, *shape); a memory map is read a few maps at a time.
    """
    shape = tuple(logits.shape[1:])
    parts = [_read_peaks(torch.as_tensor(logits[part]), shape, radius) for part in slices_at_once(logits)]
    points, presence, confidence = (torch.cat(column).cpu().numpy() for column in zip(*parts))
    return Peaks(points, presence, confidence)


@torch.no_grad()
def find_candidates(logits: Tensor) -> PeakCandidates:
    """The highest peaks of a map, read as in `find_peaks`.

    Args:
        logits: (*shape), 2D or 3D.
    """
    shape = tuple(logits.shape)
    values = logits.to(torch.promote_types(logits.dtype, torch.float32))[None, None]
    highest = values
    for axis in range(len(shape)):  # one axis after another: the maximum of a box in a fraction of the time
        moved = values.movedim(axis + 2, -1).shape
        rows = highest.movedim(axis + 2, -1).reshape(1, -1, moved[-1])
        highest = F.max_pool1d(rows, 2 * PEAK_DISTANCE + 1, 1, PEAK_DISTANCE).reshape(moved).movedim(-1, axis + 2)
    tops = (highest == values).flatten().nonzero().squeeze(1)
    flat = values.flatten()
    tops = tops[flat[tops].argsort(descending=True, stable=True)[:MOST_CANDIDATES]]
    points, mass = _read_neighbourhoods(
        flat.expand(len(tops), -1), _unravel(tops, shape), flat.logsumexp(0).double(), shape, RADIUS
    )
    return PeakCandidates(points.cpu().numpy(), mass.cpu().numpy())


def _read_peaks(logits: Tensor, shape: tuple[int, ...], radius: int) -> tuple[Tensor, Tensor, Tensor]:
    flat = logits.flatten(1).to(torch.promote_types(logits.dtype, torch.float32))
    log_sum = flat.logsumexp(1).double()
    points, confidence = _read_neighbourhoods(flat, _unravel(flat.argmax(1), shape), log_sum.unsqueeze(1), shape, radius)
    return points, log_sum.sigmoid(), confidence


def _read_neighbourhoods(
    flat: Tensor, highest: Tensor, log_sum: Tensor, shape: tuple[int, ...], radius: int
) -> tuple[Tensor, Tensor]:
    """Vertices (N, d) of the Gaussians fitted around one voxel of each map, and probabilities (N,) of their neighbourhoods.

    Args:
        flat: (N, V) logits.
        highest: (N, d) the voxels.
        log_sum: logarithm of the sum of exp(logits) of each map, in a shape that broadcasts over (N, V).
    """
    index = torch.zeros((len(flat), 1), dtype=torch.int64, device=flat.device)
    for axis, n in enumerate(shape):
        width = min(n, 2 * radius + 1)
        voxels = (highest[:, axis, None] - radius).clamp(0, n - width) + torch.arange(width, device=flat.device)
        index = (index.unsqueeze(-1) * n + voxels.unsqueeze(-2)).flatten(1)
    values = flat.gather(1, index).double()
    mass = (values - F.softplus(log_sum)).exp().sum(1)
    offsets = (_unravel(index, shape) - highest.unsqueeze(1)).double()
    return highest + _vertex(offsets, values - values.amax(1, keepdim=True), radius), mass


def _vertex(offsets: Tensor, values: Tensor, radius: int) -> Tensor:
    """(N, d) maximum of the polynomial through (N, K) log probabilities at (N, K, d) offsets; 0 if there is none nearby."""
    ndim = offsets.shape[-1]
    first, second = torch.triu_indices(ndim, ndim)
    terms = torch.cat([torch.ones_like(offsets[..., :1]), offsets, offsets[..., first] * offsets[..., second]], dim=-1)
    weighted = terms * values.exp().unsqueeze(-1)
    normal = weighted.mT @ terms + 1e-12 * torch.eye(terms.shape[-1], dtype=terms.dtype, device=terms.device)
    fitted = torch.linalg.solve(normal, weighted.mT @ values.unsqueeze(-1)).squeeze(-1)
    hessian = fitted.new_zeros((len(fitted), ndim, ndim))
    hessian[:, first, second] = fitted[:, ndim + 1 :]
    hessian = hessian + hessian.mT  # twice the square terms on the diagonal, the mixed ones beside it
    root, failed = torch.linalg.cholesky_ex(-hessian)
    vertex = torch.cholesky_solve(fitted[:, 1 : ndim + 1, None], root).squeeze(-1)
    near = (failed == 0) & (vertex.abs().amax(1) <= radius)
    return torch.where(near.unsqueeze(1), vertex, torch.zeros_like(vertex))


def _unravel(index: Tensor, shape: Sequence[int]) -> Tensor:
    """(..., d) coordinates of flat indices."""
    axes = []
    for n in reversed(shape):
        axes.append(index % n)
        index = index // n
    return torch.stack(axes[::-1], -1)
