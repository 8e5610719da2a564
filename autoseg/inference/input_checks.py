"""Checks of images before they are predicted: an image unlike those of the training gives a wrong answer that looks right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from autoseg.errors import GeometryError, first_few
from autoseg.imaging.geometry import Grid, resampled_shape
from autoseg.imaging.image import Image
from autoseg.inference.model import Model
from autoseg.plan import Configuration
from autoseg.system.machine import free_ram_gb
from autoseg.system.progress import log, number_of

MAX_FACTOR = 4.0  # between voxels of images that one network is meant for; thick slices beside thin ones differ by less
MAX_ENLARGEMENT = 64  # times the voxels of an image on the model's grid: four times finer along three axes
VALUE_BYTES = 4  # of a voxel, before it is stored as float16
SPACING_FIX = "check the spacing: its unit must be mm, and its order z, y, x in arrays"


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
        GeometryError: a single slice, and the model has learnt from volumes; or so large voxels that the image would take up
            more than memory, or many times its own voxels, on the model's grid.
    """
    configuration = model.configuration
    if configuration.ndim == 3 and min(configuration.window) > 1 == min(grid.shape):
        raise GeometryError(
            "a single slice cannot be predicted by a model of volumes",
            file=source,
            found=f"shape {grid.shape}",
            allowed="several slices (z, y, x)",
        )
    space, canonical = configuration.space, grid.reoriented(grid.canonical_axes())
    target = space.in_volume(space.spacing_mm, canonical.spacing[space.slice_axis or 0])
    voxels, own = prod(resampled_shape(canonical.shape, canonical.spacing, target)), prod(grid.shape)
    free, needed = free_ram_gb(), voxels * VALUE_BYTES * len(model.plan.data.channels) / 1e9
    too_large = free is not None and needed > free and voxels > own and space.crop == "none"  # else a part of it may be enough
    if voxels > MAX_ENLARGEMENT * own or too_large:
        raise GeometryError(
            f"the voxels are so large that the image would have {voxels / own:,.0f} times its voxels on the model's grid"
            + (f", {needed:.3g} GB" if too_large else ""),
            file=source,
            found=_mm(canonical, configuration),
            allowed=f"about {_mm_of(configuration)}",
            fix=SPACING_FIX,
        )


def doubts(model: Model, image: Image, case: str) -> tuple[Doubt, ...]:
    """The reasons to distrust a prediction that the image itself gives."""
    reasons = []
    canonical = image.grid.reoriented(image.grid.canonical_axes())
    candidates = [c for c in model.plan.configurations.values() if c.ndim == model.configuration.ndim]
    nearest = min((*candidates, model.configuration), key=lambda c: spacing_factor(canonical, c))
    if spacing_factor(canonical, nearest) > MAX_FACTOR:
        detail = f"found: {_mm(canonical, nearest)}; expected: about {_mm_of(nearest)}; fix: {SPACING_FIX}"
        reasons.append(
            Doubt(case, "voxels are of another size than the model has learnt, so the prediction may be wrong", detail)
        )
    if all(channel.min() == channel.max() for channel in image.data):
        values = ", ".join(f"{channel.flat[0]:g}" for channel in image.data)
        reasons.append(Doubt(case, "the image is blank, so the prediction means nothing", f"found: {values} everywhere"))
    return tuple(reasons)


def log_doubts(all_doubts: Sequence[Doubt]) -> None:
    """Notes each kind of doubt once, with the number of cases and the first names."""
    for problem in dict.fromkeys(doubt.problem for doubt in all_doubts):
        same = sorted((doubt for doubt in all_doubts if doubt.problem == problem), key=lambda doubt: doubt.case)
        names = f" in {number_of(len(same), 'case')} ({first_few([doubt.case for doubt in same])})" if same[0].case else ""
        log.warning("note%s: %s; %s", names, problem, same[0].detail)


def spacing_factor(grid: Grid, configuration: Configuration) -> float:
    """Factor, at least 1, between the voxels of a canonical grid and a configuration's: geometric mean over resampled axes."""
    own, target = _resampled_axes(grid, configuration), configuration.space.spacing_mm
    factor = float(np.exp(np.mean(np.log(np.divide(own, target)))))
    return max(factor, 1 / factor)


def _resampled_axes(grid: Grid, configuration: Configuration) -> tuple[float, ...]:
    """Spacing along the axes that a configuration resamples: within the slices of a 2D one."""
    axis = configuration.space.slice_axis
    return tuple(step for i, step in enumerate(grid.spacing) if i != axis or len(configuration.space.spacing_mm) == 3)


def _mm(grid: Grid, configuration: Configuration) -> str:
    return f"({', '.join(f'{step:.4g}' for step in _resampled_axes(grid, configuration))}) mm"


def _mm_of(configuration: Configuration) -> str:
    return f"({', '.join(f'{step:.4g}' for step in configuration.space.spacing_mm)}) mm"
