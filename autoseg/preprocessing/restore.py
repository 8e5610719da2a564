"""Bring what a network says about a prepared case back to the grid of the image that it came from."""

from __future__ import annotations

import numpy as np

from autoseg.errors import GeometryError
from autoseg.imaging.resample import resample_argmax, resample_image
from autoseg.preprocessing.placement import Placement, canonical_crop
from autoseg.system.machine import cpu_count


def restore_labels(logits: np.ndarray, placement: Placement) -> np.ndarray:
    """Turn (K, z, y, x) logits on the prepared grid into (Z, Y, X) class indices on the source grid.

    Background outside the crop. uint8, or uint16 from 255 classes on, as `LabelSet.index_dtype`. Where
    nothing was resampled, exactly `argmax`.

    Raises:
        GeometryError: logits of another shape than the prepared case.
    """
    _check_prepared(logits, placement)
    inside = resample_argmax(logits, placement.crop.shape, threads=cpu_count())
    result = np.zeros(placement.source.shape, dtype=inside.dtype)
    canonical_crop(result, placement.axes, placement.crop)[...] = inside
    return result


def restore_probabilities(logits: np.ndarray, placement: Placement) -> np.ndarray:
    """Turn (K, z, y, x) logits on the prepared grid into (K, Z, Y, X) float32 probabilities on the source grid.

    Logits are resampled, then softmax; outside the crop the background has 1.

    Raises:
        GeometryError: logits of another shape than the prepared case.
    """
    _check_prepared(logits, placement)
    result = np.zeros((len(logits), *placement.source.shape), dtype=np.float32)
    result[0] = 1
    inside = [canonical_crop(r, placement.axes, placement.crop) for r in result]
    for k, view in enumerate(inside):
        view[...] = resample_image(logits[k : k + 1], placement.crop.shape, (1, 1, 1))[0]
    largest = np.maximum.reduce(inside)
    total = np.zeros(placement.crop.shape, dtype=np.float32)
    for view in inside:
        view -= largest
        np.exp(view, out=view)
        total += view
    for view in inside:
        view /= total
    return result


def _check_prepared(logits: np.ndarray, placement: Placement) -> None:
    if logits.shape[1:] != placement.target.shape:
        raise GeometryError("logits do not fit the prepared case", found=logits.shape[1:], allowed=placement.target.shape)
