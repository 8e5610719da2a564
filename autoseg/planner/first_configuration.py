"""Which configuration to train first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from autoseg.plan import Configuration
from autoseg.planner.wording import number
from autoseg.splits.folds import N_FOLDS

FEW_CASES = 20  # with fewer a fold is validated on three cases or less
FEW_SLICES = 5  # with fewer a 3D kernel mostly sees what lies beyond the first and the last slice
THICK = 8.0  # times the spacing in the plane, from which neighbouring slices tell little about each other


def few_cases(n_cases: int) -> str:
    """What a small dataset asks for, to be added to the reason; nothing for others."""
    if n_cases >= FEW_CASES:
        return ""
    if n_cases == 1:
        return "; a single case leaves nothing to validate on: -f all"
    folds = ",".join(str(i) for i in range(min(n_cases, N_FOLDS)))
    return f"; with {n_cases} cases the score of one fold says little: -f {folds} validates on all of them"


def choose_first(
    configurations: Mapping[str, Configuration], shapes: Mapping[str, Sequence[float]], n_cases: int, steps: float
) -> tuple[str, str]:
    """Name and reason.

    Args:
        shapes: the median case (voxels) on the grid of each configuration.
        steps: of 3d_fullres that there is time for.
    """
    coarse, *others = configurations
    if [configurations[name].previous_stage for name in others] == [coarse]:
        refines = f"; {others[0]} refines what all of its folds found" if n_cases > 1 else ""
        return coarse, f"a patch shows all landmarks there, which tells them apart{refines}"
    if "3d_fullres" not in configurations:
        return "2d", "the median case is a single slice"
    if list(configurations) == ["3d_fullres"]:
        return "3d_fullres", "landmarks of volumes are found in volumes"
    fine = configurations["3d_fullres"]
    if "2d" in configurations:
        axis = configurations["2d"].space.slice_axis
        assert axis is not None
        if thin := _thin(fine.space.spacing_mm, shapes["3d_fullres"], axis):
            return "2d", thin
    if "3d_lowres" in configurations:
        seen = steps * fine.patch.batch_size * prod(fine.patch.patch_size) / (n_cases * prod(shapes["3d_fullres"]))
        if seen < 1:
            return "3d_lowres", (
                f"in {steps:.0f} steps a network for 3d_fullres would see {100 * seen:.2g} % of the voxels of {n_cases} cases; "
                "on the coarse grid the time is enough"
            )
        return "3d_fullres", "fine borders need the full resolution; 3d_lowres and 3d_cascade are for structures it confuses"
    return "3d_fullres", "volumes are best segmented as volumes, and a patch covers enough of a case"


def _thin(spacing: Sequence[float], shape: Sequence[float], axis: int) -> str:
    """Why volumes should be taken for stacks of slices across `axis`, if they should."""
    in_plane = max(s for a, s in enumerate(spacing) if a != axis)
    if shape[axis] < FEW_SLICES:
        return f"the median case has {number(shape[axis])} slices: there is hardly a third dimension to learn from"
    if spacing[axis] >= THICK * in_plane:
        return f"slices are {number(spacing[axis] / in_plane)} times as thick as their pixels: neighbours tell little"
    return ""
