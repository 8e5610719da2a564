"""Losses of landmark maps, by name.

Shapes throughout: logits (B, N, *patch) of any float type; points (B, N, d) voxel coordinates in the patch, anything where not
present; state (B, N) of `imaging.landmarks.State`; sigma in voxels, one an axis. A loss is the mean over the landmarks that are
known to be present or absent; unlabelled ones do not count, and a batch of nothing else gives 0. Each of several processes that
share a batch returns its part of the loss (see `training.distributed`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from autoseg.imaging.landmarks import State
from autoseg.nets.heatmaps import Boxes, expected_points, gaussian_boxes, gaussian_maps, rescale_points, slices_at_once
from autoseg.plan import Configuration, LandmarkLossName, LandmarkPlan
from autoseg.training.distributed import all_reduce_sum

CONE_RADIUS = 15  # voxels, as nnLandmark
HARDEST_SHARE = 0.2  # of the voxels: cone_bce learns from these, as nnLandmark

LandmarkLoss = Callable[[Tensor, Tensor, Tensor, Sequence[float]], Tensor]


def spatial_ce(logits: Tensor, points: Tensor, state: Tensor, sigma: Sequence[float]) -> Tensor:
    """Cross entropy of a softmax over all voxels and "not here" (logit 0), per landmark, against its Gaussian.

    With g the Gaussian it is log Z - sum of g·l. The part of the Gaussian outside the patch, all of it for an absent landmark,
    belongs to "not here". The gradient is written out: no whole map is kept but the logits and the gradient.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    boxes = _gaussians(logits, points.to(dtype), state, sigma)
    loss: Tensor = _SpatialCe.apply(logits, boxes.index, boxes.mass, _landmark_weight(state, dtype))
    return loss


class _SpatialCe(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, index: Tensor, mass: Tensor, weight: Tensor) -> Tensor:
        rows = logits.detach().flatten(2).flatten(0, 1)
        index, mass, weight = index.flatten(0, 1), mass.flatten(0, 1), weight.flatten()
        log_z = torch.cat([F.softplus(rows[part].to(mass.dtype).logsumexp(1)) for part in slices_at_once(rows)])
        loss = log_z - (rows.gather(1, index) * mass).sum(1)
        ctx.save_for_backward(logits, index, mass, log_z, weight)
        return (weight * loss).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (outer,) = gradients
        logits, index, mass, log_z, weight = ctx.saved_tensors
        rows = logits.flatten(2).flatten(0, 1)
        scale = (outer * weight).unsqueeze(1)
        log_z = log_z.unsqueeze(1)
        gradient = torch.empty_like(rows)
        for part in slices_at_once(rows):
            gradient[part] = (rows[part].to(mass.dtype) - log_z[part]).exp_().mul_(scale[part])
        # whole, since sums of the parts would round in half precision
        target = ((rows.gather(1, index) - log_z).exp() - mass) * scale
        # no scatter_: on a CPU it makes float32 copies of whole maps of two bytes
        gradient[torch.arange(len(rows), device=rows.device).unsqueeze(1), index] = target.to(gradient.dtype)
        return gradient.view(logits.shape), None, None, None


def mse(logits: Tensor, points: Tensor, state: Tensor, sigma: Sequence[float]) -> Tensor:
    """Half the sum of squared differences to Gaussians of peak 1 (heatmap regression; Payer et al., MICCAI 2016).

    The map is the network's output itself, which peaks at 1 and is no logit. A voxel of the target holds the mean of the Gaussian
    over its cube, so that sums are those of smooth Gaussians.
    """
    values = logits.to(torch.promote_types(logits.dtype, torch.float32))
    boxes = _gaussians(values, points.to(values.dtype), state, sigma)
    target = boxes.mass * math.prod(s * math.sqrt(2 * math.pi) for s in sigma)
    picked = values.flatten(2).gather(2, boxes.index)
    squares = values.flatten(2).square().sum(2) - (2 * picked * target - target.square()).sum(2)
    return (_landmark_weight(state, values.dtype) * squares).sum() / 2


def cone_bce(logits: Tensor, points: Tensor, state: Tensor, sigma: Sequence[float]) -> Tensor:
    """Binary cross entropy on a cone, 1 at the landmark and 0 from 15 voxels on, over the hardest fifth of each map's voxels.

    Source: nnLandmark (Ertl et al. 2025), with continuous centres, and with the cones of landmarks outside the patch.
    `sigma` is not used.
    """
    values = logits.to(torch.promote_types(logits.dtype, torch.float32))
    centre = _present_points(points, state).to(values.dtype)
    squared = values.new_zeros(())
    for axis, n in enumerate(values.shape[2:]):
        along = (torch.arange(n, dtype=values.dtype, device=values.device) - centre[..., axis, None]) ** 2
        squared = squared.unsqueeze(-1) + along.view(*along.shape[:2], *(1,) * axis, n)
    cone = (1 - squared.sqrt() / CONE_RADIUS).clamp(min=0) * _has_state(state, State.PRESENT, values.dtype).view(
        *state.shape, *(1,) * (values.ndim - 2)
    )
    losses = F.binary_cross_entropy_with_logits(values, cone, reduction="none").flatten(2)
    hardest = losses.topk(max(1, round(HARDEST_SHARE * losses.shape[2])), dim=2, sorted=False).values.mean(2)
    return (_landmark_weight(state, values.dtype) * hardest).sum()


def dsnt(logits: Tensor, points: Tensor, state: Tensor, sigma: Sequence[float]) -> Tensor:
    """Distance of the expected position plus Jensen-Shannon divergence of the softmax over space from the Gaussian.

    Distances are in coordinates that run from -1 to 1 between the outer edges of the patch. Landmarks that are absent or outside
    the patch do not count: this softmax cannot say "not here".

    Source: Nibali et al., Numerical Coordinate Regression with Convolutional Neural Networks, 2018.
    """
    shape = logits.shape[2:]
    values = logits.to(torch.promote_types(logits.dtype, torch.float32))
    truth = _present_points(points, state).to(values.dtype)
    size = torch.tensor(shape, dtype=values.dtype, device=values.device)
    inside = (state == State.PRESENT) & ((truth > -0.5) & (truth < size - 0.5)).all(-1)
    expected, _ = expected_points(values)
    # a square root has no gradient at 0
    distance = ((2 * (expected - truth) / size).square().sum(-1) + torch.finfo(values.dtype).tiny).sqrt()
    target = gaussian_maps(truth, sigma, shape).flatten(2)
    target = target / target.sum(2, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
    p = values.flatten(2).softmax(2)
    middle = (p + target) / 2
    divergence = (_entropy(middle) - (_entropy(p) + _entropy(target)) / 2).sum(2)
    weight = inside.to(values.dtype)
    return ((distance + divergence) * weight).sum() / all_reduce_sum(weight.sum()).clamp(min=1)


LANDMARK_LOSSES: dict[str, LandmarkLoss] = {"spatial_ce": spatial_ce, "mse": mse, "cone_bce": cone_bce, "dsnt": dsnt}


def _entropy(p: Tensor) -> Tensor:
    return -torch.xlogy(p, p.clamp(min=torch.finfo(p.dtype).tiny))


def _has_state(state: Tensor, which: State, dtype: torch.dtype) -> Tensor:
    return (state == which).to(dtype)


def _landmark_weight(state: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, N) equal weights of the labelled landmarks, which sum to 1 over the batch (to 0 where there are none)."""
    is_labelled = (state != State.UNLABELLED).to(dtype)
    return is_labelled / all_reduce_sum(is_labelled.sum()).clamp(min=1)


def _present_points(points: Tensor, state: Tensor) -> Tensor:
    """Points of present landmarks, and zeros for the others: a NaN times 0 is still NaN."""
    return torch.where((state == State.PRESENT).unsqueeze(-1), points, torch.zeros_like(points))


def _gaussians(logits: Tensor, points: Tensor, state: Tensor, sigma: Sequence[float]) -> Boxes:
    """The Gaussians of landmarks in their boxes, zeros for those that are not present."""
    boxes = gaussian_boxes(_present_points(points, state), sigma, logits.shape[2:])
    return Boxes(boxes.index, boxes.mass * _has_state(state, State.PRESENT, points.dtype).unsqueeze(-1))


def map_sigma(configuration: Configuration, plan: LandmarkPlan) -> tuple[float, ...]:
    """Target sigma in voxels of the landmark maps, one an axis."""
    c = configuration
    return tuple(mm / (v * s) for mm, v, s in zip(plan.sigma_mm, c.space.spacing_mm, c.network.strides[0]))


def landmark_loss(maps: Tensor, points: Tensor, state: Tensor, configuration: Configuration) -> Tensor:
    """The plan's landmark loss, divided by about its value for an untrained network.

    So it begins at 1, as the losses of label maps do, whatever the size of a patch and the number of landmarks.

    Args:
        maps: (B, N, *map_shape).
        points: (B, N, d) in voxels of the patch.
        state: (B, N).
    """
    plan = configuration.landmarks
    assert plan is not None
    sigma, shape = map_sigma(configuration, plan), maps.shape[2:]
    map_points = rescale_points(points, configuration.patch.patch_size, shape)
    return LANDMARK_LOSSES[plan.loss](maps, map_points, state, sigma) / _untrained_loss(plan.loss, sigma, shape)


def _untrained_loss(loss: LandmarkLossName, sigma: Sequence[float], shape: Sequence[int]) -> float:
    """About the loss of an untrained network."""
    if loss == "spatial_ce":
        return math.log(math.prod(shape))  # all voxels are equally likely
    if loss == "mse":
        return math.prod(s * math.sqrt(math.pi) for s in sigma) / 2  # half the sum of squares of a Gaussian of peak 1
    return math.log(2) if loss == "cone_bce" else 1.0  # every probability is 1/2; for DSNT distance and divergence
