"""Anatomical landmarks: their names, left and right partners, and positions in a case."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Literal

import numpy as np

from autoseg.errors import LabelError, repeated
from autoseg.imaging.mirror_partners import landmark_partners

Unit = Literal["mm", "px"]
"""Unit of lengths: pixels in pictures, whose files do not say how large a pixel is."""


class State(IntEnum):
    """Annotation of a landmark in a case: it has a position, the anatomy lacks it, or nothing is
    known.
    """

    UNLABELLED = 0
    ABSENT = 1
    PRESENT = 2


@dataclass(frozen=True)
class LandmarkSet:
    """Landmarks of a dataset, in a fixed order; none for a dataset of label maps only.

    Args:
        names: one per landmark.
        pairs: names that take each other's place when left and right swap.
        one_sided: names that have no partner and do not lie in the middle: their position in a
            mirrored image is unknown.

    Raises:
        LabelError: an empty name or one that appears twice; a pair of unknown, equal or already
            paired names; a one-sided name that is unknown or paired.
    """

    names: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...] = ()
    one_sided: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        duplicates = repeated(self.names)
        if duplicates or "" in self.names:
            raise LabelError("each landmark needs a name of its own", found=", ".join(duplicates) or "an empty name")
        paired = [name for pair in self.pairs for name in pair]
        unknown = sorted(set(paired) - set(self.names))
        if unknown:
            raise LabelError("a pair names an unknown landmark", found=", ".join(unknown), allowed=", ".join(self.names))
        if len(set(paired)) < len(paired):
            raise LabelError(
                "a landmark can have one partner, and not itself", found=", ".join(repeated(paired)), fix="correct the pairs"
            )
        not_one_sided = sorted(set(self.one_sided) - (set(self.names) - set(paired)))
        if not_one_sided:
            raise LabelError("a one-sided landmark is unknown, or has a partner", found=", ".join(not_one_sided))

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def mirror_partners(self) -> tuple[int, ...]:
        """Index of the landmark that takes the place of each one when left and right swap; its own
        without a partner.
        """
        return landmark_partners(self.names, self.pairs)

    @cached_property
    def mirrorable(self) -> np.ndarray:
        """Mask (N,) of the landmarks whose position in a mirrored image is known."""
        return ~np.isin(self.names, self.one_sided)


NO_LANDMARKS = LandmarkSet(())


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Positions of the landmarks of a case.

    Args:
        names: of the N landmarks.
        points_mm: (N, 3) world points (x, y, z), LPS mm; NaN unless present.
        state: (N,) of `State`.
        confidence: (N,) probability that a predicted landmark is within two voxels (of the maps) of
            its true position; None for annotations.

    Raises:
        LabelError: the parts differ in length, or a landmark that is present has no finite
            position.
    """

    names: tuple[str, ...]
    points_mm: np.ndarray
    state: np.ndarray
    confidence: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.names)
        lengths = {len(part) for part in (self.points_mm, self.state, self.confidence) if part is not None}
        if lengths != {n} or self.points_mm.shape != (n, 3):
            raise LabelError(
                "a point and a state for each landmark", found=f"{self.points_mm.shape}, {self.state.shape}", allowed=n
            )
        unplaced = [name for name, ok in zip(self.names, np.isfinite(self.points_mm).all(1) | ~self.present) if not ok]
        if unplaced:
            raise LabelError("a landmark that is present needs a finite position", found=", ".join(unplaced[:10]))

    @property
    def present(self) -> np.ndarray:
        """Mask (N,) of the landmarks whose position is known."""
        present: np.ndarray = self.state == State.PRESENT
        return present


def mean_shape(points: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Mean shape (N, D) mm: the points that, moved as a whole for each case, are closest to its
    known points (least squares).

    Args:
        points: (C, N, D) mm.
        present: (C, N) mask of the points that are known; elsewhere `points` may be anything.
    """
    filled = np.where(present[..., None], points, 0.0)
    share = present / np.maximum(present.sum(1, keepdims=True), 1)
    centred = np.where(present[..., None], filled - (share[..., None] * filled).sum(1, keepdims=True), 0.0)
    coupled = np.diag(present.sum(0)) - present.T @ share
    shape: np.ndarray = np.linalg.lstsq(coupled, centred.sum(0), rcond=None)[0]
    return shape
