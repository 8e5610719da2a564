"""Disk that prepared cases take, and memory while one is prepared or predicted."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from autoseg.footprint.network import NetworkIO, n_parameters, stage_voxels
from autoseg.footprint.training import SLACK
from autoseg.plan import Compute, NetworkPlan
from autoseg.plan.limits import FOREGROUND_MINIMUM, LARGEST_SINGLE_WINDOW

PREPARED_VALUE = 1.4
"""Bytes of a float16 value after compression (Zstandard 1 with byte shuffle). Measured: 1.38 hippocampus, 0.83 and 1.37 mouse
brain as planned and twice as fine, 0.22 to 0.28 brats2013, most of which is zero. The largest, so that the disk is enough."""

PREPARED_LABEL = 0.05  # bytes of a voxel of the label map; measured 0.002 (brats2013), 0.03 (hippocampus), 0.07 (mouse brain)
LARGEST_FOREGROUND = 0.25  # of a case's voxels that structures fill, at most
FOREGROUND_VOXEL = 4  # bytes of a voxel that is kept of a structure

PREPARE_BASE = 0.18e9  # Python, numpy, scipy, SimpleITK and blosc2, resident before a case is read (Linux)

PREDICT_BASE = 0.4e9  # with torch; without what only training imports

WINDOW_MAPS = 8
"""Maps of the finest stage that prediction holds beside the skips: the upsampled map before and after its reshape, both
concatenated (2), oneDNN's copies of these (2) and of the output, and the output."""


def prepared_bytes(n_cases: int, shape: Sequence[float], *, n_channels: int, n_structures: int) -> float:
    """Disk of prepared cases: a bound rather than a mean, since empty background compresses to a fifth of this.

    Args:
        shape: median voxels of a prepared case.
        n_structures: without background; 0 where there are no label maps.
    """
    voxels = prod(shape)
    foreground = FOREGROUND_VOXEL * min(FOREGROUND_MINIMUM * n_structures, LARGEST_FOREGROUND * voxels)
    return n_cases * (voxels * (PREPARED_VALUE * n_channels + PREPARED_LABEL * (n_structures > 0)) + foreground)


def preparing_memory(source_voxels: float, target_voxels: float, *, n_channels: int, has_label: bool, workers: int) -> float:
    """Peak bytes of preparing as many cases at once as there are workers.

    Args:
        source_voxels, target_voxels: of a case in its file and on the plan's grid; equal where nothing is resampled.
    """
    return PREPARE_BASE + workers * _preparing(source_voxels, target_voxels, n_channels, has_label)


def predicting_memory(
    network: NetworkPlan,
    patch_size: Sequence[int],
    io: NetworkIO,
    *,
    batch_size: int,
    compute: Compute,
    source_voxels: float,
    target_voxels: float,
) -> float:
    """Peak bytes of predicting a case on a CPU while the next one is prepared, as `predict` does, without probabilities.

    Landmark maps are kept at the resolution of the network's finest stage.

    Args:
        source_voxels, target_voxels: of the largest case in its file and on the plan's grid.
    """
    patch, size = prod(patch_size), 4 if compute == "float32" else 2
    has_previous = io.n_previous_classes > 0
    padded = max(patch, target_voxels)  # to a window
    single = target_voxels <= LARGEST_SINGLE_WINDOW * patch  # then one window takes in the whole case
    window = padded if single else batch_size * patch
    stages = stage_voxels(network, patch_size)
    finest = stages[0] / patch  # 1 where the maps are as fine as the images
    skips = sum(w * v for w, v in zip(network.features, stages)) / patch  # channels, as if all fine
    maps = window * size * (skips + finest * WINDOW_MAPS * network.features[0]) + 4 * window * io.n_previous_classes
    n_maps = io.n_classes + finest * io.n_landmarks
    logits = window * n_maps * (3 * 4 + size)  # from the network, in float32, summed over mirrored views, and their mean
    case = 4 * io.n_channels * source_voxels + 2 * io.n_channels * target_voxels + (source_voxels + target_voxels) * has_previous
    # the image in float32, padded; logits; weights of the windows
    sums = padded * (8 * (io.n_channels + has_previous) + 4 * n_maps + 4)
    weights = 4 * n_parameters(network, io)
    following = _preparing(source_voxels, target_voxels, io.n_channels, has_label=False)
    return PREDICT_BASE + weights + case + sums + following + SLACK["cpu"] * (maps + logits)


def _preparing(source: float, target: float, n_channels: int, has_label: bool) -> float:
    """Bytes of one case at its largest: while normalised channels are stacked, an image or a label map is resampled."""
    image = 4 * n_channels * source
    files = image + source * has_label  # as they were read
    stacked = 2 * image + source  # each channel, all of them together, and the mask of nonzero voxels
    if source == target:
        return files + stacked
    result = 4 * n_channels * target
    resampled = image + result + 2 * 4 * max(source, target)  # one channel before and after its last axis
    labelled = result + 11 * target  # two float32 shares, the winner, and two bytes of its update
    return files + max(stacked, resampled, labelled * has_label)
