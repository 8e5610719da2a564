"""The axes that are mirrored: in canonical orientation left and right, up and down are known."""

from __future__ import annotations

from collections.abc import Sequence

from autoseg.fingerprint.case import CaseFingerprint
from autoseg.fingerprint.laterality import check_laterality
from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import NO_LANDMARKS, LandmarkSet
from autoseg.imaging.mirror_partners import LEFT_RIGHT_AXIS
from autoseg.planner.spacing import AXES
from autoseg.planner.wording import percent

UPRIGHT = "landmarks know top from bottom and front from back"
MIXED_ABOVE = 0.1  # share of the cases that lie the other way round; a header or two may be wrong in any dataset


def mirror_axes(
    labels: LabelSet,
    cases: Sequence[CaseFingerprint],
    *,
    ndim: int,
    device: str,
    slice_axis: int | None = None,
    landmarks: LandmarkSet = NO_LANDMARKS,
) -> tuple[tuple[int, ...], str]:
    """Chooses the axes of the (z, y, x) array that are mirrored, with the reason.

    Args:
        ndim: of the cases.
        slice_axis: the axis through the slices of a 2D network, along which there is nothing to mirror.

    In 3D on a CPU none: training there sees each case some dozen times, not thousands of times, and has no use for twice the
    cases; mirroring would also double the time of each prediction.

    x (left and right): bodies are nearly symmetric, and structures with a side in their name swap with their partner. Not so
    where one of the two is never seen, as if the other name stood for both sides, nor where the cases do not agree which side
    is which: a mirror would make up what is not there.
    y: only in 2D images across z, which may be of anything, and only if no structure is named after a place like 'upper'.
    z: never.

    With landmarks y, too, is never mirrored, and x only if landmarks swap with partners on the other side. Landmarks alone are
    then mirrored on a CPU as well, since their datasets are small.
    """
    if landmarks.names and not labels.names:
        return _landmark_axes(landmarks, slice_axis)
    if device == "cpu" and ndim == 3:
        return (
            (),
            "3D cases are not mirrored on a CPU: time is short there, both for learning a second side and for predicting twice",
        )
    if landmarks.names and not landmarks.pairs:
        return _landmark_axes(landmarks, slice_axis)
    axes, reasons = [], []
    x_mirrored, x_reason = _mirrors_x(labels, cases, slice_axis)
    if x_mirrored:
        axes.append(LEFT_RIGHT_AXIS)
    reasons.append(x_reason)
    placed = [name for name in (labels.names_direction(0), labels.names_direction(1)) if name]
    others = [axis for axis in (1, 0) if axis != slice_axis and (ndim == 3 or slice_axis or axis == 1)]
    if ndim == 2 and not slice_axis and not placed and not landmarks.names:
        axes.insert(0, 1)
        reasons.append("y is mirrored: no structure of these 2D images is named after a place from top to bottom")
    else:
        causes = [f"'{name}' is named after its place" for name in dict.fromkeys(placed)]
        if landmarks.names:
            causes.append(UPRIGHT)
        if ndim == 3 or slice_axis:
            causes.insert(0, "in canonical orientation a body is never upside down or back to front")
        are = "are" if len(others) > 1 else "is"
        reasons.append(f"{' and '.join(AXES[a] for a in others)} {are} not mirrored: " + ", ".join(causes))
    return tuple(axes), "; ".join(reasons)


def _landmark_axes(landmarks: LandmarkSet, slice_axis: int | None) -> tuple[tuple[int, ...], str]:
    """The axes that landmarks allow: x, if some of them swap with partners."""
    if slice_axis == LEFT_RIGHT_AXIS:
        return (), f"x is not mirrored: it runs through the slices; others are not: {UPRIGHT}"
    if not landmarks.pairs:
        return (), f"no axis is mirrored: no landmark is known to have a partner on the other side, and {UPRIGHT}"
    first, second = landmarks.pairs[0]
    n = len(landmarks.pairs)
    several = f"{n} pairs such as " if n > 1 else ""
    return (LEFT_RIGHT_AXIS,), (
        f"x is mirrored, {several}'{first}' and '{second}' swap names: so few cases become twice as many; other axes are not: "
        f"{UPRIGHT}"
    )


def _mirrors_x(labels: LabelSet, cases: Sequence[CaseFingerprint], slice_axis: int | None) -> tuple[bool, str]:
    """Decides whether left and right may be exchanged, with the reason."""
    if slice_axis == LEFT_RIGHT_AXIS:
        return False, "x is not mirrored: it runs through the slices"
    if labels.unpaired_sides:
        return False, f"x is not mirrored: the other side of '{labels.unpaired_sides[0]}' is no structure of its own"
    if not labels.side_pairs:
        return True, "x is mirrored: no structure has a side in its name (nnU-Net mirrors too)"
    for pair in labels.side_pairs:
        occurs = [any(case.voxels[index - 1] for case in cases if case.voxels) for index in pair]
        if occurs[0] != occurs[1]:
            present, absent = (labels.names[index - 1] for index in (pair if occurs[0] else pair[::-1]))
            return False, f"x is not mirrored: '{absent}', the other side of '{present}', occurs in no case"
    sides = check_laterality(labels, cases)
    if sides.n_mirrored > MIXED_ABOVE * sides.n_cases:
        return False, (
            f"x is not mirrored: in {sides.n_mirrored} of {sides.n_cases} cases left and right lie the other way round than in "
            f"the rest, more than {percent(MIXED_ABOVE)}, so that sides cannot be told apart"
        )
    left, right = (labels.names[index - 1] for index in labels.side_pairs[0])
    several = f"{sides.n_pairs} pairs such as " if sides.n_pairs > 1 else ""
    swap = f"{several}'{left}' and '{right}' swap names"
    if sides.n_cases:
        n_alike = sides.n_cases - sides.n_mirrored
        swap += f", and lie alike in {n_alike} of the {sides.n_cases} cases that show both sides"
    return True, f"x is mirrored, {swap}: left and right look alike"
