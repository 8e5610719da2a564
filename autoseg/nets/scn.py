"""The spatial configuration branch: where each landmark should be, told from coarse maps of all of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoseg.nets.blocks import convolution
from autoseg.nets.pooling import pooled, refined, shares
from autoseg.plan import LandmarkLossName, ScnPlan

SLOPE = 0.1  # of the leaky ReLU (Payer et al. 2019)
OPEN = 2.0  # logit of a new gate, which lets 0.88 through and can still learn to shut; a convention
NARROW = 1e-3  # spread of the first weights of layers whose output is a map (the same, 3D)


class SpatialConfiguration(nn.Module):
    """Coarse maps of all landmarks, (B, N, *coarse), to coarse maps of where each should be, of the same shape.

    What it is fed comes from `look_at`, and what it says is brought together with the maps by `combine`. The papers multiply both
    maps (`product`), and, but for the first, bound what the branch says by tanh. For maps that are logits the same is a `gate`:
    the probability that the landmark may be there, which multiplies that of each voxel, so that its logarithm is added. It tells
    places apart without moving the peaks in them, since an open gate is flat. A `logit_sum` is free to slope, and moves them.
    Both start with a last layer of zeros: before training they favour no place.

    Args:
        loss: that the maps are trained with; tells what they mean.

    Source: Payer et al., Regressing Heatmaps for Multiple Landmark Localization Using CNNs, MICCAI 2016 (`per_landmark`);
    Integrating Spatial Configuration into Heatmap Regression Based CNNs for Landmark Localization, Medical Image Analysis 2019
    (`convolutions`); Coarse to Fine Vertebrae Localization and Segmentation with SpatialConfiguration-Net and U-Net, VISAPP 2020
    (`unet`).
    """

    def __init__(self, plan: ScnPlan, n_landmarks: int, loss: LandmarkLossName) -> None:
        super().__init__()
        self.plan, self.loss = plan, loss
        self.body, last = _body(plan, n_landmarks)
        weight, bias = last.weight, last.bias
        assert isinstance(weight, Tensor)
        assert isinstance(bias, Tensor)
        nn.init.constant_(bias, OPEN if plan.combine == "gate" else 0.0)
        if plan.combine == "product":
            nn.init.trunc_normal_(weight, std=NARROW)
        else:
            nn.init.zeros_(weight)

    def coarse_view(self, maps: Tensor) -> Tensor:
        """Coarse views of (B, N, *size) maps: probabilities of cells where maps are logits, means where they are values.

        Through the means the maps learn what the branch would like to see, as in the papers; through probabilities they do not.
        """
        if self.loss == "mse":
            return pooled(maps, self.plan.factor)
        if self.loss == "cone_bce":
            return torch.cat([pooled(one.sigmoid(), self.plan.factor) for one in maps.detach().split(1, dim=1)], dim=1)
        return shares(maps, self.plan.factor)

    def forward(self, coarse: Tensor) -> Tensor:
        found: Tensor = self.body(coarse)
        if self.plan.combine == "gate":
            return F.logsigmoid(found)
        if self.plan.combine == "logit_sum" or self.plan.form == "per_landmark":
            return found
        return found.tanh()

    def combine(self, maps: Tensor, spatial: Tensor) -> Tensor:
        """Final maps from (B, N, *size) maps and the coarse ones of `forward`, which are interpolated linearly."""
        wide = refined(spatial.to(maps.dtype), self.plan.factor, maps.shape[2:])
        return maps * wide if self.plan.combine == "product" else wide.add_(maps)


def _body(plan: ScnPlan, n_landmarks: int) -> tuple[nn.Module, nn.Module]:
    """The layers, and the last of them."""
    ndim, n = len(plan.factor), n_landmarks
    if plan.form == "per_landmark":
        alone = _FromOthers(ndim, n, plan.kernel)
        return alone, alone.weigh
    out = _wide(ndim, plan.features, n, plan.kernel)
    if plan.form == "unet":
        return nn.Sequential(_CoarseUNet(ndim, n, plan), out), out
    hidden = [_hidden(ndim, plan.features if layer else n, plan.features, plan.kernel) for layer in range(plan.layers)]
    return nn.Sequential(*hidden, out), out


class _FromOthers(nn.Module):
    """For each landmark one convolution over the maps of all others."""

    def __init__(self, ndim: int, n_landmarks: int, kernel: int) -> None:
        super().__init__()
        self.weigh = _wide(ndim, n_landmarks, n_landmarks, kernel)
        others = 1 - torch.eye(n_landmarks)
        self.register_buffer("others", others.view(n_landmarks, n_landmarks, *(1,) * ndim), persistent=False)

    def forward(self, coarse: Tensor) -> Tensor:
        assert isinstance(self.others, Tensor)
        weight = self.weigh.weight * self.others  # type: ignore[operator]
        found: Tensor = torch.func.functional_call(self.weigh, {"weight": weight, "bias": self.weigh.bias}, (coarse,))  # type: ignore[dict-item]
        return found


class _CoarseUNet(nn.Module):
    """Two convolutions a level; maps are halved from level to level, and added on the way back."""

    def __init__(self, ndim: int, n_landmarks: int, plan: ScnPlan) -> None:
        super().__init__()
        n, kernel = plan.features, plan.kernel
        self.down = nn.ModuleList(_hidden(ndim, n if level else n_landmarks, n, kernel) for level in range(plan.layers))
        self.up = nn.ModuleList(_hidden(ndim, n, n, kernel) for _ in range(plan.layers))

    def forward(self, x: Tensor) -> Tensor:
        half, kept = (2,) * (x.ndim - 2), []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else pooled(x, half))
            kept.append(x)
        for block in self.up:
            there = kept.pop()
            if x is not there:
                x = there + refined(x, half, there.shape[2:])
            x = block(x)
        return x


def _hidden(ndim: int, n_in: int, n_out: int, kernel: int) -> nn.Module:
    layer = _wide(ndim, n_in, n_out, kernel)
    nn.init.kaiming_normal_(layer.weight, a=SLOPE)  # type: ignore[arg-type]
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return nn.Sequential(layer, nn.LeakyReLU(SLOPE, inplace=True))


def _wide(ndim: int, n_in: int, n_out: int, kernel: int) -> nn.Module:
    return convolution(ndim, n_in, n_out, (kernel,) * ndim, (1,) * ndim, bias=True)
