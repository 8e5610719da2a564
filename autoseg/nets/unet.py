"""Plain and residual-encoder U-Nets (Ronneberger et al. 2015; Isensee et al. 2021, 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from autoseg.nets.blocks import SLOPE, ConvBlock, Upsample, channels_last, convolution
from autoseg.nets.point_head import PointHead
from autoseg.plan import NetworkPlan
from autoseg.plan.registries import BLOCKS


class Output(NamedTuple):
    """The output of a network for a batch.

    Args:
        logits: of the classes, (B, K, *size) each, full resolution first; one entry only in eval mode or without deep
            supervision, none without structures.
        maps: (B, N, *size) of the landmarks, at the resolution of the finest stage; None without landmarks.
    """

    logits: list[Tensor]
    maps: Tensor | None


class UNet(nn.Module):
    """Encoder, decoder, one 1×1 head per decoder level for structures, and one at the finest for landmarks.

    Input (B, C, *patch), or (B, C + 1, *patch) after a previous stage: the last channel then holds what that predicted, as
    numbers of structures or landmarks, of which the encoder sees one channel each. Every axis of the input must be a multiple of
    the product of its strides.

    Args:
        n_classes: structures and background; 0 without label maps.
        n_previous_classes: how many numbers the last channel may hold beside 0; 0 without a previous stage.
        point_head: makes the landmarks' maps from the finest decoder features, whatever their size; None without landmarks.
    """

    def __init__(
        self,
        plan: NetworkPlan,
        n_channels: int,
        n_classes: int,
        *,
        n_previous_classes: int = 0,
        point_head: PointHead | None = None,
    ) -> None:
        super().__init__()
        self.segments = n_classes > 0
        self.n_previous_classes = n_previous_classes
        n_channels += n_previous_classes
        ndim = len(plan.strides[0])
        ones = (1,) * ndim
        block = BLOCKS[plan.kind]
        needs_stem = getattr(block, "needs_stem", False)
        self.deep_supervision = plan.deep_supervision
        width = plan.features[0] if needs_stem else n_channels
        self.stem = ConvBlock(ndim, n_channels, width, plan.kernel_sizes[0], ones) if needs_stem else nn.Identity()
        self.encoder = nn.ModuleList()
        for features, stride, kernel, blocks in zip(plan.features, plan.strides, plan.kernel_sizes, plan.encoder_blocks):
            convolutions = [
                block(ndim, width if i == 0 else features, features, kernel, stride if i == 0 else ones) for i in range(blocks)
            ]
            self.encoder.append(nn.Sequential(*convolutions))
            width = features
        self.up, self.decoder, self.heads = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(len(plan.features) - 1)):
            features, kernel = plan.features[level], plan.kernel_sizes[level]
            self.up.append(Upsample(ndim, plan.features[level + 1], features, plan.strides[level + 1]))
            convolutions = [
                ConvBlock(ndim, 2 * features if i == 0 else features, features, kernel, ones)
                for i in range(plan.decoder_blocks[level])
            ]
            self.decoder.append(nn.Sequential(*convolutions))
            supervised = self.segments and (level == 0 or plan.deep_supervision)
            self.heads.append(convolution(ndim, features, n_classes, ones, ones, bias=True) if supervised else nn.Identity())
        self.apply(_initialise)
        self.point_head = point_head

    def forward(self, x: Tensor, landmarks: Sequence[int] | None = None) -> Output:
        """Class logits and landmark maps of a batch.

        Args:
            landmarks: numbers of those whose maps are wanted, in the order that they are wanted in; None means all.
        """
        x = self._with_one_hot_previous(x) if self.n_previous_classes else x
        x = self.stem(x if x.is_cuda else channels_last(x))
        skips = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        outputs = []
        finest = len(self.decoder) - 1
        for i, (up, stage, head) in enumerate(zip(self.up, self.decoder, self.heads)):
            x = stage(torch.cat([up(x), skips[-2 - i]], dim=1))
            if self.segments and (i == finest or (self.training and self.deep_supervision)):
                outputs.append(head(x))
        none_wanted = landmarks is not None and not len(landmarks)
        return Output(outputs[::-1], None if self.point_head is None or none_wanted else self.point_head(x, landmarks))

    def _with_one_hot_previous(self, x: Tensor) -> Tensor:
        """`x` with its last channel, the numbers that the previous stage predicted, as one channel of zeros and ones each."""
        indices = torch.arange(1, self.n_previous_classes + 1, device=x.device, dtype=x.dtype).view(-1, *(1,) * (x.ndim - 2))
        return torch.cat([x[:, :-1], (x[:, -1:] == indices).to(x.dtype)], dim=1)


def _initialise(module: nn.Module) -> None:
    """He initialisation for leaky ReLU, no bias; then the initialisation of a module's own, if it has one."""
    if isinstance(module, (nn.Conv2d, nn.Conv3d)):
        nn.init.kaiming_normal_(module.weight, a=SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if callable(initialise := getattr(module, "initialise", None)):
        initialise()
