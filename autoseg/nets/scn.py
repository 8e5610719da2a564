"""The spatial configuration branch: where each landmark should be, predicted from coarse maps of all landmarks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoseg.nets.blocks import convolution
from autoseg.nets.pooling import cell_probabilities, interpolate_cells, pool_cells
from autoseg.plan import LandmarkLossName, ScnPlan

SLOPE = 0.1  # of the leaky ReLU (Payer et al. 2019)
OPEN_GATE = 2.0  # logit of an untrained gate, which lets 0.88 through and can still learn to shut; a convention
NARROW_SD = 1e-3  # standard deviation of the first weights of layers whose output is a map (the same paper, 3D)


class SpatialConfiguration(nn.Module):
    """Predicts from coarse maps of all landmarks, (B, N, *coarse), where each should be: coarse maps of the same shape.

    Its input comes from `coarse_view`, and `combine` joins its output with the maps. The papers multiply both maps (`product`),
    and all but the first bound the output by tanh. For maps that are logits the counterpart is a `gate`: the probability that
    the landmark may be there, which multiplies that of each voxel, so that its logarithm is added. It tells regions apart without
    moving the peaks in them, since an open gate is flat. A `logit_sum` is free to slope, and moves them. Both start with a last
    layer of zeros: before training they favour no voxel.

    Args:
        loss: the loss that the maps are trained with, which decides what they mean.

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
        nn.init.constant_(bias, OPEN_GATE if plan.combine == "gate" else 0.0)
        if plan.combine == "product":
            nn.init.trunc_normal_(weight, std=NARROW_SD)
        else:
            nn.init.zeros_(weight)

    def coarse_view(self, maps: Tensor) -> Tensor:
        """Coarse views of (B, N, *size) maps: probabilities of cells where maps are logits, means where they are values.

        Through means the maps learn what the branch needs, as in the papers; through probabilities no gradient flows.
        """
        if self.loss == "mse":
            return pool_cells(maps, self.plan.factor)
        if self.loss == "cone_bce":
            return torch.cat([pool_cells(each.sigmoid(), self.plan.factor) for each in maps.detach().split(1, dim=1)], dim=1)
        return cell_probabilities(maps, self.plan.factor)

    def forward(self, coarse: Tensor) -> Tensor:
        output: Tensor = self.body(coarse)
        if self.plan.combine == "gate":
            return F.logsigmoid(output)
        if self.plan.combine == "logit_sum" or self.plan.form == "per_landmark":
            return output
        return output.tanh()

    def combine(self, maps: Tensor, spatial: Tensor) -> Tensor:
        """Final maps from (B, N, *size) maps and the output of `forward`, which is interpolated linearly."""
        fine = interpolate_cells(spatial.to(maps.dtype), self.plan.factor, maps.shape[2:])
        return maps * fine if self.plan.combine == "product" else fine.add_(maps)


def _body(plan: ScnPlan, n_landmarks: int) -> tuple[nn.Module, nn.Module]:
    """The layers of a branch, and the last of them."""
    ndim, n = len(plan.factor), n_landmarks
    if plan.form == "per_landmark":
        layer = _FromOthers(ndim, n, plan.kernel)
        return layer, layer.weigh
    last = _square_convolution(ndim, plan.features, n, plan.kernel)
    if plan.form == "unet":
        return nn.Sequential(_CoarseUNet(ndim, n, plan), last), last
    hidden = [_hidden_layer(ndim, plan.features if layer else n, plan.features, plan.kernel) for layer in range(plan.layers)]
    return nn.Sequential(*hidden, last), last


class _FromOthers(nn.Module):
    """For each landmark one convolution over the maps of all others."""

    def __init__(self, ndim: int, n_landmarks: int, kernel: int) -> None:
        super().__init__()
        self.weigh = _square_convolution(ndim, n_landmarks, n_landmarks, kernel)
        others = 1 - torch.eye(n_landmarks)
        self.register_buffer("others", others.view(n_landmarks, n_landmarks, *(1,) * ndim), persistent=False)

    def forward(self, coarse: Tensor) -> Tensor:
        assert isinstance(self.others, Tensor)
        weight = self.weigh.weight * self.others  # type: ignore[operator]
        parameters = {"weight": weight, "bias": self.weigh.bias}
        output: Tensor = torch.func.functional_call(self.weigh, parameters, (coarse,))  # type: ignore[arg-type]
        return output


class _CoarseUNet(nn.Module):
    """Two convolutions a level; maps are halved from level to level, and skip connections add."""

    def __init__(self, ndim: int, n_landmarks: int, plan: ScnPlan) -> None:
        super().__init__()
        n, kernel = plan.features, plan.kernel
        self.down = nn.ModuleList(_hidden_layer(ndim, n if level else n_landmarks, n, kernel) for level in range(plan.layers))
        self.up = nn.ModuleList(_hidden_layer(ndim, n, n, kernel) for _ in range(plan.layers))

    def forward(self, x: Tensor) -> Tensor:
        half, skips = (2,) * (x.ndim - 2), []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else pool_cells(x, half))
            skips.append(x)
        for block in self.up:
            skip = skips.pop()
            if x is not skip:
                x = skip + interpolate_cells(x, half, skip.shape[2:])
            x = block(x)
        return x


def _hidden_layer(ndim: int, n_in: int, n_out: int, kernel: int) -> nn.Module:
    layer = _square_convolution(ndim, n_in, n_out, kernel)
    nn.init.kaiming_normal_(layer.weight, a=SLOPE)  # type: ignore[arg-type]
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return nn.Sequential(layer, nn.LeakyReLU(SLOPE, inplace=True))


def _square_convolution(ndim: int, n_in: int, n_out: int, kernel: int) -> nn.Module:
    return convolution(ndim, n_in, n_out, (kernel,) * ndim, (1,) * ndim, bias=True)
