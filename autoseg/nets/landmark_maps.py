"""What the maps of landmarks mean: how they are learnt, and how places are read from them, for each loss of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from autoseg.nets.heatmaps import PeakCandidates, Peaks, a_few, expected_points, find_peaks, find_rivals
from autoseg.plan import LandmarkLossName

SMALLEST = 1e-4  # of a map whose values peak at 1: less is noise


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


def read_candidates(one: Tensor) -> PeakCandidates:
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
