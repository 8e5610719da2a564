"""Errors of an earlier stage, made up: its label map is worn and loses parts, so that the next stage does not just copy it.

Probabilities and sizes are those of nnU-Net's cascade (Isensee et al. 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cc3d
import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects

RADIUS = (1, 8)  # voxels
LARGEST_LOSS = 0.15  # of the patch: a component of more is never taken away

Wear = Literal["dilate", "erode", "open", "close"]
WEARS: tuple[Wear, ...] = ("dilate", "erode", "open", "close")


@dataclass(frozen=True)
class Change:
    """What happens to one structure: `wear` with a ball of `radius` voxels, and whether a component is lost (`pick`, 0…1,
    says which)."""

    class_index: int
    wear: Wear | None
    radius: int
    pick: float | None


def draw_previous(rng: np.random.Generator, n_classes: int) -> tuple[Change, ...]:
    """Wear in 40 % of the patches and loss in 20 %, for half of the structures each, in random order."""
    worn, lossy = rng.random() < 0.4, rng.random() < 0.2
    changes = []
    for index in rng.permutation(np.arange(1, n_classes)):
        wear = WEARS[rng.integers(len(WEARS))] if worn and rng.random() < 0.5 else None
        pick = float(rng.random()) if lossy and rng.random() < 0.5 else None
        if wear or pick is not None:
            changes.append(Change(int(index), wear, int(rng.integers(RADIUS[0], RADIUS[1] + 1)), pick))
    return tuple(changes)


def apply_previous(labels: np.ndarray, changes: tuple[Change, ...]) -> np.ndarray:
    """(Z, Y, X) class indices after the changes; where a structure grows, it takes the place of what was there."""
    result = labels.copy()
    boxes = dict(enumerate(find_objects(labels), start=1)) if changes else {}  # only other structures can grow into them
    for change in changes:
        box = boxes.get(change.class_index)
        if box is None:
            continue
        margin = change.radius + 1
        near = tuple(slice(max(0, along.start - margin), along.stop + margin) for along in box)
        before = result[near] == change.class_index
        after = before if change.wear is None else _worn(before, change.wear, change.radius)
        if change.pick is not None:
            after = _without_component(after, change.pick, LARGEST_LOSS * labels.size)
        part = result[near]
        part[before & ~after] = 0
        part[after] = change.class_index
    return result


def _worn(mask: np.ndarray, wear: Wear, radius: int) -> np.ndarray:
    if wear == "dilate":
        return _grown(mask, radius)
    if wear == "erode":
        return ~_grown(~mask, radius)
    if wear == "open":
        return _grown(~_grown(~mask, radius), radius)
    rim = radius + 1  # into which a structure at the border grows, and shrinks back from
    inside = tuple(slice(rim, rim + n) for n in mask.shape)
    closed: np.ndarray = ~_grown(~_grown(np.pad(mask, rim), radius), radius)
    return closed[inside]


def _grown(mask: np.ndarray, radius: int) -> np.ndarray:
    """All voxels within `radius` of the mask."""
    if not mask.any():
        return mask
    near: np.ndarray = distance_transform_edt(~mask) <= radius
    return near


def _without_component(mask: np.ndarray, pick: float, most: float) -> np.ndarray:
    """Without one of the components of at most `most` voxels, the one at `pick` (0…1) of their list."""
    components = cc3d.connected_components(np.pad(mask, [(0, n % 2) for n in mask.shape]))  # padded as in `components`
    z, y, x = mask.shape
    components = components[:z, :y, :x]
    sizes = np.bincount(components.ravel())
    small = [index for index in range(1, len(sizes)) if sizes[index] <= most]
    if not small:
        return mask
    return mask & (components != small[int(pick * len(small))])
