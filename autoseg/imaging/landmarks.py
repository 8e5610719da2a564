"""Anatomical points: what they are called, which of them swap when left and right do, and where they are in a case."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Literal

import numpy as np

from autoseg.errors import LabelError

Unit = Literal["mm", "px"]
"""Of lengths: pixels in pictures, which do not say how large these are."""


class State(IntEnum):
    """What is known about a landmark of a case: where it is, that the anatomy lacks it, or nothing."""

    UNLABELLED = 0
    ABSENT = 1
    PRESENT = 2


@dataclass(frozen=True)
class LandmarkSet:
    """The landmarks of a dataset, in a fixed order; none for a dataset of label maps only.

    Args:
        names: one per landmark.
        pairs: names that take each other's place when left and right swap.
        one_sided: names that have no partner and do not lie in the middle: in a mirrored image their place is not known.

    Raises:
        LabelError: an empty name or one that appears twice; a pair of unknown, equal or already paired names; a one-sided name
            that is unknown or paired.
    """

    names: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...] = ()
    one_sided: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        twice = sorted({n for n in self.names if self.names.count(n) > 1})
        if twice or "" in self.names:
            raise LabelError("each landmark needs a name of its own", found=", ".join(twice) or "an empty name")
        paired = [name for pair in self.pairs for name in pair]
        unknown = sorted(set(paired) - set(self.names))
        if unknown:
            raise LabelError("a pair names a landmark that there is not", found=", ".join(unknown), allowed=", ".join(self.names))
        if len(set(paired)) < len(paired):
            again = sorted({n for n in paired if paired.count(n) > 1})
            raise LabelError("a landmark can have one partner, not itself", found=", ".join(again), fix="correct the pairs")
        wrong = sorted(set(self.one_sided) - (set(self.names) - set(paired)))
        if wrong:
            raise LabelError("a one-sided landmark is unknown, or has a partner", found=", ".join(wrong))

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def mirrored(self) -> tuple[int, ...]:
        """For each landmark the number of the one that takes its place when left and right swap; its own without a partner."""
        partner = {a: b for pair in self.pairs for a, b in (pair, pair[::-1])}
        return tuple(self.names.index(partner.get(name, name)) for name in self.names)

    @cached_property
    def known_mirrored(self) -> np.ndarray:
        """(N,) false for those whose place in a mirrored image is not known."""
        return ~np.isin(self.names, self.one_sided)


NO_LANDMARKS = LandmarkSet(())


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Where the landmarks of a case are.

    Args:
        names: of the N landmarks.
        points_mm: (N, 3) world points (x, y, z), LPS mm; NaN unless present.
        state: (N,) of `State`.
        confidence: (N,) probability that a predicted landmark is within two voxels (of the maps) of its place; None for
            annotations.

    Raises:
        LabelError: the parts differ in length, or a landmark that is present has no finite position.
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
        lost = [name for name, ok in zip(self.names, np.isfinite(self.points_mm).all(1) | ~self.present) if not ok]
        if lost:
            raise LabelError("a landmark that is present needs a finite position", found=", ".join(lost[:10]))

    @property
    def present(self) -> np.ndarray:
        """(N,) true where the position is known."""
        found: np.ndarray = self.state == State.PRESENT
        return found


def mean_shape(points: np.ndarray, present: np.ndarray) -> np.ndarray:
    """(N, D) mm: places that, moved as a whole for each case, are closest to all known points (least squares)."""
    known = np.where(present[..., None], points, 0.0)
    share = present / np.maximum(present.sum(1, keepdims=True), 1)
    apart = np.where(present[..., None], known - (share[..., None] * known).sum(1, keepdims=True), 0.0)
    coupled = np.diag(present.sum(0)) - present.T @ share
    shape: np.ndarray = np.linalg.lstsq(coupled, apart.sum(0), rcond=None)[0]
    return shape
