"""Limits that training and prediction keep to, and that estimates of memory and disk rely on.

They stand here since the rooms that keep to them load torch, and planning does not.
"""

from __future__ import annotations

LARGEST_SINGLE_WINDOW = 1.75
"""Voxels of a case over those of a window up to which one window takes in the whole case: less than the two windows that half
an overlap would need along one axis."""

MAP_ELEMENTS_AT_ONCE = 2**22  # elements of landmark maps that heatmaps and their loss compute with at a time, as float32

FOREGROUND_MINIMUM = 10_000  # voxels kept per structure, or 1 % of them if that is more: nnU-Net's rule and seed

BATCHES_AHEAD = 3  # training batches that wait for their step
