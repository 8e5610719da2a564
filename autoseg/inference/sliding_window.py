"""Sliding-window inference: Gaussian-weighted, batched, mirrored, for volumes of any size."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from autoseg.plan.limits import LARGEST_SINGLE_WINDOW

Network = Callable[[Tensor], Tensor]


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
    window: tuple[int, int, int],
    n_classes: int,
    overlap: float,
    batch_size: int,
    mirror_axes: Sequence[int] = (),
    mirrored_class: Sequence[int] | None = None,
    device: torch.device | None = None,
    mirrored_input: Network | None = None,
    strides: tuple[int, int, int] = (1, 1, 1),
) -> Tensor:
    """Logits of a whole volume.

    Args:
        volume: (C, Z, Y, X) float32.
        network: (B, C, *window) on `device` to (B, K, *size), with `size` the window divided by `strides`.
        mirror_axes: spatial axes (0 z, 1 y, 2 x) to mirror; all combinations are averaged.
        mirrored_class: for each class its partner under an x mirror (left and right swap); None: no swap.
        mirrored_input: what an x mirror does to the network's input besides mirroring it, if anything.
        strides: voxels of the volume for one of the result, along each axis.

    Returns:
        (K, Z, Y, X) float32 on the CPU, sizes divided by `strides` and rounded up: the first edges of volume and result coincide.
        Only the windows of a batch live on `device`.
    """
    shape = volume.shape[1:]
    pads = [max(-(-n // s) * s, w) - n for n, w, s in zip(shape, window, strides)]
    edges = [(p // 2 // s * s, p - p // 2 // s * s) for p, s in zip(pads, strides)]
    padded = F.pad(volume, [e for pair in reversed(edges) for e in pair])
    coarse, size = ([n // s for n, s in zip(edge, strides)] for edge in (padded.shape[1:], window))
    weight = gaussian_weight(tuple(size))
    total = torch.zeros((n_classes, *coarse))
    mass = torch.zeros(coarse)
    corners = list(itertools.product(*(window_starts(n, w, overlap) for n, w in zip(coarse, size))))
    for chunk in _chunks(corners, batch_size):
        places = [(slice(None), *(slice(c, c + w) for c, w in zip(corner, size))) for corner in chunk]
        seen = [[slice(s * c, s * c + w) for s, c, w in zip(strides, corner, window)] for corner in chunk]
        batch = torch.stack([padded[(slice(None), *voxels)] for voxels in seen]).to(device, non_blocking=True)
        logits = mirrored_mean(batch, network, mirror_axes, mirrored_class, mirrored_input).float().cpu()
        for place, window_logits in zip(places, logits):
            total[place] += window_logits * weight
            mass[place[1:]] += weight
    inner = tuple(slice(before // s, before // s - (-n // s)) for (before, _), n, s in zip(edges, shape, strides))
    total /= mass  # in place: a hundred classes of a large CT take gigabytes
    return total[(slice(None), *inner)].contiguous()


def mirrored_mean(
    batch: Tensor,
    network: Network,
    axes: Sequence[int],
    mirrored_class: Sequence[int] | None,
    mirrored_input: Network | None,
) -> Tensor:
    """Mean of a network's outputs for a batch and all its mirror images, each mirrored back; see `predict_volume`."""
    total: Tensor | None = None
    combinations = [c for n in range(len(axes) + 1) for c in itertools.combinations(axes, n)]
    for combination in combinations:
        dims = [a + 2 for a in combination]
        view = batch.flip(dims) if dims else batch
        if 2 in combination and mirrored_input is not None:
            view = mirrored_input(view)
        logits = network(view)
        if dims:
            logits = logits.flip(dims)
        if 2 in combination and mirrored_class is not None:
            logits = logits[:, list(mirrored_class)]
        total = logits.float() if total is None else total + logits
    assert total is not None
    return total / len(combinations)


def _chunks(items: list[tuple[int, ...]], size: int) -> Iterator[list[tuple[int, ...]]]:
    for i in range(0, len(items), size):
        yield items[i : i + size]
