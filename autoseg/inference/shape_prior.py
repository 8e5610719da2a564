"""How landmarks lie relative to each other, as a second opinion on those whose maps are undecided.

A network that has seen few cases may take another place for a landmark, far away and with a sure map elsewhere. Its map then
often has a second, smaller peak at the right place. Which of its peaks counts is decided here: by what the map says, and by how
far each is from where the landmarks around would have it.
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

SURE_CONFIDENCE, TRUSTED_CONFIDENCE = (
    0.75,
    0.5,
)  # confidence from which a landmark stays where its map peaks, and from which others go by it
NEAREST = 5  # of these others, of which the median counts, since one of them may be wrong
LOOSE_CONFIDENCE = 2.0
"""Times the error that the neighbours' word had in training, so that a map is overruled only where it would be far off. In three
trainings on skull X-rays the mean error of seven cases fell from 18.1, 18.4 and 17.4 to 9.4, 9.6 and 9.3 pixels: eight landmarks
moved, seven of which had been 300 to 720 pixels away, and none for the worse. With 1 in place of 2 twelve moved, one for the
worse, with about the same mean; with 3 the same eight. `SURE_CONFIDENCE` from 0.7 to 1 made no difference."""
FEWEST_NEIGHBOURS, FEWEST_CASES = 3, 5
MOST_CASES = 200  # that are remembered; more would tell nothing new
FILE = "arrangement.npy"


@dataclass(frozen=True, eq=False)
class ShapePrior:
    """
    Args:
        cases: (C, N, 3) landmarks of training cases, mm along (z, y, x) from anywhere; NaN unless known.
    """

    cases: np.ndarray

    @cached_property
    def _known(self) -> np.ndarray:
        known: np.ndarray = np.isfinite(self.cases).all(2)
        return known

    @cached_property
    def _shape(self) -> np.ndarray:
        return mean_shape(self.cases, self._known)

    def choose(self, points: np.ndarray, confidence: np.ndarray, rivals: Mapping[int, PeakCandidates]) -> dict[int, int]:
        """Which of its rivals each undecided landmark is, where that is not the first.

        Args:
            points: (N, 3) mm, where maps peak.
            confidence: (N,) of these.
            rivals: of undecided landmarks, places in mm, by number.
        """
        chosen = {}
        for i, rival in rivals.items():
            expected = self._expect(i, points, confidence >= TRUSTED_CONFIDENCE)
            if expected is not None:
                place, spread = expected
                away = np.linalg.norm(rival.points - place, axis=1) / (LOOSE_CONFIDENCE * spread)
                best = int((np.log(rival.mass) - away**2 / 2).argmax())
                chosen.update({i: best} if best else {})
        return chosen

    def _expect(self, i: int, points: np.ndarray, trusted: np.ndarray) -> tuple[np.ndarray, float] | None:
        """Where the nearest landmarks that can be trusted, moved from their mean places, would have landmark `i`, and how far off
        that was in training along an axis, mm; None where too little is known."""
        order = np.argsort(np.linalg.norm(self._shape - self._shape[i], axis=1), kind="stable")
        near = [j for j in order if j != i and trusted[j]][:NEAREST]
        seen = self._known[:, [i, *near]].all(1)
        if len(near) < FEWEST_NEIGHBOURS or np.count_nonzero(seen) < FEWEST_CASES:
            return None
        off = self.cases[seen] - self._shape
        left = off[:, i] - np.median(off[:, near], axis=1)
        deep = np.ptp(left, axis=0) > 0  # pictures have no depth to be off in
        spread = float(np.sqrt((left[:, deep] ** 2).mean())) if deep.any() else 0.0
        place: np.ndarray = self._shape[i] + np.median(points[near] - self._shape[near], axis=0)
        return (place, spread) if spread > 0 else None

    def save(self, run: Path) -> None:
        """
        Raises:
            DiskError: the disk is full.
        """
        with atomic_path(run / FILE) as temporary, open(temporary, "wb") as handle:
            write_array(handle, self.cases.astype(np.float32))


def fit_shape_prior(cases: Sequence[StoredCase], space: SpacePlan) -> ShapePrior:
    """Of prepared cases; landmarks outside their image are left out."""
    some = [cases[i] for i in np.unique(np.linspace(0, len(cases) - 1, min(len(cases), MOST_CASES)).round().astype(int))]
    return ShapePrior(np.array([np.where(case.inside[:, None], case.points, np.nan) for case in some]) * millimetres(space))


def load_shape_prior(runs: Sequence[Path]) -> ShapePrior | None:
    """Of all cases that the folds were trained on; None if a fold does not have it, as those of before there was one.

    Raises:
        DataError: a damaged file.
    """
    files = [run / FILE for run in runs]
    if not all(file.is_file() for file in files):
        return None
    found = []
    for file in files:
        try:
            found.append(np.load(file, allow_pickle=False).astype(np.float64))
        except (ValueError, EOFError) as error:
            raise DataError(
                "the arrangement of landmarks is damaged", file=file, found=str(error), fix="delete it, or train again"
            ) from error
    return ShapePrior(np.concatenate(found))


def millimetres(space: SpacePlan) -> np.ndarray:
    """(3,) mm in a voxel of prepared cases, along (z, y, x); across slices 1, since these are not resampled."""
    return np.array(space.in_volume(space.spacing_mm, 1.0))
