"""Checks of measurements that were read from a file, which an edit by hand or a damaged disk may have changed."""

from __future__ import annotations

from autoseg.fingerprint.case import CaseFingerprint
from autoseg.imaging.landmarks import State


def case_fault(case: CaseFingerprint, n_channels: int, n_structures: int, n_landmarks: int) -> str | None:
    """The key of a case's measurements that cannot be, with its value; None where all can."""
    optional = {"voxels": n_structures, "lateral_positions": n_structures, "intensities": n_channels, "tails": n_channels}
    faults = {
        "spacing": min(case.spacing) <= 0,
        "shape": min(case.shape) < 1,
        "shape_after_crop": any(not 1 <= cropped <= whole for cropped, whole in zip(case.shape_after_crop, case.shape)),
        **{key: len(getattr(case, key)) not in (0, n) for key, n in optional.items()},
        "states": len(case.states) != n_landmarks or not set(case.states) <= set(State),
        "points": [p is not None for p in case.points] != [s == State.PRESENT for s in case.states],
    }
    return next((f"{key}: {getattr(case, key)}" for key, is_fault in faults.items() if is_fault), None)
