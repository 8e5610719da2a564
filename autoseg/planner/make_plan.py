"""The rules together: from a fingerprint and a budget to a plan.

They are nnU-Net's published rules (Isensee et al., Nature Methods 2021) in closed form: no network is built and no image is
read, so planning takes milliseconds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from autoseg.fingerprint.dataset import Fingerprint
from autoseg.plan import SCHEMA_VERSION, DataPlan, DeviceKind, FamilyName, Origin, Plan, Recipe, Target
from autoseg.plan.checks import check_plan
from autoseg.planner.architecture import plan_architecture
from autoseg.planner.budget import Budget
from autoseg.planner.configuration import PlannedConfiguration, plan_configuration
from autoseg.planner.default_configuration import choose_default, few_cases
from autoseg.planner.inputs import PlanInputs, TargetGrid, plan_inputs
from autoseg.planner.ladder import Ladder, plan_ladder
from autoseg.planner.landmark_resolution import find_landmark_grid
from autoseg.planner.lowres import plan_lowres
from autoseg.planner.memory import TooLittleMemory
from autoseg.planner.normalization import plan_channel
from autoseg.planner.rules import rule_plugins
from autoseg.planner.slices import slice_reason
from autoseg.planner.spacing import coarsest_first
from autoseg.version import __version__

__all__ = ["Budget", "make_plan"]


def make_plan(fingerprint: Fingerprint, budget: Budget) -> Plan:
    """Makes the plan of a dataset: every configuration, each value with its reason.

    Configurations: `3d_fullres`; where a patch covers little of a case `3d_lowres`, and `3d_cascade`, which refines it; `2d`,
    which is the only one where cases are single slices, and is left out where landmarks are looked for in volumes. Landmarks
    alone have one configuration, whose grid is so coarse that a patch shows all of them; where that is too coarse, it is called
    `3d_lowres`, and `3d_cascade` refines it (`2d_lowres` and `2d_cascade` in pictures). On 'cuda' without a limit of time
    patch, batch, network, spacing and normalisation of label maps are those of nnU-Net's planners. On 'cpu' the network has half
    the features, and patch and batch are limited by the time of a step; `why` says so.

    Raises:
        ResourceError: the smallest patch needs more memory than the budget has.
        PlanError, UsageError: the rule of a plugin fails, or makes a plan that contradicts itself.
    """
    try:
        plan = _plan(fingerprint, budget)
    except TooLittleMemory as error:
        raise _enough_for_all(fingerprint, budget, error) from None
    if files := [plugin.path.name for plugin in rule_plugins()]:
        check_plan(plan, f"the plan as changed by {', '.join(files)}")
    return plan


def _enough_for_all(fingerprint: Fingerprint, budget: Budget, error: TooLittleMemory) -> TooLittleMemory:
    """The error with the memory that is enough for every configuration; each of them knows only its own need."""
    while True:
        try:
            _plan(fingerprint, replace(budget, memory_gb=error.needed_gb))
            return TooLittleMemory(error.patch_size, budget.memory_gb, error.needed_gb)
        except TooLittleMemory as more:
            error = more


def _plan(fingerprint: Fingerprint, budget: Budget) -> Plan:
    inputs = plan_inputs(fingerprint, budget)
    planned = _plan_configurations(inputs)
    default, default_reason = choose_default(planned, inputs.n_cases)
    ladder = _ladder(inputs, planned, default)
    if ladder:
        planned = {**planned, **ladder.planned}
        if ladder.reason:  # else the choice is the finest
            default, default_reason = ladder.choice.rung.configuration, ladder.reason
    channels = [plan_channel(fingerprint, i) for i in range(len(fingerprint.channels))]
    pair_reason = "; ".join(map(str, inputs.asymmetric_pairs))
    return Plan(
        schema_version=SCHEMA_VERSION,
        name=fingerprint.dataset,
        task=_target(fingerprint),
        data=DataPlan(
            channels=tuple(channel for channel, _ in channels),
            labels=fingerprint.labels,
            landmarks=inputs.landmarks,
            unseen=fingerprint.unseen_structures,
        ),
        default_configuration=default,
        configurations={name: p.configuration for name, p in planned.items()},
        ladder=ladder.rungs if ladder else (),
        origin=_origin(fingerprint, budget),
        why={
            "default_configuration": default_reason + few_cases(inputs.n_cases),
            **({"data.landmarks.pairs": pair_reason} if pair_reason else {}),
            **{f"data.channels[{i}].normalization": reason for i, (_, reason) in enumerate(channels)},
        },
    )


def _ladder(inputs: PlanInputs, planned: dict[str, PlannedConfiguration], default: str) -> Ladder | None:
    """The ladder below the configuration at full resolution that would be trained first if time did not matter."""
    finest = "3d_fullres" if default == "3d_lowres" and inputs.has_labels else default
    if not inputs.has_labels:
        return None
    grid = inputs.full_grid(planned[finest].configuration.space.slice_axis)
    return plan_ladder(inputs, finest, planned[finest], grid)


def _target(fingerprint: Fingerprint) -> Target:
    if not fingerprint.landmarks.names:
        return "segmentation"
    return "segmentation and landmarks" if fingerprint.labels.names else "landmarks"


def _origin(fingerprint: Fingerprint, budget: Budget) -> Origin:
    return Origin(
        fingerprint=fingerprint.hash,
        memory_gb=float(budget.memory_gb),
        device=cast(DeviceKind, budget.device),
        autoseg_version=__version__,
        family=cast(FamilyName, budget.family),
        gmacs_per_s=float(budget.speed),
        compute=budget.number_type,
        recipe=cast(Recipe, budget.recipe),
    )


def _plan_configurations(inputs: PlanInputs) -> dict[str, PlannedConfiguration]:
    if not inputs.has_labels:
        return _landmarks_alone(inputs)
    if inputs.flat_axis is not None:
        return {"2d": _slices(inputs, inputs.flat_axis)}
    return _volumes(inputs)


def _landmarks_alone(inputs: PlanInputs) -> dict[str, PlannedConfiguration]:
    """A configuration that shows all landmarks at once, and one that refines it if its grid is too coarse."""
    statistics = inputs.fingerprint.landmark_statistics
    assert statistics is not None
    flat = inputs.flat_axis
    grid, spacing_reason = find_landmark_grid(inputs, statistics)
    dimension = "3d" if flat is None else "2d"
    cascade = f"{dimension}_cascade"
    slices = {} if flat is None else {"space.slice_axis": slice_reason(flat, inputs.spacing, flat)}
    coarse = plan_configuration(
        inputs,
        grid.architecture,
        TargetGrid(grid.spacing, grid.shape, flat),
        why={"space.spacing_mm": spacing_reason, **slices},
    )
    patch_reason = f"{coarse.configuration.why['patch.patch_size']}; {grid.context.reason}"
    if not grid.too_coarse:
        name = "3d_fullres" if flat is None else "2d"
        return {name: _with_reason(coarse, "patch.patch_size", f"{patch_reason}: one stage is enough")}
    name = f"{dimension}_lowres"
    patch_reason += f"; {cascade} refines what is found on so coarse a grid"
    return {
        name: _with_reason(coarse, "patch.patch_size", patch_reason),
        cascade: _refined_landmarks(inputs, name, slices),
    }


def _with_reason(planned: PlannedConfiguration, key: str, reason: str) -> PlannedConfiguration:
    configuration = planned.configuration
    return replace(planned, configuration=replace(configuration, why=configuration.why | {key: reason}))


def _refined_landmarks(inputs: PlanInputs, previous_stage: str, slices: dict[str, str]) -> PlannedConfiguration:
    """A second stage for landmarks, at full resolution.

    Args:
        slices: the reason for the slice axis, by dotted key; empty for volumes.
    """
    grid = inputs.full_grid(inputs.flat_axis)
    cost = inputs.cost_after_stage(inputs.cost.io.n_landmarks)
    architecture = plan_architecture(cost, inputs.budget, grid.spacing, grid.shape, inputs.dataset_voxels)
    reason = f"positions from {previous_stage} come in as one more channel a landmark: it has seen all of them at once"
    why = {"previous_stage": reason, "space.spacing_mm": inputs.spacing_reason, **slices}
    return plan_configuration(inputs, architecture, grid, why=why, previous_stage=previous_stage)


def _volumes(inputs: PlanInputs) -> dict[str, PlannedConfiguration]:
    """Full resolution; a coarse one and a cascade where a patch covers little of a case; slices where there are no landmarks."""
    grid = inputs.full_grid()
    fullres = plan_architecture(inputs.cost, inputs.budget, grid.spacing, grid.shape, inputs.dataset_voxels)
    why = {"space.spacing_mm": inputs.spacing_reason}
    planned = {"3d_fullres": plan_configuration(inputs, fullres, grid, why=why)}
    lowres = plan_lowres(inputs.cost, inputs.budget, grid.spacing, grid.shape, fullres=fullres, n_cases=inputs.n_cases)
    if lowres:
        coarse_grid = TargetGrid(lowres.spacing, lowres.shape)
        planned["3d_lowres"] = plan_configuration(
            inputs, lowres.architecture, coarse_grid, why={"space.spacing_mm": lowres.reason}
        )
        cost = inputs.cost_after_stage(inputs.cost.io.n_classes - 1)
        cascade = plan_architecture(cost, inputs.budget, grid.spacing, grid.shape, inputs.dataset_voxels)
        reason = "predictions of 3d_lowres come in as one more channel a structure: they tell where in the body a patch is"
        planned["3d_cascade"] = plan_configuration(
            inputs, cascade, grid, why={"previous_stage": reason, **why}, previous_stage="3d_lowres"
        )
    if not inputs.cost.io.n_landmarks:  # a slice does not show how far away a landmark is
        planned["2d"] = _slices(inputs, coarsest_first(inputs.spacing)[0])
    return planned


def _slices(inputs: PlanInputs, axis: int) -> PlannedConfiguration:
    """A network that sees slices across `axis`."""
    grid = inputs.full_grid(axis)
    architecture = plan_architecture(inputs.cost, inputs.budget, grid.spacing, grid.shape, inputs.dataset_voxels)
    why = {
        "space.spacing_mm": inputs.spacing_reason,
        "space.slice_axis": slice_reason(axis, inputs.spacing, inputs.flat_axis),
    }
    return plan_configuration(inputs, architecture, grid, why=why)
