"""Markup files of 3D Slicer, `.mrk.json`: any schema 1.x is read, 1.0.3 is written (as Slicer 5 itself does).

Of each control point the label, the position and its status count: 'defined' is present, 'missing'
absent, anything else ('undefined', 'preview') unlabelled. The schema has no word for absent
('missing' is not in it, though Slicer writes it), so we write 'undefined' with the description
'absent', and read that. Slicer writes "position": "" where there is none; without a status a
position is defined.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoseg.errors import DataError
from autoseg.imaging.landmarks import Landmarks, State
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

_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/markups-schema-v1.0.3.json#"
)
POINTS = "Fiducial"  # the type of a point list
_UNITS = {"mm": 1.0, "um": 0.001}
_UPRIGHT = [-1, 0, 0, 0, -1, 0, 0, 0, 1]  # no rotation in RAS, as Slicer writes it in LPS
_OWN_TEXT = re.compile(r"(absent|unlabelled)?(?:(?:^|; )confidence ([0-9.eE+-]+))?")


def read_markups(path: Path) -> PointFile:
    """Read all points of all markups of a file.

    Raises:
        DataError: not a markup file, no point, or an invalid point.
    """
    markups = read_json_object(path).get("markups")
    if not isinstance(markups, list) or not all(isinstance(m, dict) for m in markups):
        raise DataError("not a markup file of 3D Slicer", file=path, found="no list 'markups'", fix="save it from Slicer again")
    lists = [markup for markup in markups if str(markup.get("type", POINTS)) == POINTS]
    others = sorted({str(markup.get("type")) for markup in markups} - {POINTS, "None"})
    points = tuple(point for markup in lists for point in _points(path, markup))
    if not points:
        raise DataError(
            "the file holds no landmark",
            file=path,
            found=f"no point list, but {', '.join(others)}" if others else None,
            allowed=f"markups of type {POINTS}" if others else None,
            fix="delete it if the case is not annotated; else set the points",
        )
    entries = [entry for markup in lists for entry in markup.get("controlPoints", [])]
    remarks = status_remarks([(str(entry.get("positionStatus")), bool(entry.get("position"))) for entry in entries])
    if others:
        remarks = (f"markups that are no point lists ({', '.join(others)}) hold no landmarks and are left out", *remarks)
    return PointFile({"": points}, remarks)


def settled_status(status: str, *, has_position: bool) -> str:
    """The status of a point as it counts: one that is still being placed ('preview') is set where it has a position."""
    return "defined" if status == "preview" and has_position else status


def status_remarks(statuses: Sequence[tuple[str, bool]]) -> tuple[str, ...]:
    """Remarks on points by their status, each given with whether the point has a position."""
    remarks = []
    if ("preview", True) in statuses:
        remarks.append("points of the status 'preview' have positions and count as set")
    if ("undefined", True) in statuses:
        remarks.append("positions of points of the status 'undefined' are left out; set the points in Slicer if they are meant")
    return tuple(remarks)


def description_text(state: int, confidence: float | None) -> str:
    """Description of a point that carries its confidence and a state other than present.

    The schema has no other place for them.
    """
    parts = [] if state == State.PRESENT else [state_name(state)]
    return "; ".join(parts + ([] if confidence is None else [f"confidence {confidence!r}"]))


def split_description(text: str) -> tuple[str, str, str]:
    """Split a description into free text, state and confidence, each empty if there is none."""
    match = _OWN_TEXT.fullmatch(text)
    return ("", match[1] or "", match[2] or "") if match else (text, "", "")


def markups_text(landmarks: Landmarks) -> str:
    """Markup file with one point list in LPS mm and every landmark in its order.

    Landmarks that are not present have no position.
    """
    points = []
    for i, (name, state) in enumerate(zip(landmarks.names, landmarks.state)):
        entry: dict[str, Any] = {
            "id": str(i + 1),
            "label": name,
            "description": description_text(state, confidence_of(landmarks, i)),
        }
        entry["associatedNodeID"] = ""
        if position := coordinates(landmarks, i):
            entry["position"] = position
        entry |= {"orientation": _UPRIGHT, "selected": True, "locked": False, "visibility": True}
        points.append(entry | {"positionStatus": "defined" if state == State.PRESENT else "undefined"})
    markup = {
        "type": "Fiducial",
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": False,
        "fixedNumberOfControlPoints": False,
        "labelFormat": "%N-%d",
        "lastUsedControlPointNumber": len(points),
        "controlPoints": points,
        "measurements": [],
    }
    return json.dumps({"@schema": _SCHEMA, "markups": [markup]}, indent=2, ensure_ascii=False) + "\n"


def _points(path: Path, markup: dict[str, Any]) -> list[Point]:
    """Points of one markup of a file."""
    space = parse_space(path, str(markup.get("coordinateSystem", "LPS")))
    units = markup.get("coordinateUnits", "mm")
    unit = str(units[0] if isinstance(units, list) and units else units)
    if unit not in _UNITS:
        raise DataError("unknown unit of coordinates", file=path, found=f"'{unit}'", allowed=", ".join(_UNITS))
    raw = markup.get("controlPoints", [])
    if not isinstance(raw, list) or not all(isinstance(p, dict) for p in raw):
        raise DataError("'controlPoints' must be a list of points", file=path, found=json.dumps(raw)[:80])
    points = []
    for entry in raw:
        position = entry.get("position") or None
        label = text_of(path, "label", entry.get("label"))
        if position is not None and (not isinstance(position, list) or len(position) != 3):
            raise DataError(
                f"the position of landmark '{label}' must have three coordinates",
                file=path,
                found=json.dumps(position),
                allowed="[x, y, z]",
            )
        status = str(entry.get("positionStatus") or ("undefined" if position is None else "defined"))
        description, described_state, confidence = split_description(text_of(path, "description", entry.get("description")))
        status = settled_status(status, has_position=position is not None)
        if position is None and status in ("defined", "undefined"):
            status = described_state or "undefined"
        points.append(
            make_point(
                path,
                label,
                position,
                state=status,
                space=space,
                description=description,
                confidence=confidence,
                scale=_UNITS[unit],
            )
        )
    return points


FORMAT = LandmarkFormat(".mrk.json", read_markups, lambda landmarks, case, pixels: markups_text(landmarks))
