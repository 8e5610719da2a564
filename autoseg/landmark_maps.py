"""What the maps of landmarks mean: how they are learnt, and how places are read from them, for each loss of a plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from autoseg.heatmaps import Peaks, Rivals, a_few, at_size, expected_points, find_peaks, find_rivals
from autoseg.losses import LANDMARK_LOSSES
from autoseg.plan import Configuration, LandmarkLossName, LandmarkPlan

SMALLEST = 1e-4  # of a map whose values peak at 1: less is noise


def map_sigma(configuration: Configuration, plan: LandmarkPlan) -> tuple[float, ...]:
    """Standard deviation of the Gaussian that a landmark is, in voxels of the maps."""
    c = configuration
    return tuple(mm / (v * s) for mm, v, s in zip(plan.sigma_mm, c.space.spacing_mm, c.network.strides[0]))


def landmark_loss(maps: Tensor, points: Tensor, state: Tensor, configuration: Configuration) -> Tensor:
    """The loss of the plan, divided by about what it is of a network that has not learnt anything.

    So it begins at 1, as the losses of label maps do, whatever the size of a patch and the number of landmarks.

    Args:
        maps: (B, N, *map_shape).
        points: (B, N, d) in voxels of the patch.
        state: (B, N).
    """
    plan = configuration.landmarks
    assert plan is not None
    sigma, shape = map_sigma(configuration, plan), maps.shape[2:]
    there = at_size(points, configuration.patch.patch_size, shape)
    return LANDMARK_LOSSES[plan.loss](maps, there, state, sigma) / _at_first(plan.loss, sigma, shape)


def read_maps(maps: Tensor, loss: LandmarkLossName) -> Peaks:
    """Where the landmarks are, in voxels of the maps, and with what probability they are there at all.

    Maps that were learnt by `mse` hold values that peak at 1, and by `cone_bce` logits of each voxel alone; there the height of
    the peak counts as that probability. With `dsnt` the place is the mean under the softmax, which is what was learnt, and a
    landmark cannot be absent: it is 1, and the confidence is the share of the softmax around its highest voxel.

    Args:
        maps: (N, *shape) float32.
    """
    peaks = _read_thick(_thick(maps), loss)
    return replace(peaks, points=_with_thin(peaks.points, maps.shape[1:]))


def read_rivals(one: Tensor) -> Rivals:
    """The highest peaks of a landmark's map, in voxels of the map, which was learnt by `spatial_ce`.

    Args:
        one: (*shape) float32.
    """
    found = find_rivals(_thick(one.unsqueeze(0))[0])
    return replace(found, points=_with_thin(found.points, one.shape))


def _thick(maps: Tensor) -> Tensor:
    """(N, *shape) maps without the axes that have one voxel, across which nothing can be fitted."""
    return maps.reshape(len(maps), *(n for n in maps.shape[1:] if n > 1))


def _with_thin(points: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Coordinates with 0 along the axes that `_thick` left out."""
    whole = np.zeros((len(points), len(shape)))
    whole[:, [axis for axis, n in enumerate(shape) if n > 1]] = points
    return whole


def _read_thick(maps: Tensor, loss: LandmarkLossName) -> Peaks:
    """Of maps with more than one voxel along each axis."""
    if loss == "spatial_ce":
        return find_peaks(maps)
    if loss == "dsnt":
        means = torch.cat([expected_points(maps[some][None])[0][0] for some in a_few(maps)])
        peaks = find_peaks(maps)  # there is no "not here", so that shares of what is here count
        share = peaks.confidence / peaks.presence
        return Peaks(means.double().cpu().numpy(), np.ones(len(maps)), share)
    values = maps.clamp(min=SMALLEST).log() if loss == "mse" else F.logsigmoid(maps)
    height = values.flatten(1).amax(1).double().exp().clamp(max=1).cpu().numpy()
    return Peaks(find_peaks(values).points, height, height)


def _at_first(loss: LandmarkLossName, sigma: Sequence[float], shape: Sequence[int]) -> float:
    """The loss of a network that has learnt nothing."""
    if loss == "spatial_ce":
        return math.log(math.prod(shape))  # any voxel is as likely
    if loss == "mse":
        return math.prod(s * math.sqrt(math.pi) for s in sigma) / 2  # half the sum of squares of a Gaussian of peak 1
    return math.log(2) if loss == "cone_bce" else 1.0  # a voxel is as likely one as the other; distance and divergence
