"""Blocks of a U-Net, in two or three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.01  # of the leaky ReLU, as in nnU-Net


def convolution(ndim: int, n_in: int, n_out: int, kernel: Sequence[int], stride: Sequence[int], *, bias: bool) -> nn.Module:
    """A padded convolution: stride 1 keeps the size, stride 2 halves it (rounded up)."""
    cls = nn.Conv2d if ndim == 2 else nn.Conv3d
    return cls(n_in, n_out, tuple(kernel), tuple(stride), tuple(k // 2 for k in kernel), bias=bias)  # type: ignore[arg-type]


def channels_last(x: Tensor) -> Tensor:
    """`x` (B, C, *size) with its channels next to each other in memory, the order of oneDNN's fastest convolutions."""
    return x.to(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)


class InstanceNorm(nn.Module):
    """Instance normalisation with weight and bias (Ulyanov et al. 2016), of channels-last maps on a CPU and any on a GPU.

    Unlike torch's own modules it takes a single voxel of a single sample (and gives the bias), so that a bottleneck may be that
    small.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels)), eps

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda:
            return torch.instance_norm(x, self.weight, self.bias, None, None, True, 0.0, self.eps, True)
        normalised: Tensor = _NormEach.apply(x, self.weight, self.bias, self.eps)
        return normalised


class _NormEach(torch.autograd.Function):
    """Instance normalisation as batch normalisation of each sample by itself.

    It is torch's only norm on a CPU whose backward pass is made for channels-last maps; with that of group normalisation a whole
    step takes 1.16 times as long in float32, 2.2 times in bfloat16 (benchmarks/results/step.md, step_bf16.md).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        y = torch.empty_like(x)
        statistics = [
            torch.ops.aten.native_batch_norm.out(
                *(x[i : i + 1], weight, bias, None, None, True, 0.0, eps),
                out=y[i : i + 1],
                save_mean=weight.new_empty(len(weight)),
                save_invstd=weight.new_empty(len(weight)),
            )[1:]
            for i in range(len(x))
        ]
        ctx.save_for_backward(x, weight, *(value for pair in statistics for value in pair))
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        (gradient,) = gradients
        x, weight, *statistics = ctx.saved_tensors
        grad_x, grad_weight, grad_bias = torch.empty_like(x), torch.zeros_like(weight), torch.zeros_like(weight)
        for i in range(len(x)):
            parts = torch.ops.aten.native_batch_norm_backward(
                *(gradient[i : i + 1], x[i : i + 1], weight, None, None),
                *(statistics[2 * i], statistics[2 * i + 1], True, ctx.eps, [True, True, True]),
            )
            grad_x[i : i + 1], grad_weight, grad_bias = parts[0], grad_weight + parts[1], grad_bias + parts[2]
        return grad_x, grad_weight, grad_bias, None


class ConvBlock(nn.Sequential):
    """Convolution, instance norm, leaky ReLU."""

    def __init__(self, ndim: int, n_in: int, n_out: int, kernel: Sequence[int], stride: Sequence[int]) -> None:
        super().__init__(
            convolution(ndim, n_in, n_out, kernel, stride, bias=False),  # the norm takes any bias away again
            InstanceNorm(n_out),
            nn.LeakyReLU(SLOPE, inplace=True),
        )


class AveragePool(nn.Module):
    """Means over blocks of `stride` voxels; smaller ones at the end where it does not divide the size."""

    def __init__(self, stride: Sequence[int]) -> None:
        super().__init__()
        self.stride = tuple(stride)

    def forward(self, x: Tensor) -> Tensor:
        pool = F.avg_pool2d if x.ndim == 4 else F.avg_pool3d
        pooled: Tensor = pool(x, self.stride, self.stride, ceil_mode=True)
        return pooled if x.is_cuda else channels_last(pooled)  # avg_pool3d does not keep the order


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut (He et al. 2016, basic block); the shortcut averages where the block strides."""

    needs_stem = True  # so that the first shortcut, too, adds maps of the same width

    def __init__(self, ndim: int, n_in: int, n_out: int, kernel: Sequence[int], stride: Sequence[int]) -> None:
        super().__init__()
        self.first = ConvBlock(ndim, n_in, n_out, kernel, stride)
        self.second = convolution(ndim, n_out, n_out, kernel, (1,) * ndim, bias=False)
        self.norm = InstanceNorm(n_out)
        shortcut: list[nn.Module] = []
        if max(stride) > 1:
            shortcut.append(AveragePool(stride))
        if n_in != n_out:
            shortcut += [convolution(ndim, n_in, n_out, (1,) * ndim, (1,) * ndim, bias=False), InstanceNorm(n_out)]
        self.shortcut = nn.Sequential(*shortcut)
        self.act = nn.LeakyReLU(SLOPE, inplace=True)

    def initialise(self) -> None:
        """The last norm starts at zero, and so the block as its shortcut (as nnU-Net's ResEnc)."""
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.second(self.first(x))) + self.shortcut(x))


class Upsample(nn.Module):
    """A transposed convolution whose kernel equals its stride, computed as a 1×1 convolution and a reshape.

    Every output voxel depends on one input voxel, so this is the same linear map; it is several times faster on a CPU.
    """

    def __init__(self, ndim: int, n_in: int, n_out: int, stride: Sequence[int]) -> None:
        super().__init__()
        self.stride, self.n_out = tuple(stride), n_out
        self.expand = convolution(ndim, n_in, prod(stride) * n_out, (1,) * ndim, (1,) * ndim, bias=True)

    def initialise(self) -> None:
        """Weights as small as nnU-Net's transposed convolutions have, since no activation follows.

        The channels of a whole block of voxels count as their fan: half of what would be usual with twice the channels below.
        """
        nn.init.kaiming_normal_(self.expand.weight, a=SLOPE, mode="fan_out")  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        batch, _, *size = x.shape
        n = len(size)
        y = self.expand(x).reshape(batch, *self.stride, self.n_out, *size)
        axes = [axis for i in range(n) for axis in (2 + n + i, 1 + i)]  # each size axis, then its stride axis
        larger = [s * f for s, f in zip(size, self.stride)]
        if x.is_cuda:
            return y.permute(0, 1 + n, *axes).reshape(batch, self.n_out, *larger)
        return y.permute(0, *axes, 1 + n).reshape(batch, *larger, self.n_out).movedim(-1, 1)
