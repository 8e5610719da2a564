"""How far predicted landmarks are from their references, and whether they are the right ones. Pure functions.

What counts for a landmark of a case:

| state      | reference  | prediction | error    | found within r | presence       |
| ---------- | ---------- | ---------- | -------- | -------------- | -------------- |
| both       | present    | yes        | measured | error <= r     | true positive  |
| missed     | present    | no         | None     | no             | false negative |
| extra      | absent     | yes        | None     | does not count | false positive |
| absent     | absent     | no         | None     | does not count | true negative  |
| unlabelled | not known  | either     | None     | does not count | does not count |

A missed landmark has no error, which would be made up, but it lowers every rate: a network does not gain by saying nothing.
Errors are in mm, or in pixels where the image has no spacing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoseg.errors import LabelError
from autoseg.imaging.geometry import Grid
from autoseg.imaging.landmarks import Landmarks, State

STATES = ("both", "missed", "extra", "absent", "unlabelled")
ROUNDING = 1 + 1e-9  # which must not decide what is nearer, or within a radius


@dataclass(frozen=True)
class PointScore:
    """One landmark of one case. `state` is one of `STATES`.

    Args:
        error: distance from reference to prediction, in the report's unit; None unless there are both.
        error_voxels: the same in voxels of the image.
        nearest: the landmark whose reference is nearest to the prediction, in a tie the landmark itself; None unless both.
        neighbour: distance from the reference to the nearest other one of the case; None without.
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
    """Scores every landmark of a case, in order.

    Args:
        prediction: what is not present in it was not predicted.
        grid: of the image.

    Raises:
        LabelError: the two do not have the same landmarks in the same order.
    """
    if reference.names != prediction.names:
        raise LabelError(
            "prediction and reference have other landmarks",
            found=", ".join(prediction.names),
            allowed=", ".join(reference.names),
            fix="predict with a model of this dataset, or put the landmarks in its order",
        )
    known = np.flatnonzero(reference.present)
    there, said = reference.points_mm, prediction.points_mm
    errors = np.linalg.norm(said - there, axis=1)
    voxels = np.linalg.norm(grid.world_to_index(said) - grid.world_to_index(there), axis=1)
    to_references = np.linalg.norm(said[:, None] - there[None, known], axis=-1)
    apart = np.linalg.norm(there[:, None] - there[None, known], axis=-1)
    apart[known, np.arange(len(known))] = np.inf
    scores = []
    for i, name in enumerate(reference.names):
        state = _state(State(int(reference.state[i])), bool(prediction.present[i]))
        neighbour = float(apart[i].min()) if state in ("both", "missed") and len(known) > 1 else None
        if state != "both":
            scores.append(PointScore(name, state, None, None, None, neighbour))
            continue
        closest = int(to_references[i].argmin())
        own = errors[i] <= to_references[i, closest] * ROUNDING
        nearest = name if own else reference.names[known[closest]]
        scores.append(PointScore(name, state, float(errors[i]), float(voxels[i]), nearest, neighbour))
    return tuple(scores)


def _state(reference: State, predicted: bool) -> str:
    if reference == State.UNLABELLED:
        return "unlabelled"
    if reference == State.PRESENT:
        return "both" if predicted else "missed"
    return "extra" if predicted else "absent"
