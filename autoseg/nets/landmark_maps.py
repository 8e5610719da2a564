"""Landmark positions from maps, as each landmark loss of a plan makes the maps mean it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from autoseg.nets.heatmaps import PeakCandidates, Peaks, expected_points, find_candidates, find_peaks, slices_at_once
from autoseg.plan import LandmarkLossName

SMALLEST_VALUE = 1e-4  # of maps whose values peak at 1: less is noise


def read_maps(maps: Tensor, loss: LandmarkLossName) -> Peaks:
    """Positions of landmarks, in voxels of the maps, and the probability that each is present.

    Maps that were learnt by `mse` hold values that peak at 1, and by `cone_bce` logits of each voxel alone; there the height of
    the peak counts as that probability. With `dsnt` the position is the mean under the softmax, which is what was learnt, and a
    landmark cannot be absent: the probability is 1, and the confidence is the share of the softmax around its highest voxel.

    Args:
        maps: (N, *shape) float32.
    """
    peaks = _read_peaks(_without_thin_axes(maps), loss)
    return replace(peaks, points=_with_thin_axes(peaks.points, maps.shape[1:]))


def read_candidates(landmark_map: Tensor) -> PeakCandidates:
    """The highest peaks of a landmark's map, in voxels of the map, which was learnt by `spatial_ce`.

    Args:
        landmark_map: (*shape) float32.
    """
    candidates = find_candidates(_without_thin_axes(landmark_map.unsqueeze(0))[0])
    return replace(candidates, points=_with_thin_axes(candidates.points, landmark_map.shape))


def _without_thin_axes(maps: Tensor) -> Tensor:
    """(N, *shape) maps without the axes that have one voxel, across which nothing can be fitted."""
    return maps.reshape(len(maps), *(n for n in maps.shape[1:] if n > 1))


def _with_thin_axes(points: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Coordinates with 0 along the axes that `_without_thin_axes` left out."""
    whole = np.zeros((len(points), len(shape)))
    whole[:, [axis for axis, n in enumerate(shape) if n > 1]] = points
    return whole


def _read_peaks(maps: Tensor, loss: LandmarkLossName) -> Peaks:
    """`read_maps` for maps with more than one voxel along each axis."""
    if loss == "spatial_ce":
        return find_peaks(maps)
    if loss == "dsnt":
        means = torch.cat([expected_points(maps[part][None])[0][0] for part in slices_at_once(maps)])
        peaks = find_peaks(maps)  # this softmax has no "not here": its shares are those of what is present
        share = peaks.confidence / peaks.presence
        return Peaks(means.double().cpu().numpy(), np.ones(len(maps)), share)
    values = maps.clamp(min=SMALLEST_VALUE).log() if loss == "mse" else F.logsigmoid(maps)
    height = values.flatten(1).amax(1).double().exp().clamp(max=1).cpu().numpy()
    return Peaks(find_peaks(values).points, height, height)
