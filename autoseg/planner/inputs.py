"""The quantities that every configuration of a dataset starts from: cases, budget, full resolution, inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import cast

from autoseg.fingerprint.dataset import Fingerprint
from autoseg.fingerprint.landmark_symmetry import AsymmetricPair, check_symmetry
from autoseg.footprint import NetworkIO
from autoseg.imaging.landmarks import LandmarkSet
from autoseg.plan import DeviceKind
from autoseg.planner.budget import Budget
from autoseg.planner.cost import WIDE, NetworkCost
from autoseg.planner.family import FAMILIES
from autoseg.planner.slices import flat_axis
from autoseg.planner.spacing import median_shape, target_spacing


@dataclass(frozen=True)
class TargetGrid:
    """The grid of a configuration, along the axes of its patch.

    Args:
        spacing: mm.
        shape: voxels of the median case.
        slice_axis: the axis that runs through the slices of a 2D configuration; None in 3D.
    """

    spacing: tuple[float, ...]
    shape: tuple[float, ...]
    slice_axis: int | None = None


@dataclass(frozen=True)
class PlanInputs:
    """The quantities that every configuration of a dataset starts from.

    Args:
        fingerprint: with the cases that are planned for, uncropped where landmarks lie outside the crop.
        spacing, shape: full resolution, (z, y, x): mm, and voxels of the median case.
        flat_axis: the axis along which the median case is a single slice; None for volumes.
        cost: of a wide network without a previous stage.
        landmarks: with those pairs only that are mirror images of each other.
        n_outside_crop: cases with landmarks outside the crop.
    """

    fingerprint: Fingerprint
    budget: Budget
    spacing: tuple[float, float, float]
    spacing_reason: str
    shape: tuple[float, ...]
    flat_axis: int | None
    cost: NetworkCost
    landmarks: LandmarkSet
    asymmetric_pairs: Sequence[AsymmetricPair]
    n_outside_crop: int

    @property
    def has_labels(self) -> bool:
        """True for a dataset with label maps."""
        return self.cost.io.n_classes > 0

    @property
    def n_cases(self) -> int:
        return len(self.fingerprint.cases)

    @property
    def dataset_voxels(self) -> float:
        """Voxels of all cases at full resolution."""
        return prod(self.shape) * self.n_cases

    def full_grid(self, slice_axis: int | None = None) -> TargetGrid:
        """Full resolution, for volumes or for slices across an axis."""
        axes = [axis for axis in range(3) if axis != slice_axis]
        return TargetGrid(tuple(self.spacing[a] for a in axes), tuple(self.shape[a] for a in axes), slice_axis)

    def cost_after_stage(self, n_previous_classes: int) -> NetworkCost:
        """The cost of networks that see what a previous stage found of so many structures or landmarks."""
        return replace(self.cost, io=replace(self.cost.io, n_previous_classes=n_previous_classes))


def plan_inputs(fingerprint: Fingerprint, budget: Budget) -> PlanInputs:
    """Measures what every configuration starts from.

    Raises:
        DataError: there is no case, or the spacing or shape of one is not positive.
    """
    n_outside_crop = sum(case.n_outside_crop > 0 for case in fingerprint.cases)
    if n_outside_crop:
        uncropped = tuple(replace(case, shape_after_crop=case.shape) for case in fingerprint.cases)
        fingerprint = replace(fingerprint, cases=uncropped)
    spacing, spacing_reason = target_spacing(fingerprint.cases)
    shape = median_shape(fingerprint.cases, spacing)
    io = NetworkIO(
        n_channels=len(fingerprint.channels),
        n_classes=fingerprint.labels.n_classes if fingerprint.labels.names else 0,
        n_landmarks=len(fingerprint.landmarks),
    )
    device = cast(DeviceKind, budget.device)
    landmarks, asymmetric_pairs = check_symmetry(fingerprint.landmarks, [case.landmarks for case in fingerprint.cases])
    return PlanInputs(
        fingerprint=fingerprint,
        budget=budget,
        spacing=spacing,
        spacing_reason=spacing_reason,
        shape=shape,
        flat_axis=flat_axis(shape, spacing),
        cost=NetworkCost(io, WIDE, FAMILIES[budget.family], device, budget.number_type),
        landmarks=landmarks,
        asymmetric_pairs=asymmetric_pairs,
        n_outside_crop=n_outside_crop,
    )
