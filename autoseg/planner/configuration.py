"""One configuration of a plan: the rules that follow from its grid and network, gathered with their reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from autoseg.plan import Configuration, InferencePlan, LandmarkPlan, PatchPlan, SpacePlan, TrainingPlan
from autoseg.plan.edits import COSTLY
from autoseg.planner.architecture import Architecture, architecture_reasons
from autoseg.planner.estimate import estimate
from autoseg.planner.inputs import PlanInputs, TargetGrid
from autoseg.planner.landmark_head import plan_landmarks
from autoseg.planner.mirroring import mirror_axes
from autoseg.planner.rules import apply_rules
from autoseg.planner.sampling import Sampling, plan_sampling
from autoseg.planner.training import UNUSED, n_steps, plan_inference, plan_training

LABEL_ORDER = "linear interpolation of each structure, the largest wins: smooth borders (nnU-Net)"


@dataclass(frozen=True)
class PlannedConfiguration:
    """A configuration, and what the choice between configurations needs to know about it.

    Args:
        median_shape: voxels of the median case on its grid.
        n_steps: training steps that there is time for, without the work of a landmarks' branch.
    """

    configuration: Configuration
    median_shape: tuple[float, ...]
    n_steps: float


def plan_configuration(
    inputs: PlanInputs,
    architecture: Architecture,
    grid: TargetGrid,
    *,
    why: dict[str, str],
    previous_stage: str | None = None,
) -> PlannedConfiguration:
    """The whole configuration for a network on a grid.

    Args:
        why: reasons for grid and previous stage, by dotted key.
    """
    fingerprint, budget = inputs.fingerprint, inputs.budget
    steps = n_steps(budget, architecture.step_gmacs)
    space = _plan_space(inputs, grid)
    landmarks: LandmarkPlan | None = None
    landmark_reasons: dict[str, str] = {}
    if fingerprint.landmark_statistics:
        architecture, landmarks, landmark_reasons = plan_landmarks(
            architecture, budget, fingerprint.landmark_statistics, fingerprint.cases, space
        )
    patch_size = architecture.topology.patch_size
    training, inference, learning_reasons = _plan_learning(inputs, architecture, grid)
    sampling = _plan_sampling(inputs, patch_size, grid, space)
    configuration = Configuration(
        previous_stage=previous_stage,
        space=space,
        patch=PatchPlan(patch_size, architecture.batch_size, sampling.fraction, sampling.sampling),
        network=architecture.network,
        landmarks=landmarks,
        training=training,
        inference=inference,
        postprocess=(),
        footprint=None,
        why={
            **why,
            **_space_reasons(inputs),
            **architecture_reasons(architecture, budget, grid.shape),
            **landmark_reasons,
            "patch.foreground_fraction": sampling.fraction_reason,
            "patch.sampling": sampling.sampling_reason,
            **learning_reasons,
        },
    )
    ruled = apply_rules(configuration, fingerprint, budget)
    if all(getattr(ruled, group) == getattr(configuration, group) for group in COSTLY):  # else a plugin's rule has changed them
        footprint, reasons = estimate(fingerprint, architecture, budget, _whole_spacing(inputs, space))
        ruled = replace(ruled, footprint=footprint, why={**ruled.why, **reasons})
    return PlannedConfiguration(ruled, grid.shape, steps)


def _plan_learning(
    inputs: PlanInputs, architecture: Architecture, grid: TargetGrid
) -> tuple[TrainingPlan, InferencePlan, dict[str, str]]:
    """The plan's `training` and `inference`, which agree on mirrored axes, with reasons by dotted key."""
    ndim = 3 if inputs.flat_axis is None else 2  # of the cases; slices of volumes are mirrored as volumes are
    mirrored, mirror_reason = mirror_axes(
        inputs.fingerprint.labels,
        inputs.fingerprint.cases,
        ndim=ndim,
        device=inputs.budget.device,
        slice_axis=grid.slice_axis,
        landmarks=inputs.landmarks,
    )
    training, training_reasons = plan_training(
        mirrored,
        inputs.budget,
        architecture.step_gmacs,
        covered=prod(architecture.topology.patch_size) / prod(grid.shape),
        slices=grid.slice_axis is not None,
        labelled=inputs.has_labels,
    )
    inference, inference_reasons = plan_inference(mirrored, inputs.landmarks.one_sided)
    return training, inference, {"training.mirror_axes": mirror_reason, **training_reasons, **inference_reasons}


def _plan_space(inputs: PlanInputs, grid: TargetGrid) -> SpacePlan:
    return SpacePlan(
        orientation="LPS",
        spacing_mm=grid.spacing,
        slice_axis=grid.slice_axis,
        crop="none" if inputs.n_outside_crop else "nonzero",
        image_order=3,
        label_order=1,
    )


def _space_reasons(inputs: PlanInputs) -> dict[str, str]:
    crop = f"leaves {100 * inputs.fingerprint.median_relative_size:.0f} % of the voxels (median)"
    if inputs.n_outside_crop:
        crop = f"none: a crop to what is not 0 {crop}, but cuts off landmarks of {inputs.n_outside_crop} cases"
    return {
        "space.orientation": "canonical axes, so that left and right mean the same in every case",
        "space.crop": crop,
        "space.image_order": "cubic interpolation keeps edges sharp (nnU-Net)",
        "space.label_order": LABEL_ORDER if inputs.has_labels else UNUSED,
    }


def _whole_spacing(inputs: PlanInputs, space: SpacePlan) -> tuple[float, float, float]:
    """Spacing (z, y, x) of prepared cases: across slices nothing is resampled."""
    return space.in_volume(space.spacing_mm, inputs.spacing[space.slice_axis or 0])


def _plan_sampling(inputs: PlanInputs, patch_size: Sequence[int], grid: TargetGrid, space: SpacePlan) -> Sampling:
    """Sampling of a volume, in which a slice is a patch of one voxel's thickness, or of single slices."""
    if inputs.flat_axis is not None:
        return plan_sampling(inputs.fingerprint, patch_size, grid.spacing, grid.shape)
    shape = space.in_volume(grid.shape, inputs.shape[grid.slice_axis or 0])
    return plan_sampling(inputs.fingerprint, space.in_volume(patch_size, 1), _whole_spacing(inputs, space), shape)
