"""Checks of images before they are predicted: an image unlike those of the training gives a wrong answer that looks right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.errors import GeometryError, first_few
from autoseg.imaging.geometry import Grid
from autoseg.imaging.image import Image
from autoseg.inference.model import Model
from autoseg.plan import Configuration
from autoseg.preprocessing.prepared_size import SPACING_FIX, resampled_axes, spacing_text
from autoseg.system.progress import log, number_of

MAX_FACTOR = 4.0  # between voxels of images that one network is meant for; thick slices beside thin ones differ by less


@dataclass(frozen=True)
class Doubt:
    """A reason not to trust the prediction of a case.

    Args:
        problem: the kind of doubt, for one note on all cases that share it.
        detail: of this case, and what can be done.
    """

    case: str
    problem: str
    detail: str


def check_grid(model: Model, grid: Grid, source: Path | None) -> None:
    """Refuses a grid that the model cannot work on.

    Raises:
        GeometryError: a single slice, and the model has learnt from volumes.
    """
    configuration = model.configuration
    if configuration.ndim == 3 and min(configuration.window) > 1 == min(grid.shape):
        raise GeometryError(
            "a single slice cannot be predicted by a model of volumes",
            file=source,
            found=f"shape {grid.shape}",
            allowed="several slices (z, y, x)",
        )


def doubts(model: Model, image: Image, case: str) -> tuple[Doubt, ...]:
    """The reasons to distrust a prediction that the image itself gives."""
    reasons = []
    canonical = image.grid.reoriented(image.grid.canonical_axes())
    candidates = [c for c in model.plan.configurations.values() if c.ndim == model.configuration.ndim]
    nearest = min((*candidates, model.configuration), key=lambda c: spacing_factor(canonical, c))
    if spacing_factor(canonical, nearest) > MAX_FACTOR:
        own = spacing_text(resampled_axes(canonical, nearest.space))
        detail = f"found: {own}; expected: about {spacing_text(nearest.space.spacing_mm)}; fix: {SPACING_FIX}"
        reasons.append(
            Doubt(case, "voxels are of another size than the model has learnt, so the prediction may be wrong", detail)
        )
    return tuple(reasons)


def log_doubts(all_doubts: Sequence[Doubt]) -> None:
    """Notes each kind of doubt once, with the number of cases and the first names."""
    for problem in dict.fromkeys(doubt.problem for doubt in all_doubts):
        same = sorted((doubt for doubt in all_doubts if doubt.problem == problem), key=lambda doubt: doubt.case)
        names = f" in {number_of(len(same), 'case')} ({first_few([doubt.case for doubt in same])})" if same[0].case else ""
        log.warning("note%s: %s; %s", names, problem, same[0].detail)


def spacing_factor(grid: Grid, configuration: Configuration) -> float:
    """Factor, at least 1, between the voxels of a canonical grid and a configuration's: geometric mean over resampled axes."""
    own, target = resampled_axes(grid, configuration.space), configuration.space.spacing_mm
    factor = float(np.exp(np.mean(np.log(np.divide(own, target)))))
    return max(factor, 1 / factor)
