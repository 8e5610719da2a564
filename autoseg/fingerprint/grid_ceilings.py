"""Ceiling of a grid: the Dice that label maps keep when they are drawn on a coarser grid and brought
back, which no network on that grid can exceed by much.

A network on a coarse grid sees more of a case at once and learns faster, but what is thinner than
its voxels is lost. How much that is depends on the structures, so it is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod

import numpy as np

from autoseg.dataset import Case, Dataset
from autoseg.fingerprint.case import CaseFingerprint
from autoseg.imaging.geometry import Box, coarser_spacing, resampled_shape
from autoseg.imaging.image import LabelMap
from autoseg.imaging.resample import labels_through_grid
from autoseg.io import read_label_map
from autoseg.system.machine import cpu_count

FACTORS = (1.26, 1.6, 2.0, 2.5, 3.2, 4.0, 5.0)  # ten a decade, as preferred numbers (ISO 3): voxels double from one to the next
LEAST_CASES, MOST_CASES = 3, 6
MOST_VOXELS = 2**25  # of all measured cases but the first: about a second a factor
MARGIN = 8  # voxels around the structures, so that the edge of the image does not help


@dataclass(frozen=True)
class GridCeiling:
    """Share of each structure (Dice) that a grid can hold at best.

    Args:
        factor: times the finest spacing of a case; axes that are coarser than that stay as they are.
        dice: of each structure, in the order of the label set, the mean over the measured cases
            that show it; None where none does.
    """

    factor: float
    dice: tuple[float | None, ...]

    @property
    def mean(self) -> float:
        """Mean over the structures that were measured; 0 where none was."""
        known = [d for d in self.dice if d is not None]
        return float(np.mean(known)) if known else 0.0


def measure_ceilings(
    dataset: Dataset, fingerprints: Sequence[CaseFingerprint], *, workers: int | None = None
) -> tuple[GridCeiling, ...]:
    """Measure what coarser grids can hold, on a few cases that show all structures between them.

    Args:
        fingerprints: of the usable cases.
        workers: threads; None means one per core, 0 means none.

    Returns:
        A ceiling for each of `FACTORS`; none without structures.
    """
    chosen = set(_choose(fingerprints))
    cases = [case for case in dataset.cases if case.name in chosen]
    if not cases:
        return ()

    def measure(case: Case) -> list[np.ndarray]:
        assert case.label is not None  # else it would have no voxels, and not be chosen
        label_map = read_label_map(case.label, dataset.labels)
        return [dice_through_grid(label_map, factor, dataset.labels.n_classes) for factor in FACTORS]

    with ThreadPoolExecutor(cpu_count() if workers is None else max(1, workers)) as pool:
        dice = np.stack(list(pool.map(measure, cases)))  # (cases, factors, structures)
    known = np.isfinite(dice)
    means = np.where(known, dice, 0).sum(0) / np.maximum(known.sum(0), 1)
    return tuple(
        GridCeiling(factor, tuple(float(m) if k else None for m, k in zip(row, seen)))
        for factor, row, seen in zip(FACTORS, means, known.any(0))
    )


def dice_through_grid(label_map: LabelMap, factor: float, n_classes: int) -> np.ndarray:
    """Dice of each structure with itself after it was drawn on a coarser grid and brought back.

    Returns:
        (n_classes - 1,) float64, NaN where a structure is absent.
    """
    structures = label_map.data
    box = Box.around((structures > 0) & (structures < n_classes))  # without the index of what is to be ignored
    if box is None:
        return np.full(n_classes - 1, np.nan)
    indices = structures[box.grown(MARGIN, structures.shape).slices]
    indices = np.where(indices < n_classes, indices, 0).astype(indices.dtype)
    spacing = label_map.grid.spacing
    extended = [axis for axis in range(3) if structures.shape[axis] > 1]  # a picture has no spacing across
    target = dict(zip(extended, coarser_spacing([spacing[axis] for axis in extended], factor)))
    shape = resampled_shape(indices.shape, spacing, [target.get(axis, spacing[axis]) for axis in range(3)])
    back = labels_through_grid(indices, shape)

    def count(values: np.ndarray) -> np.ndarray:
        return np.bincount(values.ravel(), minlength=n_classes)[1:]

    size = count(indices)
    return np.where(size > 0, 2 * count(indices[indices == back]) / np.maximum(size + count(back), 1), np.nan)


def _choose(cases: Sequence[CaseFingerprint]) -> list[str]:
    """Names of a few cases that show all structures between them, as far as `MOST_CASES` can."""
    chosen: list[CaseFingerprint] = []
    candidates = [case for case in cases if any(case.voxels)]
    unseen = {i for case in candidates for i, n in enumerate(case.voxels) if n}
    while candidates and len(chosen) < (MOST_CASES if unseen else LEAST_CASES):
        best = max(candidates, key=lambda case: len(unseen & {i for i, n in enumerate(case.voxels) if n}))
        candidates.remove(best)
        if chosen and sum(prod(case.shape_after_crop) for case in (*chosen[1:], best)) > MOST_VOXELS:
            break
        chosen.append(best)
        unseen -= {i for i, n in enumerate(best.voxels) if n}
    return [case.name for case in chosen]
