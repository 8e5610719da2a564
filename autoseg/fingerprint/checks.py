"""Checks of measurements that were read from a file, which an edit by hand or a damaged disk may have changed."""

from __future__ import annotations

from autoseg.fingerprint.case import CaseFingerprint
from autoseg.imaging.landmarks import State

SPACING = (1e-9, 1e9)  # mm: no image has another one
FARTHEST = 1e12  # mm
MOST_VOXELS = 2**31  # along an axis


def case_fault(case: CaseFingerprint, n_channels: int, n_structures: int, n_landmarks: int) -> str | None:
    """The key of a case's measurements that cannot be, with its value; None where all can."""
    optional = {"voxels": n_structures, "lateral_positions": n_structures, "intensities": n_channels, "tails": n_channels}
    faults = {
        "spacing": not all(SPACING[0] <= s <= SPACING[1] for s in case.spacing),
        "shape": not all(1 <= n <= MOST_VOXELS for n in case.shape),
        "shape_after_crop": any(not 1 <= cropped <= whole for cropped, whole in zip(case.shape_after_crop, case.shape)),
        **{key: len(getattr(case, key)) not in (0, n) for key, n in optional.items()},
        "voxels of a structure": any(n < 0 for n in case.voxels),
        "n_outside_crop": case.n_outside_crop < 0,
        "states": len(case.states) != n_landmarks or not set(case.states) <= set(State),
        "points of a landmark": any(abs(x) > FARTHEST for p in case.points if p for x in p),
        "points": [p is not None for p in case.points] != [s == State.PRESENT for s in case.states],
    }
    return next((f"{key}: {getattr(case, key.split()[0])}" for key, is_fault in faults.items() if is_fault), None)
