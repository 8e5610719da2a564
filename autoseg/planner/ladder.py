"""The ladder: the same cases on ever coarser grids, of which a limit of time chooses one.

On a coarse grid a patch shows more of a case, a step takes less time and every structure is seen more often, but what is
thinner than a voxel is lost. With little time the first counts, with much the second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from autoseg.fingerprint.grid_ceilings import GridCeiling
from autoseg.imaging.geometry import coarser_spacing, resampled_shape
from autoseg.plan import Rung
from autoseg.plan.ladder import MARGIN, Choice, choose_rung, expected_dice
from autoseg.planner.architecture import Architecture, plan_architecture
from autoseg.planner.budget import Budget
from autoseg.planner.configuration import PlannedConfiguration, plan_configuration
from autoseg.planner.inputs import PlanInputs, TargetGrid
from autoseg.planner.training import n_steps
from autoseg.planner.wording import number, numbers, percent, seconds

TIMES = {"2h": 7200.0, "30m": 1800.0, "10m": 600.0, "3m": 180.0, "1m": 60.0, "20s": 20.0}
"""Seconds that a ladder has a rung for, so that a training can be given less time than it was planned with, or be run on a
slower machine; with the ending of the rung's name where two have the same grid."""
LEAST_EDGE = 8  # voxels of the median case along an axis that is made coarser; a U-Net needs some
LOST = 0.5  # of the Dice on the least coarse grid: with less a structure counts as lost
PATIENCE = 2  # coarser grids in a row that promise less, after which none is tried


@dataclass(frozen=True)
class Ladder:
    """Planned configurations by name, the finest first, their rungs in the same order, and the choice among them."""

    planned: Mapping[str, PlannedConfiguration]
    rungs: tuple[Rung, ...]
    choice: Choice
    reason: str


@dataclass(frozen=True)
class _Candidate:
    """A network on a grid, as it would be planned for some time, and what it is expected to reach in it."""

    ceiling: GridCeiling
    grid: TargetGrid
    architecture: Architecture
    expected: float


def plan_ladder(inputs: PlanInputs, name: str, finest: PlannedConfiguration, grid: TargetGrid) -> Ladder | None:
    """Plans, for shorter and shorter limits of time, the grid, patch and batch that promise most.

    None where that is always the configuration at full resolution, where the structures were not measured on coarser
    grids, and on a GPU without a limit of time, where nnU-Net's plan stays.

    Args:
        name, finest, grid: the configuration at full resolution.
    """
    budget, n = inputs.budget, len(inputs.fingerprint.labels.names)
    known = bool(inputs.fingerprint.ceilings) and finest.configuration.footprint is not None  # else a plugin's rule changed it
    if not known or (budget.device == "cuda" and budget.time_s is None):
        return None
    planned = {name: finest}
    patch = finest.configuration.patch
    rungs = [_rung(inputs, name, grid, GridCeiling(1.0, (1.0,)), patch_size=patch.patch_size, batch_size=patch.batch_size)]
    for ending, time_s in (("", budget.time_s), *((e, t) for e, t in TIMES.items() if not budget.time_s or t < budget.time_s)):
        at_least = rungs[-1].factor  # with less time the grid becomes coarser, never finer
        best = _best(inputs, replace(budget, time_s=time_s), grid, at_least)
        configurations = {key: p.configuration for key, p in planned.items()}
        if best.expected < max(choose_rung(rungs, configurations, time_s, n_structures=n).expected.values()) + MARGIN:
            continue
        rung_name = f"{len(grid.spacing)}d_x{best.ceiling.factor:g}"
        rung_name += f"_{ending}" if rung_name in planned or best.ceiling.factor == 1 else ""
        why = _why(finest, best.ceiling)
        planned[rung_name] = plan_configuration(inputs, best.architecture, best.grid, why=why)
        rungs.append(_rung_of(inputs, rung_name, best.ceiling, best.grid, best.architecture))
    if len(rungs) == 1:
        return None
    choice = choose_rung(rungs, {key: p.configuration for key, p in planned.items()}, budget.time_s, n_structures=n)
    return Ladder(planned, tuple(rungs), choice, _reason(choice, rungs, budget.time_s))


def _best(inputs: PlanInputs, budget: Budget, grid: TargetGrid, at_least: float) -> _Candidate:
    """The grid that promises most in a time, of those that are coarse enough."""
    best, behind = None, 0
    for candidate in _candidates(inputs, budget, grid, at_least):
        behind = 0 if best is None or candidate.expected > best.expected + MARGIN else behind + 1
        best = candidate if behind == 0 else best
        if behind == PATIENCE:
            break
    assert best is not None  # the grid of the last rung is among them
    return best


def _candidates(inputs: PlanInputs, budget: Budget, grid: TargetGrid, at_least: float) -> Iterator[_Candidate]:
    for ceiling in (GridCeiling(1.0, (1.0,)), *inputs.fingerprint.ceilings):
        if ceiling.factor < at_least:
            continue
        coarse = _coarse_grid(grid, ceiling.factor)
        if ceiling.factor > at_least and _too_coarse(grid, coarse):
            return
        voxels = prod(coarse.shape) * inputs.n_cases
        architecture = plan_architecture(inputs.cost, budget, coarse.spacing, coarse.shape, voxels)
        rung = _rung_of(inputs, "", ceiling, coarse, architecture)
        steps = n_steps(budget, architecture.step_gmacs)
        yield _Candidate(ceiling, coarse, architecture, expected_dice(rung, steps, len(inputs.fingerprint.labels.names)))


def _coarse_grid(grid: TargetGrid, factor: float) -> TargetGrid:
    spacing = coarser_spacing(grid.spacing, factor)
    shape = resampled_shape([round(n) for n in grid.shape], grid.spacing, spacing)
    return TargetGrid(spacing, tuple(float(n) for n in shape), grid.slice_axis)


def _too_coarse(grid: TargetGrid, coarse: TargetGrid) -> bool:
    return min(n for n, s, t in zip(coarse.shape, grid.spacing, coarse.spacing) if t > s) < LEAST_EDGE


def _why(finest: PlannedConfiguration, ceiling: GridCeiling) -> dict[str, str]:
    reasons = finest.configuration.why
    kept: dict[str, str] = {key: reasons[key] for key in ("space.spacing_mm", "space.slice_axis") if key in reasons}
    if ceiling.factor == 1:
        return kept
    coarse = (
        f"{ceiling.factor:g} times as coarse as {numbers(finest.configuration.space.spacing_mm)} mm, for short trainings: "
        f"structures drawn on this grid and brought back have Dice {ceiling.mean:.3f} with themselves"
    )
    return {**kept, "space.spacing_mm": coarse}


def _rung_of(inputs: PlanInputs, name: str, ceiling: GridCeiling, grid: TargetGrid, architecture: Architecture) -> Rung:
    size, batch = architecture.topology.patch_size, architecture.batch_size
    return _rung(inputs, name, grid, ceiling, patch_size=size, batch_size=batch)


def _rung(
    inputs: PlanInputs, name: str, grid: TargetGrid, ceiling: GridCeiling, *, patch_size: Sequence[int], batch_size: int
) -> Rung:
    shown = prod(min(p, n) for p, n in zip(patch_size, grid.shape)) / prod(grid.shape)
    n_slices = 1.0 if grid.slice_axis is None else inputs.shape[grid.slice_axis]
    return Rung(
        configuration=name,
        spacing_mm=grid.spacing,
        factor=ceiling.factor,
        ceiling=round(ceiling.mean, 4),
        covered=round(shown, 4),
        cases=float(f"{shown * batch_size / n_slices:.4g}"),
        lost=_lost(inputs, ceiling),
    )


def _lost(inputs: PlanInputs, ceiling: GridCeiling) -> tuple[str, ...]:
    """Structures that the grid does not hold; those that even a slightly coarser one loses are none of its faults."""
    names, finest = inputs.fingerprint.labels.names, inputs.fingerprint.ceilings[0]
    if ceiling.factor == 1:
        return ()
    return tuple(name for name, d, best in zip(names, ceiling.dice, finest.dice) if d is not None and best and d < LOST * best)


def _reason(choice: Choice, rungs: Sequence[Rung], time_s: float | None) -> str:
    """The choice in a sentence; empty where it is the finest."""
    finest, chosen = rungs[0], choice.rung
    if chosen is finest:
        return ""
    fine, coarse = (choice.expected[rung.configuration] for rung in (finest, chosen))
    fine_seen, coarse_seen = (round(choice.steps[rung.configuration] * rung.cases) for rung in (finest, chosen))
    time = "in the steps of a training" if time_s is None else f"in {seconds(time_s)}"
    return (
        f"{time} a grid {number(chosen.factor)} times as coarse could come to Dice {coarse:.2f}, {finest.configuration} "
        f"to {fine:.2f}: a patch shows {percent(chosen.covered)} of a case instead of {percent(finest.covered)}, and the "
        f"network sees as much as {coarse_seen} whole cases instead of {fine_seen}; the coarse voxels cost "
        f"{1 - chosen.ceiling:.3f} of Dice"
    )
