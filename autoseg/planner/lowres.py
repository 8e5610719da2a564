"""A second, coarser resolution for cases that are much larger than what the network sees at once (nnU-Net)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from autoseg.planner.architecture import Architecture, plan_architecture
from autoseg.planner.budget import Budget
from autoseg.planner.cost import NARROW, NetworkCost
from autoseg.planner.spacing import coarser, coarsest_first
from autoseg.planner.wording import number, numbers

COVER = 0.25  # share of the median case that a patch covers, so that the network knows where in the body it is
STEP = 1.03  # the spacing grows by 3 % at a time
LEAST_GAIN = 2.0  # a grid with more than half of the voxels is not worth a network of its own


@dataclass(frozen=True)
class LowRes:
    """Spacing (mm), median size (voxels) and the network for it, axes in canonical order, and the reason for the spacing."""

    spacing: tuple[float, ...]
    shape: tuple[float, ...]
    architecture: Architecture
    reason: str


def plan_lowres(
    cost: NetworkCost,
    budget: Budget,
    spacing: Sequence[float],
    shape: Sequence[float],
    *,
    fullres: Architecture,
    n_cases: int,
) -> LowRes | None:
    """Finds the finest of ever coarser grids on which a patch covers a quarter of the median case.

    None where the patch of the full resolution does so, or where that grid still has more than half of the voxels.

    Args:
        spacing, shape: of the full resolution, three axes in canonical order.

    Raises:
        ResourceError: the smallest patch of the coarser grid needs more memory than the budget has.
    """
    patch, full_voxels = prod(fullres.topology.patch_size), prod(shape)
    if patch / full_voxels >= COVER:
        return None
    order = coarsest_first(spacing)  # in which nnU-Net multiplies: the last digit depends on it
    positions = [order.index(a) for a in range(3)]
    coarser_spacing = tuple(spacing[a] for a in order)
    while True:
        coarser_spacing = coarser(coarser_spacing, STEP)
        ratios = [spacing[a] / t for a, t in zip(order, coarser_spacing)]
        sizes = [r * shape[a] for r, a in zip(ratios, order)]
        voxels = prod(sizes)
        if most_voxels(cost, budget, coarser_spacing) < COVER * voxels:
            continue  # no patch can be large enough, so none needs to be found
        coarse = tuple(coarser_spacing[p] for p in positions)
        coarse_shape = tuple(float(max(1, round(sizes[p]))) for p in positions)
        architecture = plan_architecture(cost, budget, coarse, coarse_shape, voxels * n_cases)
        covered = prod(architecture.topology.patch_size) / voxels
        if covered >= COVER:
            break
    if full_voxels / voxels < LEAST_GAIN:
        return None
    reason = (
        f"at full resolution, {numbers(spacing)} mm, a patch covers {100 * patch / full_voxels:.2g} % of the median case; the "
        f"spacing was raised in steps of 3 %, fine axes first, until a patch covered {100 * covered:.2g} %; "
        f"{number(full_voxels / voxels)} times fewer voxels: good for large structures and for those that are told apart by "
        "their place in the body, and quicker to predict with; fine borders need 3d_fullres"
    )
    return LowRes(coarse, coarse_shape, architecture, reason)


def most_voxels(cost: NetworkCost, budget: Budget, spacing: Sequence[float]) -> float:
    """A bound on the voxels of a patch, the smallest possible one excepted: with more, the finest stage alone costs too much."""
    narrow = budget.device == "cpu" or budget.time_s is not None  # then the network may come out narrow, which costs less
    elements, gmacs = (replace(cost, width=NARROW) if narrow else cost).finest_stage(spacing)
    in_memory = cost.family.reference(len(spacing), budget.memory_gb).largest_sample / elements
    return min(in_memory, budget.patch_limit_s * budget.speed / gmacs)
