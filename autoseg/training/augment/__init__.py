"""Paired transforms: draw parameters from a generator first, then apply them deterministically."""

from autoseg.training.augment.intensity import Intensity, apply_intensity, draw_intensity
from autoseg.training.augment.on_device import apply_intensity_on, apply_spatial_on, sampled_at, to_send
from autoseg.training.augment.previous_stage import apply_previous, draw_previous
from autoseg.training.augment.spatial import Spatial, apply_spatial, apply_to_points, draw_spatial, source_box

__all__ = [
    "Intensity",
    "Spatial",
    "apply_intensity",
    "apply_intensity_on",
    "apply_previous",
    "apply_spatial",
    "apply_spatial_on",
    "apply_to_points",
    "draw_intensity",
    "draw_previous",
    "draw_spatial",
    "sampled_at",
    "source_box",
    "to_send",
]
