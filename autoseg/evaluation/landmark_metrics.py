"""Scores of predicted landmarks against their references: distances and mix-ups. Pure functions.

Scores of a landmark of a case:

| state      | reference  | prediction | error    | found within r | presence       |
| ---------- | ---------- | ---------- | -------- | -------------- | -------------- |
| both       | present    | yes        | measured | error <= r     | true positive  |
| missed     | present    | no         | None     | no             | false negative |
| extra      | absent     | yes        | None     | does not count | false positive |
| absent     | absent     | no         | None     | does not count | true negative  |
| unlabelled | not known  | either     | None     | does not count | does not count |

A missed landmark has no error, which would be invented, but it lowers every rate: a network does not
gain by predicting nothing. Errors are in mm, or in pixels where the image has no spacing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoseg.errors import LabelError
from autoseg.imaging.geometry import Grid
from autoseg.imaging.landmarks import Landmarks, State

STATES = ("both", "missed", "extra", "absent", "unlabelled")
ROUNDING = 1 + 1e-9  # tolerance, so that rounding decides no comparison


@dataclass(frozen=True)
class PointScore:
    """One landmark of one case. `state` is one of `STATES`.

    Args:
        error: distance from reference to prediction, in the report's unit; None unless there are both.
        error_voxels: that distance in voxels of the image.
        nearest: the landmark whose reference is nearest to the prediction, in a tie the landmark itself; None unless both.
        neighbour: distance from the reference to the nearest other reference of the case; None without.
    """

    landmark: str
    state: str
    error: float | None
    error_voxels: float | None
    nearest: str | None
    neighbour: float | None


@dataclass(frozen=True)
class CasePointScores:
    """One case: a score for each landmark, in order."""

    case: str
    points: tuple[PointScore, ...]


def score_points(reference: Landmarks, prediction: Landmarks, grid: Grid) -> tuple[PointScore, ...]:
    """Score every landmark of a case, in order.

    Args:
        prediction: landmarks that are not present in it were not predicted.
        grid: of the image.

    Raises:
        LabelError: the two do not have the same landmarks in the same order.
    """
    if reference.names != prediction.names:
        raise LabelError(
            "prediction and reference have different landmarks",
            found=", ".join(prediction.names),
            allowed=", ".join(reference.names),
            fix="predict with a model of this dataset, or put the landmarks in its order",
        )
    present = np.flatnonzero(reference.present)
    true, predicted = reference.points_mm, prediction.points_mm
    errors = np.linalg.norm(predicted - true, axis=1)
    errors_voxels = np.linalg.norm(grid.world_to_index(predicted) - grid.world_to_index(true), axis=1)
    to_references = np.linalg.norm(predicted[:, None] - true[None, present], axis=-1)
    between_references = np.linalg.norm(true[:, None] - true[None, present], axis=-1)
    between_references[present, np.arange(len(present))] = np.inf
    scores = []
    for i, name in enumerate(reference.names):
        state = _state(State(int(reference.state[i])), bool(prediction.present[i]))
        neighbour = float(between_references[i].min()) if state in ("both", "missed") and len(present) > 1 else None
        if state != "both":
            scores.append(PointScore(name, state, None, None, None, neighbour))
            continue
        closest = int(to_references[i].argmin())
        is_nearest = errors[i] <= to_references[i, closest] * ROUNDING
        nearest = name if is_nearest else reference.names[present[closest]]
        scores.append(PointScore(name, state, float(errors[i]), float(errors_voxels[i]), nearest, neighbour))
    return tuple(scores)


def _state(reference: State, predicted: bool) -> str:
    if reference == State.UNLABELLED:
        return "unlabelled"
    if reference == State.PRESENT:
        return "both" if predicted else "missed"
    return "extra" if predicted else "absent"
