"""Our own JSON of a case's landmarks:

    {"space": "LPS", "unit": "mm", "case": "a", "landmarks": {"nose": {"position": [1, 2, 3], "state": "present"}}}

The position is null where there is none; state and confidence may be left out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from autoseg.errors import DataError, nearest
from autoseg.imaging.landmarks import Landmarks
from autoseg.io.markups import read_markups
from autoseg.io.points import (
    LandmarkFormat,
    Point,
    PointFile,
    confidence_of,
    coordinates,
    make_point,
    parse_space,
    read_json_object,
    state_name,
    text_of,
)

_UNITS = {"LPS": "mm", "RAS": "mm", "voxel": "px"}
_KEYS = ("position", "state", "confidence")


def read_point_json(path: Path) -> PointFile:
    """Read the points of the file's case.

    Raises:
        DataError: not such a file, no point, a unit that does not fit the space, or an invalid point.
    """
    whole = read_json_object(path)
    entries = whole.get("landmarks")
    if not isinstance(entries, dict) or "space" not in whole:
        raise DataError(
            "the file does not state landmarks and their coordinate system",
            file=path,
            found=f"keys {', '.join(whole)}",
            allowed='{"space": "LPS", "unit": "mm", "landmarks": {name: {"position": [x, y, z]}}}, or a markup file of 3D Slicer',
        )
    space = parse_space(path, str(whole["space"]))
    unit = whole.get("unit", _UNITS[space])
    if unit != _UNITS[space]:
        raise DataError("the unit does not fit the space", file=path, found=f"'{unit}' in {space}", allowed=_UNITS[space])
    points: list[Point] = []
    for name, entry in entries.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("position"), (list, type(None))):
            raise DataError(
                f"landmark '{name}' must be an object with a position",
                file=path,
                found=json.dumps(entry)[:80],
                allowed=", ".join(_KEYS),
            )
        unknown = next((key for key in entry if key not in _KEYS), None)
        if unknown is not None:
            raise DataError(
                f"landmark '{name}' has an unknown key '{unknown}'{nearest(unknown, _KEYS)}", file=path, allowed=", ".join(_KEYS)
            )
        state, confidence = text_of(path, "state", entry.get("state")), entry.get("confidence")
        points.append(make_point(path, name, entry.get("position"), state=state, space=space, confidence=confidence))
    if not points:
        raise DataError("the file holds no landmark", file=path, fix="delete it if the case is not annotated")
    return PointFile({text_of(path, "case", whole.get("case")): tuple(points)})


def point_json_text(landmarks: Landmarks, case: str, pixels: bool) -> str:
    """JSON of a case's landmarks in LPS mm, or in pixels of a natural image."""
    entries: dict[str, Any] = {}
    for i, name in enumerate(landmarks.names):
        entries[name] = {"position": coordinates(landmarks, i), "state": state_name(landmarks.state[i])}
        if (confidence := confidence_of(landmarks, i)) is not None:
            entries[name]["confidence"] = confidence
    space, unit = ("pixel", "px") if pixels else ("LPS", "mm")
    lines = ",\n".join(
        f"    {json.dumps(n, ensure_ascii=False)}: {json.dumps(e, ensure_ascii=False)}" for n, e in entries.items()
    )
    head = f'  "space": "{space}",\n  "unit": "{unit}",\n  "case": {json.dumps(case, ensure_ascii=False)},\n'
    return f'{{\n{head}  "landmarks": {{\n{lines}\n  }}\n}}\n'


def _read_json(path: Path) -> PointFile:
    """Read our own JSON, or a markup file of 3D Slicer under that ending."""
    return read_markups(path) if "markups" in read_json_object(path) else read_point_json(path)


FORMAT = LandmarkFormat(".json", _read_json, point_json_text)
