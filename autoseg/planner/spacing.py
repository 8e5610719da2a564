"""The target spacing: the median of the cases, finer along an axis with thick and few slices (nnU-Net)."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import numpy as np

from autoseg.errors import DataError
from autoseg.fingerprint.case import CaseFingerprint
from autoseg.imaging.geometry import resampled_shape
from autoseg.planner.wording import number, numbers

ANISOTROPY = 3.0  # from this ratio of spacings on an axis counts as thick-sliced (nnU-Net)
THIN_SLICES = 10  # percentile of the spacing along a thick-sliced axis that becomes its target (nnU-Net)

AXES = ("z", "y", "x")


def target_spacing(cases: Sequence[CaseFingerprint]) -> tuple[tuple[float, float, float], str]:
    """Chooses the spacing (z, y, x) in mm, with the reason.

    The median of the cases, except along an axis with thick and few slices: there one of the finest spacings, so that cases
    with thin slices lose little (nnU-Net; Isensee et al. 2021).

    Raises:
        DataError: there is no case, or the spacing or shape of one is not positive and finite.
    """
    _check(cases)
    spacings = np.array([case.spacing for case in cases])
    median = np.percentile(spacings, 50, axis=0)
    shape = np.percentile([case.shape_after_crop for case in cases], 50, axis=0)
    reason = f"median spacing of {len(cases)} cases is {numbers(median)} mm"
    worst = int(median.argmax())
    others = [axis for axis in range(3) if axis != worst]
    in_plane = float(median[others].max())
    if median[worst] > ANISOTROPY * in_plane and ANISOTROPY * shape[worst] < shape[others].min():
        thin = float(np.percentile(spacings[:, worst], THIN_SLICES))
        reason += f"; {AXES[worst]} has slices more than {ANISOTROPY:g} times as thick as the in-plane spacing, and few of them: "
        if thin < in_plane:
            reason += f"there the coarser in-plane spacing {number(in_plane)} mm"
            thin = in_plane + 1e-5  # stays the coarsest axis (nnU-Net)
        else:
            reason += f"there the {THIN_SLICES}th percentile {number(thin)} mm"
        median[worst] = thin
    z, y, x = (float(s) for s in median)
    return (z, y, x), reason


def median_shape(cases: Sequence[CaseFingerprint], spacing: Sequence[float] | None) -> tuple[float, ...]:
    """Median size (z, y, x) in voxels of the cropped cases at that spacing, or of their files for None; halves occur."""
    shapes = [resampled_shape(c.shape_after_crop, c.spacing, spacing) if spacing is not None else c.shape for c in cases]
    return tuple(float(n) for n in np.median(shapes, axis=0))


def _check(cases: Sequence[CaseFingerprint]) -> None:
    if not cases:
        raise DataError("nothing can be planned without a case", fix="autoseg fingerprint -d DATASET")
    for case in cases:
        for quantity, values, unit in (("spacing", case.spacing, "mm"), ("shape", case.shape_after_crop, "voxels")):
            if not all(0 < value < inf for value in values):
                raise DataError(
                    f"the fingerprint holds a {quantity} that is not positive and finite",
                    case=case.name,
                    found=f"{values} {unit} (z, y, x)",
                    allowed=f"more than 0 {unit} along every axis",
                    fix="correct the header of the image, then autoseg fingerprint -d DATASET",
                )


def coarsest_first(spacing: Sequence[float]) -> tuple[int, ...]:
    """The order of axes in which nnU-Net plans: the coarsest one, then the others. It decides between equal axes only."""
    worst = int(np.argmax(spacing))
    return (worst, *(axis for axis in range(len(spacing)) if axis != worst))


def coarser(spacing: Sequence[float], step: float) -> tuple[float, ...]:
    """A spacing that is coarser by a factor along the axes that are more than twice as fine as the coarsest, else along all."""
    fine = [max(spacing) / s > 2 for s in spacing]
    return tuple(s * step if f or not any(fine) else s for s, f in zip(spacing, fine))
