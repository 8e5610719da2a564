"""The shape prior of landmarks: a second opinion on those whose maps are undecided.

A network that has seen few cases may take a wrong point, far away, for a landmark. Its map then often has a second, smaller peak
at the right one. The shape prior chooses between the peaks: by the probability that the map gives to each, and by how far each
is from where the landmarks around it would expect the landmark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from autoseg.errors import DataError
from autoseg.imaging.landmarks import mean_shape
from autoseg.nets.heatmaps import PeakCandidates
from autoseg.plan import SpacePlan
from autoseg.preprocessing.store import StoredCase
from autoseg.system.files import atomic_path, write_array

SURE_CONFIDENCE = 0.75  # from which a landmark stays at the highest peak of its map
TRUSTED_CONFIDENCE = 0.5  # from which a landmark counts as a neighbour of others
MOST_NEIGHBOURS = 5  # of which the median counts, since one of them may be wrong
ERROR_FACTOR = 2.0
"""On the error of the neighbours' prediction in training, so that a map is overruled only where it would be far off. In three
trainings on skull X-rays the mean error of seven cases fell from 18.1, 18.4 and 17.4 to 9.4, 9.6 and 9.3 pixels: eight landmarks
moved, seven of which had been 300 to 720 pixels away, and none for the worse. With 1 in place of 2 twelve moved, one for the
worse, with about the same mean; with 3 the same eight. `SURE_CONFIDENCE` from 0.7 to 1 made no difference."""
FEWEST_NEIGHBOURS, FEWEST_CASES = 3, 5
MOST_CASES = 200  # that are remembered; more would tell nothing new
FILE = "shape_prior.npy"
OLD_FILE = "arrangement.npy"  # its name in older runs


@dataclass(frozen=True, eq=False)
class ShapePrior:
    """Positions of landmarks in training cases, and what they say about a landmark whose map has several peaks.

    Args:
        cases: (C, N, 3) mm along (z, y, x), each case from an origin of its own; NaN unless known.
    """

    cases: np.ndarray

    @cached_property
    def _is_known(self) -> np.ndarray:
        is_known: np.ndarray = np.isfinite(self.cases).all(2)
        return is_known

    @cached_property
    def _shape(self) -> np.ndarray:
        return mean_shape(self.cases, self._is_known)

    def choose(self, points: np.ndarray, confidence: np.ndarray, candidates: Mapping[int, PeakCandidates]) -> dict[int, int]:
        """The candidate of each undecided landmark that fits best, where that is not the first.

        Args:
            points: (N, 3) mm, the highest peaks of the maps.
            confidence: (N,) of these.
            candidates: of undecided landmarks, in mm, by number of the landmark.
        """
        chosen = {}
        for i, peaks in candidates.items():
            prediction = self._predict(i, points, confidence >= TRUSTED_CONFIDENCE)
            if prediction is not None:
                expected, sd = prediction
                distance = np.linalg.norm(peaks.points - expected, axis=1) / (ERROR_FACTOR * sd)
                best = int((np.log(peaks.mass) - distance**2 / 2).argmax())
                if best:
                    chosen[i] = best
        return chosen

    def _predict(self, i: int, points: np.ndarray, trusted: np.ndarray) -> tuple[np.ndarray, float] | None:
        """Position that its neighbours predict for landmark `i`, and the error of that in training along an axis, both in mm.

        Neighbours are the nearest landmarks that can be trusted; they expect it at its mean position, moved as they are
        themselves. None where there are too few neighbours or cases.
        """
        by_distance = np.argsort(np.linalg.norm(self._shape - self._shape[i], axis=1), kind="stable")
        neighbours = [j for j in by_distance if j != i and trusted[j]][:MOST_NEIGHBOURS]
        complete = self._is_known[:, [i, *neighbours]].all(1)
        if len(neighbours) < FEWEST_NEIGHBOURS or np.count_nonzero(complete) < FEWEST_CASES:
            return None
        offsets = self.cases[complete] - self._shape
        residuals = offsets[:, i] - np.median(offsets[:, neighbours], axis=1)
        varies = np.ptp(residuals, axis=0) > 0  # not along the depth of pictures
        sd = float(np.sqrt((residuals[:, varies] ** 2).mean())) if varies.any() else 0.0
        expected: np.ndarray = self._shape[i] + np.median(points[neighbours] - self._shape[neighbours], axis=0)
        return (expected, sd) if sd > 0 else None

    def save(self, run: Path) -> None:
        """Writes the positions into the folder of a run.

        Raises:
            DiskError: the disk is full.
        """
        with atomic_path(run / FILE) as temporary, open(temporary, "wb") as handle:
            write_array(handle, self.cases.astype(np.float32))


def fit_shape_prior(cases: Sequence[StoredCase], space: SpacePlan) -> ShapePrior:
    """The shape prior of prepared training cases, of which `MOST_CASES` are taken; landmarks outside their image are left out."""
    chosen = np.unique(np.linspace(0, len(cases) - 1, min(len(cases), MOST_CASES)).round().astype(int))
    points = [np.where(case.inside[:, None], case.points, np.nan) for case in (cases[i] for i in chosen)]
    return ShapePrior(np.array(points) * millimetres(space))


def load_shape_prior(runs: Sequence[Path]) -> ShapePrior | None:
    """The shape prior of all cases that some folds were trained on; None if a fold has no file of it, as very old ones.

    Raises:
        DataError: a damaged file.
    """
    parts = []
    for run in runs:
        file = next((run / name for name in (FILE, OLD_FILE) if (run / name).is_file()), None)
        if file is None:
            return None
        try:
            parts.append(np.load(file, allow_pickle=False).astype(np.float64))
        except (ValueError, EOFError) as error:
            raise DataError(
                "the shape prior of the landmarks is damaged", file=file, found=str(error), fix="delete it, or train again"
            ) from error
    return ShapePrior(np.concatenate(parts))


def millimetres(space: SpacePlan) -> np.ndarray:
    """(3,) mm in a voxel of prepared cases, along (z, y, x); across slices 1, since these are not resampled."""
    return np.array(space.in_volume(space.spacing_mm, 1.0))
