"""Points as files store them: named, in a coordinate system of the file's choice, not yet placed by a grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, Literal

from autoseg.errors import DataError, nearest
from autoseg.imaging.landmarks import Landmarks, State
from autoseg.system import documents
from autoseg.system.names import check_title

Space = Literal["LPS", "RAS", "voxel"]

# The numbers are those of 3D Slicer; older files have them in place of the names.
_SPACES: dict[str, Space] = {
    "lps": "LPS",
    "1": "LPS",
    "ras": "RAS",
    "0": "RAS",
    "voxel": "voxel",
    "pixel": "voxel",
    "ijk": "voxel",
    "2": "voxel",
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
    """A landmark as a file stores it.

    Args:
        label: its name, as a rule.
        description: another text, which may be the name where labels are numbers; or empty.
        position: (x, y, z), or (x, y) in the plane of a single slice; None unless present. World mm,
            or voxels counted from the centre of the first one, x along columns.
        space: coordinate system; None where the file states none.
    """

    label: str
    description: str
    position: tuple[float, ...] | None
    state: State
    space: Space | None
    confidence: float | None = None


@dataclass(frozen=True)
class PointFile:
    """The points of a file.

    Args:
        cases: points by case name; under '' those of a file that names no case.
        remarks: what was assumed of the file, or left out of it, in words that are the same for all files of a kind.
    """

    cases: Mapping[str, tuple[Point, ...]] = field(hash=False)
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class LandmarkFormat:
    """Functions that read and write files of landmarks with an ending; `io.landmark_files` lists all formats.

    Args:
        ending: of file names, in lower case.
        read: all points of a file, which exists.
        text: of a file with the landmarks of one case, for the case's name and whether LPS mm are pixels.
    """

    ending: str
    read: Callable[[Path], PointFile]
    text: Callable[[Landmarks, str, bool], str]


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
    """Build a point from a file's cells and check it.

    Args:
        position: numbers, or text that should be numbers; None or only empty text for no position.
        state: a word of the file; by default a landmark is present if it has a position and absent if not.
        scale: mm per unit of `position`.

    Raises:
        DataError: no name; an invalid state, coordinate or confidence; present without a position.
    """
    label, description = label.strip(), description.strip()
    if not label and not description:
        raise DataError("a landmark has no name", file=path, found=f"position {position}", fix="give each point a label")
    name = label or description
    check_title(name, "a landmark", DataError, path)
    coordinates = _parse_position(path, name, position)
    parsed_state = _parse_state(path, name, state) if state else (State.ABSENT if coordinates is None else State.PRESENT)
    if parsed_state == State.PRESENT and coordinates is None:
        raise DataError(f"landmark '{name}' is present but has no position", file=path, fix="give x, y, z, or the state 'absent'")
    if parsed_state != State.PRESENT or coordinates is None:
        position_mm = None
    else:
        position_mm = tuple(scale * v for v in coordinates)
    return Point(label, description, position_mm, parsed_state, space, _parse_confidence(path, name, confidence))


def parse_space(path: Path, word: str) -> Space:
    """Turn a file's word for a coordinate system into the system.

    Raises:
        DataError: not a coordinate system.
    """
    space = _SPACES.get(word.strip().lower())
    if space is None:
        raise DataError("unknown coordinate system", file=path, found=f"'{word}'", allowed="LPS, RAS, voxel, 1 (LPS), 0 (RAS)")
    return space


def read_text(path: Path) -> str:
    """Read the text of a file that must not be empty.

    Raises:
        DataError: no such file, not UTF-8, or empty.
    """
    text = documents.read_text(path, what="the file of landmarks", fix="save the file as UTF-8")
    if not text.strip():
        raise DataError("the file is empty", file=path, fix="delete it, or save the landmarks again")
    return text


def read_json_object(path: Path) -> dict[str, Any]:
    """Read the object of a JSON file.

    Raises:
        DataError: no such file, not one JSON object, or a duplicate key.
    """
    whole = documents.parse_json(read_text(path), path, what="the file of landmarks", fix="save the landmarks again")
    if not isinstance(whole, dict):
        raise DataError("a file of landmarks must hold one object", file=path, found=f"a {type(whole).__name__}", allowed="{...}")
    return whole


def text_of(path: Path, key: str, value: Any) -> str:
    """The text of a key of a JSON file; empty where it is missing or null. A number will do.

    Raises:
        DataError: a list, an object or a truth value.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float, NoneType)):
        raise DataError(f"'{key}' must be a text", file=path, found=documents.shown(value))
    return "" if value is None else str(value)


def coordinates(landmarks: Landmarks, i: int) -> list[float] | None:
    """Coordinates (x, y, z) of landmark `i` in LPS mm, whole numbers as int; None unless it is present."""
    if not landmarks.present[i]:
        return None
    return [int(v) if v.is_integer() and abs(v) < 2**53 else v for v in map(float, landmarks.points_mm[i])]


def confidence_of(landmarks: Landmarks, i: int) -> float | None:
    """Confidence of landmark `i`; None if it has none."""
    value = math.nan if landmarks.confidence is None else float(landmarks.confidence[i])
    return None if math.isnan(value) else value


def state_name(state: int) -> str:
    """Name of a state: 'present', 'absent' or 'unlabelled'."""
    return State(state).name.lower()


def _parse_position(path: Path, name: str, raw: Sequence[Any] | None) -> tuple[float, ...] | None:
    parts = list(raw or ())
    while parts and parts[-1] in ("", None):  # z of a 2D point; all three of a landmark without a position
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
        value = math.nan if isinstance(raw, bool) or "_" in str(raw) else float(raw)  # 1_000 is a number to Python alone
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not fits(value):
        raise DataError(
            f"{what} is not a usable number",
            file=path,
            found=f"{raw!r}",
            allowed=allowed,
            fix="write a decimal point, not a comma; leave an unknown value empty",
        )
    return value


def _parse_state(path: Path, name: str, raw: str) -> State:
    state = _STATES.get(raw.strip().lower())
    if state is None:
        hint = nearest(raw.strip().lower(), _STATES)
        raise DataError(f"landmark '{name}' has an unknown state{hint}", file=path, found=f"'{raw}'", allowed=", ".join(_STATES))
    return state
