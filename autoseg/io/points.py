"""Points as files have them: named, in a coordinate system of the file's choice, before a grid says where they are."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from autoseg.errors import DataError, first_few, nearest
from autoseg.imaging.landmarks import Landmarks, State

Space = Literal["LPS", "RAS", "voxel"]

# The numbers are those of 3D Slicer, which older files have in place of the names.
_SPACES: dict[str, Space] = {
    "lps": "LPS",
    "1": "LPS",
    "ras": "RAS",
    "0": "RAS",
    "voxel": "voxel",
    "pixel": "voxel",
    "ijk": "voxel",
}

# Our own words and those of 3D Slicer ('positionStatus').
_STATES = {
    "present": State.PRESENT,
    "defined": State.PRESENT,
    "absent": State.ABSENT,
    "missing": State.ABSENT,
    "unlabelled": State.UNLABELLED,
    "unlabeled": State.UNLABELLED,
    "undefined": State.UNLABELLED,
    "preview": State.UNLABELLED,
}


@dataclass(frozen=True)
class Point:
    """A landmark as it stands in a file.

    Args:
        label: what it is called.
        description: another text, which may be the name where labels are numbers; or empty.
        position: (x, y, z), or (x, y) in the plane of a single slice; None unless present. World mm, or voxels counted from
            the centre of the first one, x along columns.
        space: coordinate system; None where the file says none.
    """

    label: str
    description: str
    position: tuple[float, ...] | None
    state: State
    space: Space | None
    confidence: float | None = None


@dataclass(frozen=True)
class PointFile:
    """What a file holds.

    Args:
        cases: points by case name; under '' those of a file that names no case.
        remark: what had to be assumed about the file, or empty.
    """

    cases: Mapping[str, tuple[Point, ...]] = field(hash=False)
    remark: str = ""


def make_point(
    path: Path,
    label: str,
    position: Sequence[Any] | None,
    *,
    state: str = "",
    space: Space | None = None,
    description: str = "",
    confidence: Any = None,
    scale: float = 1.0,
) -> Point:
    """A point, checked.

    Args:
        position: numbers, or text that should be numbers; None or nothing but empty text for none.
        state: a word for it; by default a landmark is present if it has a position and absent if not.
        scale: mm in a unit of `position`.

    Raises:
        DataError: no name; a state, coordinate or confidence that is none; present without a position.
    """
    label, description = label.strip(), description.strip()
    if not label and not description:
        raise DataError("a landmark has no name", file=path, found=f"position {position}", fix="give each point a label")
    name = label or description
    where = _parse_position(path, name, position)
    known = _parse_state(path, name, state) if state else (State.ABSENT if where is None else State.PRESENT)
    if known == State.PRESENT and where is None:
        raise DataError(
            f"landmark '{name}' is present, but has no position", file=path, fix="give x, y, z, or the state 'absent'"
        )
    if known != State.PRESENT or where is None:
        return Point(label, description, None, known, space, _parse_confidence(path, name, confidence))
    return Point(label, description, tuple(scale * v for v in where), known, space, _parse_confidence(path, name, confidence))


def parse_space(path: Path, word: str) -> Space:
    """The coordinate system of a word in a file.

    Raises:
        DataError: not a coordinate system.
    """
    space = _SPACES.get(word.strip().lower())
    if space is None:
        raise DataError("unknown coordinate system", file=path, found=f"'{word}'", allowed="LPS, RAS, voxel, 1 (LPS), 0 (RAS)")
    return space


def read_text(path: Path) -> str:
    """The text of a file, which holds some.

    Raises:
        DataError: no such file, not UTF-8, or empty.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError("the landmarks cannot be read", file=path, found=error.strerror) from error
    except UnicodeDecodeError as error:
        raise DataError("the landmarks are not UTF-8 text", file=path, found=str(error), fix="save the file as UTF-8") from error
    if not text.strip():
        raise DataError("the file is empty", file=path, fix="delete it, or save the landmarks again")
    return text


def read_json_object(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        DataError: no such file, not one JSON object, or a key that stands there twice.
    """

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = sorted({key for key, _ in pairs if [k for k, _ in pairs].count(key) > 1})
            raise DataError(
                "a key stands there twice", file=path, found=first_few(twice), fix="give each landmark a name of its own"
            )
        return found

    try:
        whole = json.loads(read_text(path), object_pairs_hook=distinct)
    except json.JSONDecodeError as error:
        raise DataError("not valid JSON", file=path, found=str(error), fix="save the landmarks again") from error
    if not isinstance(whole, dict):
        raise DataError("a file of landmarks must hold one object", file=path, found=f"a {type(whole).__name__}", allowed="{...}")
    return whole


def coordinates(landmarks: Landmarks, i: int) -> list[float] | None:
    """(x, y, z) of landmark `i`, LPS mm, whole numbers as such; None if it is not present."""
    if not landmarks.present[i]:
        return None
    return [int(v) if v.is_integer() and abs(v) < 2**53 else v for v in map(float, landmarks.points_mm[i])]


def confidence_of(landmarks: Landmarks, i: int) -> float | None:
    """The confidence of landmark `i`, if it has one."""
    value = math.nan if landmarks.confidence is None else float(landmarks.confidence[i])
    return None if math.isnan(value) else value


def state_name(state: int) -> str:
    """'present', 'absent' or 'unlabelled'."""
    return State(state).name.lower()


def _parse_position(path: Path, name: str, raw: Sequence[Any] | None) -> tuple[float, ...] | None:
    parts = list(raw or ())
    while parts and parts[-1] in ("", None):  # z of a 2D point; all three of one without a position
        parts.pop()
    if not parts:
        return None
    if len(parts) not in (2, 3):
        raise DataError(
            f"landmark '{name}' has {len(parts)} coordinates", file=path, found=f"{raw}", allowed="x, y, z, or x, y in 2D"
        )
    return tuple(_parse_number(path, f"a coordinate of landmark '{name}'", part, math.isfinite) for part in parts)


def _parse_confidence(path: Path, name: str, raw: Any) -> float | None:
    if raw in ("", None):
        return None
    return _parse_number(path, f"the confidence of landmark '{name}'", raw, lambda v: 0 <= v <= 1, "a number from 0 to 1")


def _parse_number(path: Path, what: str, raw: Any, fits: Callable[[float], bool], allowed: str = "a finite number") -> float:
    try:
        value = math.nan if isinstance(raw, bool) else float(raw)
    except (TypeError, ValueError):
        value = math.nan
    if not fits(value):
        raise DataError(
            f"{what} is no number that can be used",
            file=path,
            found=f"{raw!r}",
            allowed=allowed,
            fix="write a decimal point, not a comma; where there is nothing to say, leave it empty",
        )
    return value


def _parse_state(path: Path, name: str, raw: str) -> State:
    state = _STATES.get(raw.strip().lower())
    if state is None:
        hint = nearest(raw.strip().lower(), _STATES)
        raise DataError(f"landmark '{name}' has an unknown state{hint}", file=path, found=f"'{raw}'", allowed=", ".join(_STATES))
    return state
