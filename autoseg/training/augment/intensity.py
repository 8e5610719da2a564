"""Intensity augmentation: nnU-Net's list of transforms and probabilities, through batchgenerators where it offers them.

batchgenerators draws from NumPy's global generator; every range it gets here is a single value, so that it draws nothing and
the result follows from `Intensity` alone (the noise carries its own seed).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from batchgenerators.augmentations.color_augmentations import augment_brightness_multiplicative, augment_contrast
from batchgenerators.augmentations.noise_augmentations import augment_gaussian_blur
from batchgenerators.augmentations.resample_augmentations import augment_linear_downsampling_scipy


@dataclass(frozen=True)
class Intensity:
    """Intensity changes of one channel of a patch; None leaves a change out. Units are those of the normalised image."""

    noise: tuple[float, int] | None = None  # standard deviation, seed
    blur: float | None = None  # sigma, voxels
    brightness: float | None = None  # factor
    contrast: float | None = None  # factor around the mean
    zoom: float | None = None  # remaining share of the resolution, 0…1
    inverted_gamma: float | None = None
    gamma: float | None = None


def draw_intensity(rng: np.random.Generator, channels: int) -> tuple[Intensity, ...]:
    """Draws one `Intensity` a channel, with the probabilities and ranges of nnU-Net v2 (batchgeneratorsv2 defaults)."""

    def maybe(p: float) -> bool:
        return bool(rng.random() < p)

    noise, blur, zoom = maybe(0.1), maybe(0.2), maybe(0.25)
    brightness, contrast = maybe(0.15), maybe(0.15)
    inverted, gamma = maybe(0.1), maybe(0.3)
    noise_sd = rng.uniform(0, 0.1)
    return tuple(
        Intensity(
            noise=(noise_sd, int(rng.integers(2**31))) if noise else None,
            blur=rng.uniform(0.5, 1.0) if blur and maybe(0.5) else None,
            brightness=_draw_around_one(rng, 0.75, 1.25) if brightness else None,
            contrast=_draw_around_one(rng, 0.75, 1.25) if contrast else None,
            zoom=rng.uniform(0.5, 1.0) if zoom and maybe(0.5) else None,
            inverted_gamma=_draw_around_one(rng, 0.7, 1.5) if inverted else None,
            gamma=_draw_around_one(rng, 0.7, 1.5) if gamma else None,
        )
        for _ in range(channels)
    )


def apply_intensity(image: np.ndarray, steps: tuple[Intensity, ...]) -> np.ndarray:
    """Applies one `Intensity` a channel to a (C, Z, Y, X) float32 patch; works in place where it can and returns the patch."""
    for c, step in enumerate(steps):
        view = image[c : c + 1]
        if step.noise is not None:
            sd, seed = step.noise
            view += sd * np.random.default_rng(seed).standard_normal(view.shape, dtype=np.float32)
        if step.blur is not None:
            augment_gaussian_blur(view, (step.blur, step.blur), per_channel=False)
        if step.brightness is not None:
            augment_brightness_multiplicative(view, (step.brightness, step.brightness), per_channel=False)
        if step.contrast is not None:
            factor = step.contrast
            augment_contrast(view, contrast_range=lambda factor=factor: factor)
        if step.zoom is not None:
            flat = [axis for axis, size in enumerate(view.shape[1:]) if size == 1]
            augment_linear_downsampling_scipy(
                view, (step.zoom, step.zoom), per_channel=False, order_downsample=0, order_upsample=1, ignore_axes=flat
            )
        if step.inverted_gamma is not None:
            view[:] = -_gamma(-view, step.inverted_gamma)
        if step.gamma is not None:
            view[:] = _gamma(view, step.gamma)
    return image


def _gamma(view: np.ndarray, gamma: float) -> np.ndarray:
    """x**gamma on the range of the patch, mean and standard deviation restored.

    Own code since batchgenerators cannot be told an exact gamma below 1; a constant patch stays as it is.
    """
    low, high = view.min(), view.max()
    if high - low < 1e-6:
        return view
    mean, std = view.mean(), view.std()
    curved = ((view - low) / (high - low)) ** np.float32(gamma)
    return (curved - curved.mean()) / max(float(curved.std()), 1e-8) * std + mean


def _draw_around_one(rng: np.random.Generator, low: float, high: float) -> float:
    """Draws a factor, below 1 as often as above it."""
    return float(rng.uniform(low, 1) if rng.random() < 0.5 else rng.uniform(1, high))
