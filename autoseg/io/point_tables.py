"""Tables of points: a line for each landmark of each case, with the columns landmark, x, y and, where there is something to
say, case, z, space, state and confidence.

`space` is LPS, RAS (both mm) or voxel (pixel is the same). Without that column it is LPS for volumes, and for natural images
voxel: x counts columns and y rows, from the centre of the first pixel. Commas, semicolons and tabs separate, whichever the
first line uses; a line `sep=;` before it, as spreadsheets write, may name another character.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path

from autoseg.errors import DataError, nearest
from autoseg.imaging.landmarks import Landmarks
from autoseg.io.points import Point, PointFile, confidence_of, coordinates, make_point, parse_space, read_text, state_name
from autoseg.system.tables import parse_csv

_NEEDED = ("landmark", "x", "y")
_SEPARATOR = re.compile(r'"?sep=(.)"?[ ,;\t]*(?:\n|$)', re.IGNORECASE)
_KNOWN = ("case", "landmark", "x", "y", "z", "space", "state", "confidence")


def read_table(path: Path) -> PointFile:
    """All points of all cases.

    Raises:
        DataError: a column is missing or there twice, a row that makes no sense, two coordinate systems in one case, no point.
    """
    whole = read_text(path)
    text = whole.lstrip()
    named = _SEPARATOR.match(text)
    text = text[named.end() :].lstrip() if named else text
    lines_above = whole[: len(whole) - len(text)].count("\n")
    header = (text.splitlines() or [""])[0]
    columns, rows = parse_csv(text, named[1] if named and named[1] in header else "")
    for column in _KNOWN:
        if columns.count(column) > 1 or (column in _NEEDED and column not in columns):
            raise DataError(
                f"the table of landmarks needs one column '{column}'{nearest(column, [c for c in columns if c not in _KNOWN])}",
                file=path,
                found=", ".join(columns),
                allowed=", ".join(_KNOWN),
                fix="begin the table with a line of names, between commas, semicolons or tabs",
            )
    cases: dict[str, list[Point]] = {}
    for line, row in rows:
        if not any(cell.strip() for cell in row):
            continue
        cells = dict(zip(columns, (c.strip() for c in row)))
        if len(row) != len(columns):
            raise DataError(
                "a row has more or fewer cells than the table has columns",
                file=path,
                found=f"{len(row)} in line {lines_above + line}",
                allowed=f"{len(columns)} ({', '.join(columns)})",
                fix="write a decimal point, not a comma, and quote names with a comma",
            )
        if "case" in columns and not cells["case"]:
            raise DataError("a row names no case", file=path, found=f"line {lines_above + line}")
        space = parse_space(path, cells["space"]) if cells.get("space") else None
        point = make_point(
            path,
            cells["landmark"],
            [cells["x"], cells["y"], cells.get("z", "")],
            state=cells.get("state", ""),
            space=space,
            confidence=cells.get("confidence"),
        )
        cases.setdefault(cells.get("case", ""), []).append(point)
    if not cases:
        raise DataError("the table holds no landmark", file=path, found="only its first line")
    for case, points in cases.items():
        spaces = {str(p.space or "none") for p in points if p.position is not None}
        if len(spaces) > 1:
            raise DataError(
                "the points of one case are in several coordinate systems",
                case=case or None,
                file=path,
                found=", ".join(sorted(spaces)),
                fix="fill the column 'space' with one of them and convert the others",
            )
    return PointFile({case: tuple(points) for case, points in cases.items()})


def table_text(cases: Mapping[str, Landmarks], pixels: bool) -> str:
    """A table of all landmarks of all cases, in LPS mm; of natural images in pixels, and without z if that is 0 everywhere.

    Cases without a name have no column for it, and there is none for confidence where nothing has one.
    """
    absent = set() if any(cases) else {"case"}
    if pixels and not any(found.points_mm[found.present][:, 2].any() for found in cases.values()):
        absent.add("z")
    if all(found.confidence is None for found in cases.values()):
        absent.add("confidence")
    out = io.StringIO()
    table = csv.DictWriter(out, [c for c in _KNOWN if c not in absent], extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    for case, found in cases.items():
        for i, name in enumerate(found.names):
            at = dict(zip("xyz", coordinates(found, i) or ()))
            about = {"space": "pixel" if pixels else "LPS", "state": state_name(found.state[i])}
            table.writerow({"case": case, "landmark": name, **at, **about, "confidence": confidence_of(found, i)})
    return out.getvalue()
