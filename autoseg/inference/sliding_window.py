"""Sliding-window inference: Gaussian-weighted, batched, mirrored, for volumes of any size."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from autoseg.imaging.mirror_partners import LEFT_RIGHT_AXIS
from autoseg.plan.limits import LARGEST_SINGLE_WINDOW

Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Mirroring:
    """Test-time mirroring: the axes, and what changes sides under an x mirror.

    Args:
        axes: spatial axes (0 z, 1 y, 2 x); all combinations of them are averaged.
        partners: for each output channel its partner under an x mirror (left and right swap); None: no swap.
        swap_input: applied to the network's input under an x mirror, besides mirroring it; None: nothing is.
    """

    axes: Sequence[int] = ()
    partners: Sequence[int] | None = None
    swap_input: Network | None = None


NO_MIRRORING = Mirroring()


def window_starts(size: int, window: int, overlap: float) -> list[int]:
    """First index of each window along an axis: evenly spread, neighbours share `overlap` of a window or more, to the voxel."""
    if size <= window:
        return [0]
    steps = math.ceil((size - window) / max(1, window * (1 - overlap)))
    return [round(i * (size - window) / steps) for i in range(steps + 1)]


def fitted_window(shape: Sequence[int], window: Sequence[int], divisors: Sequence[int]) -> tuple[int, int, int]:
    """A window that takes in the whole case at once if that is hardly larger than the planned one, else the planned one.

    A case of 38 voxels under a window of 36 would otherwise be computed almost twice along that axis, eight times in 3D.

    Args:
        shape, window: voxels along (z, y, x).
        divisors: what the network's input must be a multiple of, per axis.
    """
    whole = tuple(max(w, -(-n // d) * d) for n, w, d in zip(shape, window, divisors))
    chosen = whole if math.prod(whole) <= LARGEST_SINGLE_WINDOW * math.prod(window) else window
    return chosen[0], chosen[1], chosen[2]


def count_windows(shape: Sequence[int], window: Sequence[int], overlap: float) -> int:
    """The number of windows that cover a volume of `shape`; both along (z, y, x)."""
    return math.prod(len(window_starts(n, w, overlap)) for n, w in zip(shape, window))


@lru_cache(maxsize=8)
def gaussian_weight(window: tuple[int, ...]) -> Tensor:
    """Weight of each voxel of a window: a Gaussian with sigma = 1/8 of the edge (nnU-Net), 1 in the centre, never 0."""
    weight = torch.ones(())
    for n in window:
        centre = torch.arange(n, dtype=torch.float32) - (n - 1) / 2
        weight = weight.unsqueeze(-1) * torch.exp(-0.5 * (centre / (n / 8)) ** 2)
    return weight.clamp(min=1e-4)  # corners stay well above float32 rounding of the sum


@torch.no_grad()
def predict_volume(
    volume: Tensor,
    network: Network,
    *,
    window: tuple[int, int, int],
    n_outputs: int,
    overlap: float,
    batch_size: int,
    mirroring: Mirroring = NO_MIRRORING,
    device: torch.device | None = None,
    strides: tuple[int, int, int] = (1, 1, 1),
) -> Tensor:
    """Outputs of a network for a whole volume: logits of classes, maps of landmarks.

    Args:
        volume: (C, Z, Y, X) float32.
        network: (B, C, *window) on `device` to (B, K, *size), with `size` the window divided by `strides`.
        n_outputs: K, the channels of the network's output.
        overlap: share of a window that neighbours have in common, at least.
        strides: voxels of the volume for one of the result, along each axis.

    Returns:
        (K, Z, Y, X) float32 on the CPU, sizes divided by `strides` and rounded up: the first edges of volume and result coincide.
        Only the windows of a batch live on `device`.
    """
    shape = volume.shape[1:]
    pads = [max(-(-n // s) * s, w) - n for n, w, s in zip(shape, window, strides)]
    edges = [(p // 2 // s * s, p - p // 2 // s * s) for p, s in zip(pads, strides)]
    padded = F.pad(volume, [e for pair in reversed(edges) for e in pair])
    coarse, size = ([n // s for n, s in zip(lengths, strides)] for lengths in (padded.shape[1:], window))
    weight = gaussian_weight(tuple(size))
    total = torch.zeros((n_outputs, *coarse))
    mass = torch.zeros(coarse)
    corners = list(itertools.product(*(window_starts(n, w, overlap) for n, w in zip(coarse, size))))
    for chunk in _chunks(corners, batch_size):
        targets = [(slice(None), *(slice(c, c + w) for c, w in zip(corner, size))) for corner in chunk]
        sources = [[slice(s * c, s * c + w) for s, c, w in zip(strides, corner, window)] for corner in chunk]
        batch = torch.stack([padded[(slice(None), *source)] for source in sources]).to(device, non_blocking=True)
        outputs = mirrored_mean(batch, network, mirroring).float().cpu()
        for target, output in zip(targets, outputs):
            total[target] += output * weight
            mass[target[1:]] += weight
    inner = tuple(slice(first // s, first // s - (-n // s)) for (first, _), n, s in zip(edges, shape, strides))
    total /= mass  # in place: a hundred classes of a large CT take gigabytes
    return total[(slice(None), *inner)].contiguous()


def mirrored_mean(batch: Tensor, network: Network, mirroring: Mirroring) -> Tensor:
    """Mean of a network's outputs for a batch and all its mirror images, each mirrored back.

    Args:
        batch: (B, C, Z, Y, X).
    """
    total: Tensor | None = None
    axes = mirroring.axes
    combinations = [c for n in range(len(axes) + 1) for c in itertools.combinations(axes, n)]
    for combination in combinations:
        dims = [a + 2 for a in combination]
        view = batch.flip(dims) if dims else batch
        if LEFT_RIGHT_AXIS in combination and mirroring.swap_input is not None:
            view = mirroring.swap_input(view)
        output = network(view)
        if dims:
            output = output.flip(dims)
        if LEFT_RIGHT_AXIS in combination and mirroring.partners is not None:
            output = output[:, list(mirroring.partners)]
        total = output.float() if total is None else total + output
    assert total is not None
    return total / len(combinations)


def _chunks(items: list[tuple[int, ...]], size: int) -> Iterator[list[tuple[int, ...]]]:
    for i in range(0, len(items), size):
        yield items[i : i + size]
