"""The patch and batch that the time of a training step allows: on a CPU, or where there is a limit of time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor, prod

from autoseg.planner.budget import Budget
from autoseg.planner.cost import NetworkCost
from autoseg.planner.patch import MIN_BATCH, shrink_until
from autoseg.planner.topology import Topology, without_last_halving
from autoseg.planner.wording import billions, seconds

PADDING = 1.25
"""A patch that has this many times the voxels of one with a stage less is mostly padding."""


@dataclass(frozen=True)
class TimeFit:
    """A patch and a batch for the time that a step may take, and what was changed for it.

    Args:
        tight: whether there is a stage less, for less padding.
    """

    topology: Topology
    batch_size: int
    tight: bool
    patch_reason: str
    batch_reason: str


def fit_time(
    topology: Topology,
    batch_size: int,
    cost: NetworkCost,
    budget: Budget,
    *,
    spacing: Sequence[float],
    median_shape: Sequence[float],
    fits: Callable[[Topology], bool],
) -> TimeFit:
    """Bounds the time of a training step: on a CPU less padding first, then a smaller batch, to two, then a smaller patch.

    Args:
        spacing, median_shape: in nnU-Net's order of axes, `spacing.coarsest_first`.
        fits: whether the memory is enough; thin patches may take more of it than larger ones.
    """

    def step_s(topology: Topology, batch: int) -> float:
        return cost.step_gmacs(topology, batch) / budget.speed

    tight = _less_padding(topology, median_shape) if budget.device == "cpu" else None
    if tight and step_s(tight, MIN_BATCH) > budget.patch_limit_s:
        tight = None  # it must be shrunk anyway, and smaller patches have the padding of their own stages
    start = tight or topology
    smaller, _ = shrink_until(lambda t: step_s(t, MIN_BATCH) <= budget.patch_limit_s and fits(t), start, spacing, median_shape)
    batch = min(batch_size, max(MIN_BATCH, floor(budget.batch_limit_s / step_s(smaller, 1))))
    where = "on a CPU" if budget.device == "cpu" else "in the time there is"
    if budget.device == "cpu" and budget.time_s is not None:
        where += f" in {seconds(budget.time_s)}"
    work = f"{billions(1e9 * cost.step_gmacs(smaller, batch))} multiply-accumulates a step"
    batch_reason = f"{work} {where}"
    if batch < batch_size:
        batch_reason = f"lowered to {batch} {where}, so that a step takes about {step_s(smaller, batch):.2g} s: {work}"
    patch_reasons = []
    if tight:
        share = prod(topology.patch_size) / prod(tight.patch_size)
        patch_reasons.append(f"one stage less on a CPU: a patch {share:.2g} times as large would be mostly padding")
    if smaller != start:
        patch_reasons.append(f"shrunk {where} towards {budget.patch_limit_s:.2g} s a step of {MIN_BATCH} samples")
    return TimeFit(smaller, batch, tight is not None, "; ".join(patch_reasons), batch_reason)


def _less_padding(topology: Topology, median_shape: Sequence[float]) -> Topology | None:
    """A topology with one stage less, if the patch covers the whole median case and a good part of it is padding."""
    if any(n < m for n, m in zip(topology.patch_size, median_shape)):
        return None
    fewer = without_last_halving(topology, median_shape)
    return fewer if fewer and prod(topology.patch_size) >= PADDING * prod(fewer.patch_size) else None
