"""From a fingerprint and a budget to a plan: nnU-Net's published rules (Isensee et al., Nature Methods 2021) in closed form.

No network is built and no image is read, so planning takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Literal, cast

from autoseg.fingerprint.dataset import Fingerprint
from autoseg.fingerprint.landmark_symmetry import check_symmetry
from autoseg.footprint import NetworkIO
from autoseg.plan import (
    SCHEMA_VERSION,
    Configuration,
    DataPlan,
    DeviceKind,
    FamilyName,
    LandmarkPlan,
    Origin,
    PatchPlan,
    Plan,
    Recipe,
    SpacePlan,
    Target,
)
from autoseg.planner.architecture import Architecture, architecture_reasons, plan_architecture
from autoseg.planner.budget import Budget
from autoseg.planner.cost import WIDE, NetworkCost
from autoseg.planner.estimate import estimate
from autoseg.planner.family import FAMILIES
from autoseg.planner.first_configuration import choose_first, few_cases
from autoseg.planner.landmark_head import plan_landmarks
from autoseg.planner.landmark_resolution import plan_view
from autoseg.planner.lowres import plan_lowres
from autoseg.planner.memory import TooLittleMemory
from autoseg.planner.mirroring import mirror_axes
from autoseg.planner.normalization import plan_channel
from autoseg.planner.sampling import plan_sampling
from autoseg.planner.slices import flat_axis, slice_reason
from autoseg.planner.spacing import coarsest_first, median_shape, target_spacing
from autoseg.planner.training import UNUSED, n_steps, plan_inference, plan_postprocess, plan_training
from autoseg.version import __version__

__all__ = ["Budget", "make_plan"]

LABEL_ORDER = "linear interpolation of each structure, the largest wins: smooth borders (nnU-Net)"


def make_plan(fingerprint: Fingerprint, budget: Budget) -> Plan:
    """Decides everything about a dataset.

    Configurations: `3d_fullres`; where a patch covers little of a case `3d_lowres`, and `3d_cascade`, which refines it; `2d`,
    which is the only one where cases are single slices, and is left out where landmarks are looked for in volumes. Landmarks
    alone have one configuration, whose grid is so coarse that a patch shows all of them; where that is too coarse, it is called
    `3d_lowres`, and `3d_cascade` refines it (`2d_lowres` and `2d_cascade` in pictures). On 'cuda' without a limit of time
    patch, batch, network, spacing and normalisation of label maps are those of nnU-Net's planners. On 'cpu' the network has half
    the features, and patch and batch are limited by the time of a step; `why` says so.

    Raises:
        ResourceError: the smallest patch needs more memory than the budget has.
    """
    try:
        return _plan(fingerprint, budget)
    except TooLittleMemory as error:
        raise _enough_for_all(fingerprint, budget, error) from None


def _enough_for_all(fingerprint: Fingerprint, budget: Budget, error: TooLittleMemory) -> TooLittleMemory:
    """The error with the memory that is enough for every configuration; each of them knows only its own need."""
    while True:
        try:
            _plan(fingerprint, replace(budget, memory_gb=error.needed_gb))
            return TooLittleMemory(error.patch_size, budget.memory_gb, error.needed_gb)
        except TooLittleMemory as more:
            error = more


def _plan(fingerprint: Fingerprint, budget: Budget) -> Plan:
    decide = _Decisions(fingerprint, budget)
    configurations = decide.configurations()
    first, first_reason = choose_first(configurations, decide.shapes, len(fingerprint.cases), decide.steps)
    channels = [plan_channel(fingerprint, i) for i in range(len(fingerprint.channels))]
    return Plan(
        schema_version=SCHEMA_VERSION,
        name=fingerprint.dataset,
        task=_task(fingerprint),
        data=DataPlan(tuple(plan for plan, _ in channels), fingerprint.labels, decide.landmarks, fingerprint.unseen_structures),
        default_configuration=first,
        configurations=configurations,
        origin=Origin(
            fingerprint=fingerprint.hash,
            memory_gb=float(budget.memory_gb),
            device=cast(DeviceKind, budget.device),
            autoseg_version=__version__,
            family=cast(FamilyName, budget.family),
            gmacs_per_s=float(budget.speed),
            compute=budget.number_type,
            recipe=cast(Recipe, budget.recipe),
        ),
        why={"default_configuration": first_reason + few_cases(len(fingerprint.cases))}
        | ({"data.landmarks.pairs": "; ".join(map(str, decide.oddities))} if decide.oddities else {})
        | {f"data.channels[{i}].normalization": reason for i, (_, reason) in enumerate(channels)},
    )


def _task(fingerprint: Fingerprint) -> Target:
    if not fingerprint.landmarks.names:
        return "segmentation"
    return "segmentation and landmarks" if fingerprint.labels.names else "landmarks"


def _uncropped(fingerprint: Fingerprint) -> Fingerprint:
    """With cases that are not cropped."""
    return replace(fingerprint, cases=tuple(replace(case, shape_after_crop=case.shape) for case in fingerprint.cases))


class _Decisions:
    """The configurations of one dataset; remembered are the median case (voxels) of each, and the steps there is time for."""

    def __init__(self, fingerprint: Fingerprint, budget: Budget) -> None:
        self.beyond_crop = sum(case.n_outside_crop > 0 for case in fingerprint.cases)
        if self.beyond_crop:
            fingerprint = _uncropped(fingerprint)
        self.fingerprint, self.budget = fingerprint, budget
        self.spacing, self.spacing_reason = target_spacing(fingerprint.cases)
        self.shape = median_shape(fingerprint.cases, self.spacing)
        self.flat_axis = flat_axis(self.shape, self.spacing)
        self.cost = NetworkCost(
            io=NetworkIO(
                n_channels=len(fingerprint.channels),
                n_classes=fingerprint.labels.n_classes if fingerprint.labels.names else 0,
                n_landmarks=len(fingerprint.landmarks),
            ),
            width=WIDE,
            family=FAMILIES[budget.family],
            device=cast(DeviceKind, budget.device),
            compute=budget.number_type,
        )
        self.landmarks, self.oddities = check_symmetry(fingerprint.landmarks, [c.landmarks for c in fingerprint.cases])
        self.shapes: dict[str, tuple[float, ...]] = {}
        self.steps = 0.0

    def configurations(self) -> dict[str, Configuration]:
        if not self.cost.io.n_classes:
            return self._landmarks_alone()
        return {"2d": self._slices(self.flat_axis)} if self.flat_axis is not None else self._volumes()

    def _landmarks_alone(self) -> dict[str, Configuration]:
        """A configuration that shows all landmarks at once, and one that refines it if its grid is too coarse."""
        facts = self.fingerprint.landmark_statistics
        assert facts is not None
        view, reason = plan_view(
            self.cost, self.budget, self.fingerprint.cases, facts, self.spacing, self.spacing_reason, self.flat_axis
        )
        self.steps = n_steps(self.budget, view.architecture.step_gmacs)
        flat = self.flat_axis
        slices = {} if flat is None else {"space.slice_axis": slice_reason(flat, self.spacing, flat)}
        name, stages = ("3d_fullres", "3d") if flat is None else ("2d", "2d")
        name = f"{stages}_lowres" if view.too_coarse else name
        why = {"space.spacing_mm": reason, **slices}
        coarse = self._configuration(name, view.architecture, view.spacing, view.shape, why, slice_axis=flat)
        patch = f"{coarse.why['patch.patch_size']}; {view.context.reason}"
        patch += f"; {stages}_cascade refines what is found on so coarse a grid" if view.too_coarse else ": one stage is enough"
        made = {name: replace(coarse, why=coarse.why | {"patch.patch_size": patch})}
        if view.too_coarse:
            made[f"{stages}_cascade"] = self._refined(f"{stages}_cascade", name, slices)
        return made

    def _refined(self, name: str, previous: str, slices: dict[str, str]) -> Configuration:
        """A second stage for landmarks, at full resolution."""
        axes = [axis for axis in range(3) if axis != self.flat_axis]
        spacing, shape = (tuple(values[axis] for axis in axes) for values in (self.spacing, self.shape))
        cost = replace(self.cost, io=replace(self.cost.io, n_previous_classes=self.cost.io.n_landmarks))
        fine = plan_architecture(cost, self.budget, spacing, shape, prod(self.shape) * len(self.fingerprint.cases))
        reason = f"what {previous} found comes in as one more channel a landmark: it has seen all of them at once"
        why = {"previous_stage": reason, "space.spacing_mm": self.spacing_reason, **slices}
        return self._configuration(name, fine, spacing, shape, why, previous_stage=previous, slice_axis=self.flat_axis)

    def _volumes(self) -> dict[str, Configuration]:
        n_cases = len(self.fingerprint.cases)
        full = plan_architecture(self.cost, self.budget, self.spacing, self.shape, prod(self.shape) * n_cases)
        self.steps = n_steps(self.budget, full.step_gmacs)
        why = {"space.spacing_mm": self.spacing_reason}
        made = {"3d_fullres": self._configuration("3d_fullres", full, self.spacing, self.shape, why)}
        lowres = plan_lowres(self.cost, self.budget, self.spacing, self.shape, full, n_cases)
        if lowres:
            coarse = {"space.spacing_mm": lowres.reason}
            made["3d_lowres"] = self._configuration("3d_lowres", lowres.architecture, lowres.spacing, lowres.shape, coarse)
            reason = "what 3d_lowres found comes in as one more channel a structure: it has seen where in the body this is"
            cost = replace(self.cost, io=replace(self.cost.io, n_previous_classes=self.cost.io.n_classes - 1))
            fine = plan_architecture(cost, self.budget, self.spacing, self.shape, prod(self.shape) * n_cases)
            made["3d_cascade"] = self._configuration(
                "3d_cascade", fine, self.spacing, self.shape, {"previous_stage": reason, **why}, previous_stage="3d_lowres"
            )
        if not self.cost.io.n_landmarks:  # a slice does not show how far away a landmark is
            made["2d"] = self._slices(coarsest_first(self.spacing)[0])
        return made

    def _slices(self, axis: int) -> Configuration:
        """A network that sees slices across `axis`."""
        spacing, shape = (tuple(v for a, v in enumerate(values) if a != axis) for values in (self.spacing, self.shape))
        chosen = plan_architecture(self.cost, self.budget, spacing, shape, prod(self.shape) * len(self.fingerprint.cases))
        why = {"space.spacing_mm": self.spacing_reason, "space.slice_axis": slice_reason(axis, self.spacing, self.flat_axis)}
        return self._configuration("2d", chosen, spacing, shape, why, slice_axis=axis)

    def _configuration(
        self,
        name: str,
        chosen: Architecture,
        spacing: Sequence[float],
        shape: Sequence[float],
        why: dict[str, str],
        previous_stage: str | None = None,
        slice_axis: int | None = None,
    ) -> Configuration:
        """With what does not depend on resolution and patch; `why` has the reasons for those."""
        self.shapes[name] = tuple(shape)
        seen = self.fingerprint
        ndim = 3 if self.flat_axis is None else 2  # of the cases; slices of volumes are mirrored as volumes are
        labelled = self.cost.io.n_classes > 0
        mirrored, mirror_reason = mirror_axes(seen.labels, seen.cases, ndim, self.budget.device, slice_axis, self.landmarks)
        crop: Literal["nonzero", "none"] = "none" if self.beyond_crop else "nonzero"
        space = SpacePlan("LPS", tuple(spacing), slice_axis, crop, image_order=3, label_order=1)
        landmarks: LandmarkPlan | None = None
        landmark_reasons: dict[str, str] = {}
        if seen.landmark_statistics:
            chosen, landmarks, landmark_reasons = plan_landmarks(chosen, self.budget, seen.landmark_statistics, seen.cases, space)
        covered = prod(chosen.topology.patch_size) / prod(shape)
        training, training_reasons = plan_training(
            mirrored, self.budget, chosen.step_gmacs, covered, slice_axis is not None, labelled
        )
        inference, inference_reasons = plan_inference(mirrored, self.landmarks.one_sided)
        postprocess, postprocess_reasons = plan_postprocess(labelled)
        patch = chosen.topology.patch_size
        whole_spacing = space.in_volume(spacing, self.spacing[slice_axis or 0])  # across slices nothing is resampled
        footprint, footprint_reasons = estimate(seen, chosen, self.budget, whole_spacing)
        if self.flat_axis is None:
            whole_shape = space.in_volume(shape, self.shape[slice_axis or 0])
            places = plan_sampling(seen, space.in_volume(patch, 1), whole_spacing, whole_shape)
        else:
            places = plan_sampling(seen, patch, spacing, shape)
        return Configuration(
            previous_stage=previous_stage,
            space=space,
            patch=PatchPlan(chosen.topology.patch_size, chosen.batch_size, places.fraction, places.sampling),
            network=chosen.network,
            landmarks=landmarks,
            training=training,
            inference=inference,
            postprocess=postprocess,
            footprint=footprint,
            why={
                **why,
                "space.orientation": "canonical axes, so that left and right mean the same in every case",
                "space.crop": self._crop_reason(),
                "space.image_order": "cubic interpolation keeps edges sharp (nnU-Net)",
                "space.label_order": LABEL_ORDER if labelled else UNUSED,
                **architecture_reasons(chosen, self.budget, shape),
                **landmark_reasons,
                "patch.foreground_fraction": places.fraction_reason,
                "patch.sampling": places.sampling_reason,
                "training.mirror_axes": mirror_reason,
                **training_reasons,
                **inference_reasons,
                **postprocess_reasons,
                **footprint_reasons,
            },
        )

    def _crop_reason(self) -> str:
        leaves = f"leaves {100 * self.fingerprint.median_relative_size:.0f} % of the voxels (median)"
        if not self.beyond_crop:
            return leaves
        return f"none: what is not 0 {leaves}, but not all landmarks: in {self.beyond_crop} cases some lie beyond it"
