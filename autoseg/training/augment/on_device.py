"""Augmentation with torch on a GPU, to which the voxels of a patch are copied as they are stored.

The values are those of `apply_spatial` and `apply_intensity` up to rounding; only the noise, which the device draws, differs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from autoseg.imaging.geometry import Box
from autoseg.imaging.mirror_partners import LEFT_RIGHT_AXIS
from autoseg.training.augment.intensity import Intensity
from autoseg.training.augment.spatial import Spatial

BLUR_REACH = 4  # standard deviations, as scipy.ndimage.gaussian_filter


def host_tensor(array: np.ndarray, device: torch.device) -> Tensor:
    """A tensor on the CPU, in page-locked memory if `device` is a GPU, which copies from there by itself.

    uint16, of which torch knows little, becomes int32.
    """
    tensor = torch.from_numpy(np.require(array, np.int32 if array.dtype == np.uint16 else None, ["C", "W"]))
    return tensor.pin_memory() if device.type == "cuda" else tensor


@torch.no_grad()
def sampling_grid(spatials: Sequence[Spatial], boxes: Sequence[Box], device: torch.device) -> Tensor:
    """(B, *shape, 3) positions of the voxels of B patches in their boxes, x first, for `torch.nn.functional.grid_sample`.

    A box spans -1 to 1 from edge to edge. Mirroring is included, so that a patch is sampled once.

    Args:
        spatials: of the patches, all of the same shape.
        boxes: `source_box` of each.
    """
    maps = host_tensor(np.stack([_patch_to_box(*pair) for pair in zip(spatials, boxes)]), device).to(device, non_blocking=True)
    along = maps.view(len(maps), 1, 1, 1, 3, 4).unbind(-1)
    grid = along[3]
    for axis, n in enumerate(spatials[0].shape):  # not F.affine_grid, a matrix product, which may compute in TF32
        ramp = torch.arange(1 - n, n, 2, device=device) / n
        grid = grid + along[2 - axis] * ramp.view(-1, *(1,) * (3 - axis))
    return grid


@torch.no_grad()
def apply_spatial_on(
    spatial: Spatial, grid: Tensor, image: Tensor, labels: Sequence[Tensor], mirrored_class: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Interpolates the voxels of a patch from those of its box, on the device of `grid`; the counterpart of `apply_spatial`.

    Args:
        grid: (*shape, 3) of the patch, from `sampling_grid`.
        image, labels, mirrored_class: as in `apply_spatial`.

    Returns:
        (C, *shape) float32 and int64 class indices (*shape).
    """
    device = grid.device
    data = F.grid_sample(image.to(device, non_blocking=True).float()[None], grid[None], "bilinear", "zeros", align_corners=False)
    sent = [label.to(device, non_blocking=True)[None, None].float() for label in labels]
    classes = [F.grid_sample(label, grid[None], "nearest", "zeros", align_corners=False)[0, 0].long() for label in sent]
    if LEFT_RIGHT_AXIS in spatial.mirror:
        classes = [mirrored_class[label] for label in classes]
    return data[0], classes


@torch.no_grad()
def apply_intensity_on(image: Tensor, steps: tuple[Intensity, ...]) -> Tensor:
    """Applies one `Intensity` a channel to a (C, Z, Y, X) float32 tensor, which does not change; see `apply_intensity`."""
    return torch.stack([_with_intensity(channel, step) for channel, step in zip(image, steps)])


def _patch_to_box(spatial: Spatial, box: Box) -> np.ndarray:
    """(3, 4) affine map from patch to box, x first, where both span -1 to 1.

    Its numbers are small, however far from its origin the case reaches.
    """
    to_edges = 2 / np.array(box.shape)
    sign = np.array([-1 if axis in spatial.mirror else 1 for axis in range(3)])
    matrix = spatial.matrix * to_edges[:, None] * (np.array(spatial.shape) / 2 * sign)
    middle = (spatial.centre - box.start + 0.5) * to_edges - 1
    return np.hstack([matrix[::-1, ::-1], middle[::-1, None]]).astype(np.float32)


def _with_intensity(x: Tensor, step: Intensity) -> Tensor:
    """A (Z, Y, X) channel after its changes."""
    if step.noise is not None:
        sd, seed = step.noise
        generator = torch.Generator(x.device).manual_seed(seed)
        x = x + sd * torch.randn(x.shape, generator=generator, device=x.device)
    if step.blur is not None:
        x = _blurred(x, step.blur)
    if step.brightness is not None:
        x = x * step.brightness
    if step.contrast is not None:
        mean, low, high = x.mean(), x.min(), x.max()
        x = torch.minimum(torch.maximum((x - mean) * step.contrast + mean, low), high)
    if step.zoom is not None:
        coarse = [max(1, round(n * step.zoom)) if n > 1 else 1 for n in x.shape]
        small = F.interpolate(x[None, None], size=coarse, mode="nearest-exact")
        x = F.interpolate(small, size=x.shape, mode="trilinear", align_corners=False)[0, 0]
    if step.inverted_gamma is not None:
        x = -_gamma(-x, step.inverted_gamma)
    if step.gamma is not None:
        x = _gamma(x, step.gamma)
    return x


def _blurred(x: Tensor, sigma: float) -> Tensor:
    """`x` after a Gaussian filter along each axis; the border is mirrored, its voxels included."""
    reach = int(BLUR_REACH * sigma + 0.5)
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()
    for axis, n in enumerate(x.shape):
        if n > 1:
            index = np.arange(-reach, n + reach) % (2 * n)
            wide = x.index_select(axis, torch.from_numpy(np.minimum(index, 2 * n - 1 - index)).to(x.device, non_blocking=True))
            x = torch.zeros_like(x)
            for first, weight in enumerate(weights.tolist()):
                x = x.add(wide.narrow(axis, first, n), alpha=weight)
    return x


def _gamma(x: Tensor, gamma: float) -> Tensor:
    """x**gamma as in `intensity`, without reading a value from the device, which would hold up the CPU."""
    low, high, mean, sd = x.min(), x.max(), x.mean(), x.std(correction=0)
    curved = ((x - low) / (high - low).clamp(min=1e-6)) ** gamma
    changed = (curved - curved.mean()) / curved.std(correction=0).clamp(min=1e-8) * sd + mean
    return torch.where(high - low < 1e-6, x, changed)
