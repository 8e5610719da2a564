"""The tiny plan with a second, coarser rung."""

from __future__ import annotations

from dataclasses import replace

from autoseg.plan import Footprint, Plan, Rung


def with_ladder(plan: Plan, *, step_s: float, faster: float, fine_cases: float, coarse_ceiling: float) -> Plan:
    """The plan with a ladder of `3d_fullres` and `3d_x2`, each of 250,000 steps.

    Args:
        step_s: planned seconds a step of the fine rung.
        faster: times as fast as the fine rung is the coarse one.
        fine_cases: whole cases' worth of voxels in a batch of the fine rung; 2 in one of the coarse rung.
        coarse_ceiling: Dice that the coarse grid can hold.
    """
    fine = replace(plan.configurations["3d_fullres"], footprint=Footprint(1.0, 1.0, 0.1, step_s))
    fine = replace(fine, training=replace(fine.training, epochs=1000, steps_per_epoch=250))
    spacing = tuple(2 * s for s in fine.space.spacing_mm)
    coarse = replace(fine, space=replace(fine.space, spacing_mm=spacing), footprint=Footprint(1.0, 1.0, 0.1, step_s / faster))
    return replace(
        plan,
        configurations={"3d_fullres": fine, "3d_x2": coarse},
        ladder=(
            Rung("3d_fullres", fine.space.spacing_mm, factor=1.0, ceiling=1.0, covered=1.0, cases=fine_cases),
            Rung("3d_x2", spacing, factor=2.0, ceiling=coarse_ceiling, covered=1.0, cases=2.0),
        ),
    )
