"""Simulated errors of a cascade's previous stage: its label map changes shape and loses parts, or it would only be copied.

Probabilities and sizes are those of nnU-Net's cascade (Isensee et al. 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cc3d
import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects

RADIUS = (1, 8)  # voxels
LARGEST_LOSS = 0.15  # of the patch: no larger component is removed

Operation = Literal["dilate", "erode", "open", "close"]
OPERATIONS: tuple[Operation, ...] = ("dilate", "erode", "open", "close")


@dataclass(frozen=True)
class Corruption:
    """A change of one structure.

    Args:
        operation: morphological, with a ball of `radius` voxels; None for none.
        lost: position (0…1), in the list of small components, of the one that is removed; None removes none.
    """

    class_index: int
    operation: Operation | None
    radius: int
    lost: float | None


def draw_corruptions(rng: np.random.Generator, n_classes: int) -> tuple[Corruption, ...]:
    """Draws operations in 40 % of the patches and losses in 20 %, for half of the structures each, in random order."""
    operates, loses = rng.random() < 0.4, rng.random() < 0.2
    corruptions = []
    for index in rng.permutation(np.arange(1, n_classes)):
        operation = OPERATIONS[rng.integers(len(OPERATIONS))] if operates and rng.random() < 0.5 else None
        lost = float(rng.random()) if loses and rng.random() < 0.5 else None
        if operation or lost is not None:
            corruptions.append(Corruption(int(index), operation, int(rng.integers(RADIUS[0], RADIUS[1] + 1)), lost))
    return tuple(corruptions)


def apply_corruptions(labels: np.ndarray, corruptions: tuple[Corruption, ...]) -> np.ndarray:
    """(Z, Y, X) class indices after the corruptions; a structure that grows overwrites others."""
    result = labels.copy()
    boxes = dict(enumerate(find_objects(labels), start=1)) if corruptions else {}  # other structures only grow into these
    for corruption in corruptions:
        box = boxes.get(corruption.class_index)
        if box is None:
            continue
        margin = corruption.radius + 1
        near = tuple(slice(max(0, along.start - margin), along.stop + margin) for along in box)
        mask = result[near] == corruption.class_index
        corrupted = mask if corruption.operation is None else _morphed(mask, corruption.operation, corruption.radius)
        if corruption.lost is not None:
            corrupted = _without_component(corrupted, corruption.lost, LARGEST_LOSS * labels.size)
        part = result[near]
        part[mask & ~corrupted] = 0
        part[corrupted] = corruption.class_index
    return result


def _morphed(mask: np.ndarray, operation: Operation, radius: int) -> np.ndarray:
    if operation == "dilate":
        return _dilated(mask, radius)
    if operation == "erode":
        return ~_dilated(~mask, radius)
    if operation == "open":
        return _dilated(~_dilated(~mask, radius), radius)
    rim = radius + 1  # into which a structure at the border grows, and shrinks back from
    inside = tuple(slice(rim, rim + n) for n in mask.shape)
    closed: np.ndarray = ~_dilated(~_dilated(np.pad(mask, rim), radius), radius)
    return closed[inside]


def _dilated(mask: np.ndarray, radius: int) -> np.ndarray:
    """All voxels within `radius` of the mask."""
    if not mask.any():
        return mask
    near: np.ndarray = distance_transform_edt(~mask) <= radius
    return near


def _without_component(mask: np.ndarray, position: float, largest: float) -> np.ndarray:
    """The mask without one of its components of at most `largest` voxels, the one at `position` (0…1) in their list."""
    components = cc3d.connected_components(np.pad(mask, [(0, n % 2) for n in mask.shape]))  # padded as in `components`
    z, y, x = mask.shape
    components = components[:z, :y, :x]
    sizes = np.bincount(components.ravel())
    small = [index for index in range(1, len(sizes)) if sizes[index] <= largest]
    if not small:
        return mask
    return mask & (components != small[int(position * len(small))])
