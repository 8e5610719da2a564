"""Paired transforms: draw parameters from a generator first, then apply them deterministically."""

from autoseg.training.augment.intensity import Intensity, apply_intensity, draw_intensity
from autoseg.training.augment.on_device import apply_intensity_on, apply_spatial_on, host_tensor, sampling_grid
from autoseg.training.augment.previous_stage import apply_corruptions, draw_corruptions
from autoseg.training.augment.registered import apply_registered
from autoseg.training.augment.spatial import Spatial, apply_spatial, apply_to_points, draw_spatial, source_box

__all__ = [
    "Intensity",
    "Spatial",
    "apply_corruptions",
    "apply_intensity",
    "apply_intensity_on",
    "apply_registered",
    "apply_spatial",
    "apply_spatial_on",
    "apply_to_points",
    "draw_corruptions",
    "draw_intensity",
    "draw_spatial",
    "host_tensor",
    "sampling_grid",
    "source_box",
]
