"""Intensity normalisation: one scheme per channel, chosen in the plan (`plan.NORMALIZATIONS`).

Prepared images are stored as float16, so every result must fit into that range. Formulas: nnU-Net (Isensee et al. 2021).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoseg.errors import DataError, PlanError
from autoseg.imaging.intensities import SAMPLE, clip_levels, fences, strided
from autoseg.plan import NORMALIZATIONS, ChannelPlan

FLOAT16_MAX = 65504.0
FEW = 4096  # voxels that tell if a few others dominate
DOMINATING = 1e6  # times the range of 99 % of the voxels that all of them span; 16-bit images cannot
MASKED = ("zscore_nonzero", "zscore_nonzero_robust")  # schemes that use the voxels of the mask only


def normalize(data: np.ndarray, channel: ChannelPlan, mask: np.ndarray | None = None) -> np.ndarray:
    """Normalise the (Z, Y, X) intensities of one channel to float32 within ±65504. A constant image becomes 0.

    ct                     clipped to the dataset's foreground percentiles 0.5 and 99.5, then its foreground mean and std
    zscore                 mean and std of this image
    zscore_robust          mean and std of this image clipped to its percentiles 0.5 and 99.5; outliers cut, see `fences`
    zscore_nonzero         mean and std of the voxels in `mask`; outside stays 0
    zscore_nonzero_robust  the same with the percentiles of the voxels in `mask`
    rescale_0_1            minimum and maximum of this image
    rgb_0_1                divided by 255; see `check_colour`
    none                   as it is

    Args:
        mask: bool (Z, Y, X), only for the `MASKED` schemes; None means the voxels of this channel that are not 0.

    Raises:
        PlanError: a scheme that does not exist.
        DataError: `rgb_0_1` of intensities outside 0…255, or a result too large for float16.
    """
    data = data.astype(np.float32, copy=False)
    scheme = channel.normalization
    if scheme == "ct":
        clipped = data.clip(np.float32(channel.percentile_00_5), np.float32(channel.percentile_99_5))
        result = _divided(clipped - np.float32(channel.mean), channel.std)
    elif scheme == "zscore":
        result = _standardized(data.copy())
    elif scheme == "zscore_robust":
        result = _robust(data.copy(), strided(data))
    elif scheme in MASKED:
        inside = data != 0 if mask is None else mask
        result = np.zeros_like(data)
        if inside.any():
            values = data[inside]
            robust = scheme == "zscore_nonzero_robust"
            result[inside] = _robust(values, values[:: -(-values.size // SAMPLE)]) if robust else _standardized(values)
    elif scheme == "rescale_0_1":
        low, high = data.min(), data.max()
        result = _divided(data - low, float(high) - float(low))
    elif scheme == "rgb_0_1":
        result = _rgb(data, channel)
    elif scheme == "none":
        result = data
    else:
        raise PlanError("unknown normalization", found=scheme, allowed=", ".join(NORMALIZATIONS))
    largest = max(float(result.max()), -float(result.min()))
    if not largest <= FLOAT16_MAX:  # NaN included
        raise DataError(
            f"intensities of channel '{channel.name}' are too large for normalization '{scheme}'",
            found=f"{largest:g} afterwards",
            allowed=f"up to {FLOAT16_MAX:g}",
            fix="choose 'zscore' for this channel in the plan",
        )
    return result


def _robust(values: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """Normalise `values` in place by the clipped `sample`, and return them.

    Without variation between the percentiles of `sample` they are standardised by their own mean and
    deviation instead.
    """
    low, high = clip_levels(sample)
    core = sample.clip(low, high)
    mean, scale = float(core.mean(dtype=np.float64)), float(core.std(dtype=np.float64))
    if scale == 0:
        return _standardized(values)
    values.clip(*fences(low, high), out=values)
    values -= np.float32(mean)
    values /= np.float32(scale)
    return values


def _standardized(values: np.ndarray) -> np.ndarray:
    """Bring `values` in place to mean 0 and standard deviation 1, and return them.

    Where a few voxels lie so far off that the others would come out equal, as one that is damaged can, the image is normalised
    as by the robust scheme instead.
    """
    few = values.reshape(-1)[:: -(-values.size // FEW)]
    low, high = clip_levels(few)
    if 0 < float(high) - float(low) < (float(values.max()) - float(values.min())) / DOMINATING:
        return _robust(values, values.reshape(-1)[:: -(-values.size // SAMPLE)])
    values -= np.float32(values.mean(dtype=np.float64))
    scale = float(np.sqrt(np.square(values).mean(dtype=np.float64)))
    if scale > 0:
        values /= np.float32(scale)
    else:
        values.fill(0)
    return values


def _divided(values: np.ndarray, scale: float) -> np.ndarray:
    return values / np.float32(scale) if scale > 0 else np.zeros_like(values)


def _rgb(data: np.ndarray, channel: ChannelPlan) -> np.ndarray:
    low, high = float(data.min()), float(data.max())
    if low < 0 or high > 255:
        raise DataError(
            f"channel '{channel.name}' is not 8-bit colour",
            found=f"intensities {low:g}…{high:g}",
            allowed="0…255 for normalization 'rgb_0_1'",
            fix="choose 'rescale_0_1' for this channel in the plan",
        )
    return data / np.float32(255)


def check_colour(data: np.ndarray, channels: Sequence[ChannelPlan]) -> None:
    """Refuse (C, Z, Y, X) colour that was divided by 255 already, where the plan divides by 255.

    Raises:
        DataError: all intensities of the channels normalised as `rgb_0_1` lie in 0…1, and not all are whole numbers.
    """
    colours = [values for values, channel in zip(data, channels) if channel.normalization == "rgb_0_1"]
    if not colours or any(float(values.min()) < 0 or float(values.max()) > 1 for values in colours):
        return
    if any((values != np.rint(values)).any() for values in colours):
        raise DataError(
            "the image is not 8-bit colour",
            found=f"fractions, the largest {max(float(values.max()) for values in colours):g}",
            allowed="0…255 for normalization 'rgb_0_1'",
            fix="multiply by 255",
        )
