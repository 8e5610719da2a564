"""What nnU-Net writes as dataset_fingerprint.json for two channels and two cases."""

from __future__ import annotations

from typing import Any

from autoseg.planner.nnunet import STATISTICS

FOUND: dict[str, Any] = {
    "foreground_intensity_properties_per_channel": {
        "0": dict(zip(STATISTICS, (99.5, 37.0, 101.0, -983.0, 5420.0, -15.0, 197.0))),
        "1": dict(zip(STATISTICS, (2, 1, 2, 0, 30, 0, 12))),
    },
    "median_relative_size_after_cropping": 0.9,
    "shapes_after_crop": [[75, 512, 512], [123, 500, 512]],
    "spacings": [[5.0, 0.7, 0.7], [1, 0.8, 0.8]],
}
