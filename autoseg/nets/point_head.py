"""From the finest features of a decoder to a map for each landmark."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from autoseg.nets.blocks import convolution
from autoseg.nets.scn import NARROW_SD, SpatialConfiguration
from autoseg.plan import LandmarkLossName, ScnPlan


class PointHead(nn.Module):
    """A 1×1 convolution, (B, C, *size) to (B, N, *size), and a spatial configuration branch if there is one.

    In eval mode it computes in float32, since peaks are read to a fraction of a voxel from differences between neighbours, and
    leaves the branch to the caller, who applies it when the maps of all windows of an image have been put together.

    Args:
        loss: decides how the head is initialised.
        voxels: of a map in training.
        scn: the branch; None for none.
    """

    def __init__(
        self,
        ndim: int,
        n_features: int,
        n_landmarks: int,
        *,
        loss: LandmarkLossName,
        voxels: int,
        scn: ScnPlan | None = None,
    ) -> None:
        super().__init__()
        self.scn = None if scn is None else SpatialConfiguration(scn, n_landmarks, loss)
        self.local = convolution(ndim, n_features, n_landmarks, (1,) * ndim, (1,) * ndim, bias=True)
        weight, bias = self.local.weight, self.local.bias
        assert isinstance(weight, Tensor)
        assert isinstance(bias, Tensor)
        nn.init.zeros_(bias)
        if loss == "mse":  # most of the values are 0 (Payer et al. 2019)
            nn.init.trunc_normal_(weight, std=NARROW_SD)
        else:
            nn.init.kaiming_normal_(weight, nonlinearity="linear")
        if loss == "spatial_ce":
            initialise_undecided(self.local, voxels)

    def forward(self, features: Tensor, landmarks: Sequence[int] | None = None) -> Tensor:
        """Maps of landmarks from (B, C, *size) features.

        Args:
            landmarks: numbers of those whose maps are wanted; None means all.
        """
        if self.training:
            maps = self._maps(features, landmarks)
            if self.scn is None:
                return maps
            maps = maps.contiguous()  # several steps want each map in one piece
            return self.scn.combine(maps, self.scn(self.scn.coarse_view(maps)))
        with torch.autocast(features.device.type, enabled=False):
            return self._maps(features.float(), landmarks)

    def _maps(self, features: Tensor, landmarks: Sequence[int] | None) -> Tensor:
        if landmarks is None:
            maps: Tensor = self.local(features)
            return maps
        rows = list(landmarks)
        weights = {"weight": self.local.weight[rows], "bias": self.local.bias[rows]}  # type: ignore[index]
        return torch.func.functional_call(self.local, weights, (features,))


def initialise_undecided(head: nn.Module, voxels: int) -> None:
    """Sets the bias of a landmark head so that an untrained network gives "not here" the probability of the whole patch.

    Args:
        head: the convolution that makes the logits.
        voxels: of a map.
    """
    assert isinstance(head.bias, Tensor)
    nn.init.constant_(head.bias, -math.log(voxels))
