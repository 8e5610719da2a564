"""The older point lists of 3D Slicer, `.fcsv`: commas, and three comment lines for version, coordinate system and columns.

Columns are taken by name. Slicer 5.2 and later adds two without a name, of which the first is a point's
status: 3 where it is missing (absent), 0 or 1 where it has not been set (unlabelled), 2 where it
has. Files from before 4.3 do not state a coordinate system; they are RAS.
"""

from __future__ import annotations

import re
from pathlib import Path

from autoseg.errors import DataError, nearest
from autoseg.imaging.landmarks import Landmarks
from autoseg.io.markups import description_text, settled_status, split_description, status_remarks
from autoseg.io.points import LandmarkFormat, PointFile, confidence_of, coordinates, make_point, parse_space, read_text
from autoseg.system.tables import csv_rows, csv_text

_COLUMNS = ("id", "x", "y", "z", "ow", "ox", "oy", "oz", "vis", "sel", "lock", "label", "desc", "associatedNodeID")
_STATUS = {"0": "undefined", "1": "preview", "3": "missing"}
_SYSTEM = re.compile(r"#\s*CoordinateSystem\s*=\s*([^,\s]+)", re.IGNORECASE)
_HEAD = re.compile(r"#\s*columns\s*=\s*(.+)", re.IGNORECASE)


def read_fcsv(path: Path) -> PointFile:
    """Read all points of a file.

    Raises:
        DataError: no point, a missing column, or an invalid point.
    """
    lines = [line for line in re.split(r"\r\n|\n|\r", read_text(path)) if line.strip()]
    comments = [line.strip() for line in lines if line.startswith("#")]
    system = next((m[1] for line in comments if (m := _SYSTEM.match(line))), None)
    head = next((m[1] for line in comments if (m := _HEAD.match(line))), None)
    columns = [c.strip() for c in head.rstrip(",").split(",")] if head else list(_COLUMNS)
    for column in ("x", "y", "z", "label"):
        if column not in columns:
            raise DataError(
                f"the point list needs a column '{column}'{nearest(column, columns)}", file=path, found=", ".join(columns)
            )
    space = parse_space(path, system or "RAS")
    points, statuses = [], []
    for _, row in csv_rows((line for line in lines if not line.startswith("#")), path, ",", "the point list"):
        cells = dict(zip(columns, (c.strip() for c in row)))
        description, _, confidence = split_description(cells.get("desc", ""))
        position = [cells.get(axis, "") for axis in "xyz"]
        code = row[len(columns)].strip() if len(row) > len(columns) else ""
        status = _STATUS.get(code, "defined")
        statuses.append((status, "" not in position))
        state = settled_status(status, has_position="" not in position)
        if "" in position and state == "defined":
            raise DataError("a point needs three coordinates", file=path, found=",".join(row)[:80], allowed=", ".join(columns))
        points.append(
            make_point(
                path,
                cells.get("label", ""),
                position if state == "defined" else None,
                state=state,
                space=space,
                description=description,
                confidence=confidence,
            )
        )
    if not points:
        raise DataError(
            "the file holds no landmark", file=path, fix="delete it if the case is not annotated; else set the points"
        )
    remarks = () if system else ("point lists that do not state their coordinate system are taken as RAS",)
    return PointFile({"": tuple(points)}, (*remarks, *status_remarks(statuses)))


def fcsv_text(landmarks: Landmarks) -> str:
    """Point list in LPS mm. The format cannot hold landmarks that are not present: they are left out."""
    head = f"# Markups fiducial file version = 5.0\n# CoordinateSystem = LPS\n# columns = {','.join(_COLUMNS)}\n"
    rows: list[tuple[object, ...]] = []
    for i, name in enumerate(landmarks.names):
        if position := coordinates(landmarks, i):
            description = description_text(landmarks.state[i], confidence_of(landmarks, i))
            rows.append((i + 1, *position, 0, 0, 0, 1, 1, 1, 0, name, description, ""))
    return head + csv_text(rows)


FORMAT = LandmarkFormat(".fcsv", read_fcsv, lambda landmarks, case, pixels: fcsv_text(landmarks))
