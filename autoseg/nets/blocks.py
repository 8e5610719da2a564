"""The pieces of a U-Net, in two or three dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

SLOPE = 0.01  # of the leaky ReLU, as in nnU-Net


def convolution(ndim: int, n_in: int, n_out: int, kernel: Sequence[int], stride: Sequence[int], bias: bool) -> nn.Module:
    """A padded convolution: stride 1 keeps the size, stride 2 halves it (rounded up)."""
    kind = nn.Conv2d if ndim == 2 else nn.Conv3d
    return kind(n_in, n_out, tuple(kernel), tuple(stride), tuple(k // 2 for k in kernel), bias=bias)  # type: ignore[arg-type]


class InstanceNorm(nn.GroupNorm):
    """Instance normalisation, on a CPU as group normalisation with one channel a group: the same numbers, three times as fast.

    On a GPU autocast would turn the input of a group normalisation into float32; that of an instance normalisation stays as it
    is, which halves the memory. Unlike torch's own modules it takes a single voxel of a single sample (and gives the bias), so
    that a bottleneck may be that small.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, eps=1e-5)

    def forward(self, input: Tensor) -> Tensor:
        if input.is_cuda:
            return torch.instance_norm(input, self.weight, self.bias, None, None, True, 0.0, self.eps, True)
        return torch.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class ConvBlock(nn.Sequential):
    """Convolution, instance norm, leaky ReLU."""

    def __init__(self, ndim: int, n_in: int, n_out: int, kernel: Sequence[int], stride: Sequence[int]) -> None:
        super().__init__(
            convolution(ndim, n_in, n_out, kernel, stride, bias=False),  # the norm takes any bias away again
            InstanceNorm(n_out),
            nn.LeakyReLU(SLOPE, inplace=True),
        )


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut (He et al. 2016, basic block); the shortcut averages where the block strides."""

    def __init__(self, ndim: int, n_in: int, n_out: int, kernel: Sequence[int], stride: Sequence[int]) -> None:
        super().__init__()
        self.first = ConvBlock(ndim, n_in, n_out, kernel, stride)
        self.second = convolution(ndim, n_out, n_out, kernel, (1,) * ndim, bias=False)
        self.norm = InstanceNorm(n_out)
        shortcut: list[nn.Module] = []
        if max(stride) > 1:
            pool = nn.AvgPool2d if ndim == 2 else nn.AvgPool3d
            shortcut.append(pool(tuple(stride), tuple(stride), ceil_mode=True))  # type: ignore[arg-type]
        if n_in != n_out:
            shortcut += [convolution(ndim, n_in, n_out, (1,) * ndim, (1,) * ndim, bias=False), InstanceNorm(n_out)]
        self.shortcut = nn.Sequential(*shortcut)
        self.act = nn.LeakyReLU(SLOPE, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.second(self.first(x))) + self.shortcut(x))


class Upsample(nn.Module):
    """A transposed convolution whose kernel equals its stride, computed as a 1×1 convolution and a reshape.

    Every output voxel depends on one input voxel, so this is the same linear map; it is several times faster on a CPU.
    """

    def __init__(self, ndim: int, n_in: int, n_out: int, stride: Sequence[int]) -> None:
        super().__init__()
        self.stride, self.n_out = tuple(stride), n_out
        self.expand = convolution(ndim, n_in, n_out * int(torch.tensor(stride).prod()), (1,) * ndim, (1,) * ndim, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, *size = x.shape
        n = len(size)
        y = self.expand(x).reshape(batch, self.n_out, *self.stride, *size)
        axes = [axis for i in range(n) for axis in (2 + n + i, 2 + i)]  # each size axis, then its stride axis
        return y.permute(0, 1, *axes).reshape(batch, self.n_out, *(s * f for s, f in zip(size, self.stride)))
