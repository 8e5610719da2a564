"""The configuration to train first, which `auto` stands for: by what a slice, a patch and the time show of a case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from autoseg.planner.configuration import PlannedConfiguration
from autoseg.planner.wording import number
from autoseg.splits.folds import N_FOLDS

FEW_CASES = 20  # with fewer a fold is validated on three cases or less
FEW_SLICES = 5  # with fewer a 3D kernel mostly sees what lies beyond the first and the last slice
THICK = 8.0  # times the spacing in the plane, from which neighbouring slices tell little about each other


def few_cases(n_cases: int) -> str:
    """The advice on folds for a small dataset, to be added to the reason; nothing for others."""
    if n_cases >= FEW_CASES:
        return ""
    if n_cases == 1:
        return "; a single case leaves nothing to validate on: -f all"
    folds = ",".join(str(i) for i in range(min(n_cases, N_FOLDS)))
    return f"; with {n_cases} cases the score of one fold means little: -f {folds} validates on all of them"


def choose_default(planned: Mapping[str, PlannedConfiguration], n_cases: int) -> tuple[str, str]:
    """Name and reason of the configuration to train first."""
    coarse, *others = planned
    if [planned[name].configuration.previous_stage for name in others] == [coarse]:
        refines = f"; {others[0]} refines the predictions of all of its folds" if n_cases > 1 else ""
        return coarse, f"a patch shows all landmarks there, which tells them apart{refines}"
    if "3d_fullres" not in planned:
        return "2d", "the median case is a single slice"
    if list(planned) == ["3d_fullres"]:
        return "3d_fullres", "landmarks of volumes are found in volumes"
    fullres = planned["3d_fullres"]
    if "2d" in planned:
        axis = planned["2d"].configuration.space.slice_axis
        assert axis is not None
        if reason := _thin(fullres.configuration.space.spacing_mm, fullres.median_shape, axis):
            return "2d", reason
    if "3d_lowres" in planned:
        patch = fullres.configuration.patch
        share = fullres.n_steps * patch.batch_size * prod(patch.patch_size) / (n_cases * prod(fullres.median_shape))
        if share < 1:
            return "3d_lowres", (
                f"in {fullres.n_steps:.0f} steps a network for 3d_fullres would see {100 * share:.2g} % of the voxels of "
                f"{n_cases} cases; on the coarse grid the time is enough"
            )
        return "3d_fullres", "fine borders need the full resolution; 3d_lowres and 3d_cascade are for structures it confuses"
    return "3d_fullres", "volumes are best segmented as volumes, and a patch covers enough of a case"


def _thin(spacing: Sequence[float], shape: Sequence[float], axis: int) -> str:
    """The reason to take volumes for stacks of slices across `axis`, or nothing."""
    in_plane = max(s for a, s in enumerate(spacing) if a != axis)
    if shape[axis] < FEW_SLICES:
        return f"the median case has {number(shape[axis])} slices: there is hardly a third dimension to learn from"
    if spacing[axis] >= THICK * in_plane:
        return f"slices are {number(spacing[axis] / in_plane)} times as thick as their pixels: neighbours tell little"
    return ""
