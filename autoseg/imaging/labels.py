"""Label sets: names and values of the structures in label maps.

Files may hold any non-negative integers, with gaps. Inside autoseg a label map holds class indices:
0 background, 1…n the structures in the order of their values, and 255 or 65535
(`LabelSet.ignore_index`) where nothing is known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from autoseg.errors import LabelError, repeated
from autoseg.imaging.mirror_partners import class_partners
from autoseg.imaging.side_names import NameSide, name_sides

_DIRECTIONS = {
    0: {"superior", "inferior", "upper", "lower", "cranial", "caudal", "dorsal", "ventral", "head", "tail"},
    1: {"anterior", "posterior", "frontal", "occipital", "dorsal", "ventral"},
}


@dataclass(frozen=True)
class LabelSet:
    """Structures of a dataset, ordered by file value; none for a dataset of landmarks only.

    Args:
        names: one per structure, background left out.
        values: the value of each structure in label files, ascending, positive.
        ignore: file value of voxels that carry no annotation, if any.

    Raises:
        LabelError: names and values differ in number, a name or value that appears twice, a value
            below 1.
    """

    names: tuple[str, ...]
    values: tuple[int, ...]
    ignore: int | None = None

    def __post_init__(self) -> None:
        if len(self.names) != len(self.values):
            raise LabelError("each structure needs a name and a value", found=f"{self.names} and {self.values}")
        used = list(self.values) + ([] if self.ignore is None else [self.ignore])
        for kind, items in (("name", list(self.names)), ("value", [str(v) for v in used])):
            if duplicates := repeated(items):
                raise LabelError(f"label {kind} used twice", found=", ".join(duplicates), fix="correct 'labels' in dataset.json")
        if any(not 1 <= v <= 65534 for v in used) or list(self.values) != sorted(self.values):
            raise LabelError("label values must be ascending integers", found=self.values, allowed="1…65534")

    @property
    def n_classes(self) -> int:
        """Number of classes: structures and background."""
        return len(self.names) + 1

    @property
    def index_dtype(self) -> np.dtype:
        """Smallest unsigned type that holds every class index and the ignore index."""
        return np.dtype(np.uint8 if self.n_classes < 255 else np.uint16)

    @property
    def value_dtype(self) -> np.dtype:
        """Smallest unsigned type that holds every file value."""
        return np.dtype(np.uint8 if max((*self.values, self.ignore or 0)) < 256 else np.uint16)

    @property
    def ignore_index(self) -> int:
        """Index of voxels without annotation: the largest number of `index_dtype`."""
        return int(np.iinfo(self.index_dtype).max)

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Convert file values to class indices.

        Raises:
            LabelError: a value that is neither 0, a structure's nor the ignore value.
        """
        table = np.full(65536, -1, dtype=np.int32)
        table[0] = 0
        table[list(self.values)] = np.arange(1, self.n_classes)
        if self.ignore is not None:
            table[self.ignore] = self.ignore_index
        whole = whole_numbers(values)
        indices = table[whole]
        if indices.min() < 0:
            raise LabelError(
                "the label map holds values that no structure has",
                found=", ".join(str(v) for v in np.unique(whole[indices < 0])[:10]) + self._likely_cause(whole),
                allowed=", ".join(map(str, (0, *self.values))) + (f", {self.ignore} (ignore)" if self.ignore else ""),
                fix="correct the label map, or name these values under 'labels' in dataset.json",
            )
        return indices.astype(self.index_dtype)

    def decode(self, indices: np.ndarray) -> np.ndarray:
        """Convert class indices to file values, in the smallest unsigned type."""
        table = np.array((0, *self.values), dtype=self.value_dtype)
        if self.ignore is None:
            return table[indices]
        ignored = indices == self.ignore_index
        values = table[np.where(ignored, 0, indices)]
        values[ignored] = self.ignore
        return values

    def _likely_cause(self, values: np.ndarray) -> str:
        """Hint on a common cause of unknown values; empty without one."""
        distinct = set(np.unique(values).tolist())
        if distinct == {0, 255}:
            return " (a mask stored as 0/255)"
        return " (this looks like an image, not a label map)" if len(distinct) > 10 * self.n_classes + 50 else ""

    @cached_property
    def _sides(self) -> tuple[NameSide | None, ...]:
        return name_sides(self.names)

    @cached_property
    def mirror_partners(self) -> tuple[int, ...]:
        """Class index that takes the place of each one when left and right swap; itself where it
        has no partner.
        """
        return class_partners(self.names, self._sides)

    @property
    def side_pairs(self) -> tuple[tuple[int, int], ...]:
        """Pairs of class indices that swap when left and right do, the left one first."""
        return tuple(
            (i, self.mirror_partners[i])
            for i, s in enumerate(self._sides, start=1)
            if s and s.left and self.mirror_partners[i] != i
        )

    @property
    def unpaired_sides(self) -> tuple[str, ...]:
        """Structures whose name has a side but whose partner is not in the set: a mirrored one
        would have a wrong name.
        """
        return tuple(n for i, (n, s) in enumerate(zip(self.names, self._sides), start=1) if s and self.mirror_partners[i] == i)

    def names_direction(self, axis: int) -> str | None:
        """First structure named after a direction along array axis 0 (z) or 1 (y), such as
        'Anterior'; else None.
        """
        words = _DIRECTIONS.get(axis, set())
        return next((n for n in self.names if words & set(re.findall(r"[a-z]+", n.lower()))), None)


def whole_numbers(values: np.ndarray) -> np.ndarray:
    """Convert file values to unsigned integers that can index a table.

    Raises:
        LabelError: fractions, NaN, or numbers outside 0…65535.
    """
    if values.dtype in (np.uint8, np.uint16):
        return values
    if not np.isfinite(values).all():
        raise LabelError("the label map holds NaN or infinity", allowed="whole numbers from 0 to 65535")
    low, high = values.min(), values.max()
    if low < 0 or high > 65535:
        raise LabelError("label value out of range", found=f"{low}…{high}", allowed="0…65535")
    whole = values.astype(np.uint16)
    if values.dtype.kind == "f" and not np.array_equal(whole, values):
        fractions = values[whole != values]
        raise LabelError(
            "the label map holds fractions",
            found=", ".join(f"{v:g}" for v in np.unique(fractions)[:5]),
            allowed="whole numbers",
            fix="label maps must be resampled with nearest neighbour, never smoothed",
        )
    return whole
