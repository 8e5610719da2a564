"""Tables of points: a line for each landmark of each case.

The columns are landmark, x, y and, where they are needed, case, z, space, state and confidence.
`space` is LPS, RAS (both mm) or voxel (pixel is the same). Without that column it is LPS for volumes,
and for natural images voxel: x counts columns and y rows, from the centre of the first pixel.
Commas, semicolons and tabs separate, whichever the first line uses; a line `sep=;` before it, as
spreadsheets write, may name another character.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from autoseg.errors import DataError, nearest
from autoseg.imaging.landmarks import Landmarks
from autoseg.io.points import (
    LandmarkFormat,
    Point,
    PointFile,
    confidence_of,
    coordinates,
    make_point,
    parse_space,
    read_text,
    state_name,
)
from autoseg.system.tables import parse_csv

_REQUIRED = ("landmark", "x", "y")
_SEPARATOR = re.compile(r'"?sep=(.)"?[ ,;\t]*(?:\n|$)', re.IGNORECASE)
_COLUMNS = ("case", "landmark", "x", "y", "z", "space", "state", "confidence")


def read_table(path: Path) -> PointFile:
    """Read all points of all cases.

    Raises:
        DataError: a missing or duplicate column, an invalid row, two coordinate systems in one
            case, or no point.
    """
    whole = read_text(path)
    text = whole.lstrip()
    named_separator = _SEPARATOR.match(text)
    text = text[named_separator.end() :].lstrip() if named_separator else text
    lines_above = whole[: len(whole) - len(text)].count("\n")
    header = (text.splitlines() or [""])[0]
    separator = named_separator[1] if named_separator and named_separator[1] in header else ""
    columns, rows = parse_csv(text, path, separator=separator, title="the table of landmarks")
    for column in _COLUMNS:
        if columns.count(column) > 1 or (column in _REQUIRED and column not in columns):
            raise DataError(
                f"the table of landmarks needs one column '{column}'{nearest(column, [c for c in columns if c not in _COLUMNS])}",
                file=path,
                found=", ".join(columns),
                allowed=", ".join(_COLUMNS),
                fix="begin the table with a line of names, between commas, semicolons or tabs",
            )
    cases: dict[str, list[Point]] = {}
    for line, row in rows:
        if not any(cell.strip() for cell in row):
            continue
        cells = _cells(path, row, columns, lines_above + line)
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


def _cells(path: Path, row: Sequence[str], columns: Sequence[str], line: int) -> dict[str, str]:
    """Cells of a row by column, without spaces around them.

    Args:
        line: number of the row's line in the file, from 1.

    Raises:
        DataError: more or fewer cells than columns, or no case where there is a column for it.
    """
    if len(row) != len(columns):
        raise DataError(
            "a row has more or fewer cells than the table has columns",
            file=path,
            found=f"{len(row)} in line {line}",
            allowed=f"{len(columns)} ({', '.join(columns)})",
            fix="write a decimal point, not a comma, and quote names with a comma",
        )
    cells = dict(zip(columns, (c.strip() for c in row)))
    if "case" in columns and not cells["case"]:
        raise DataError("a row names no case", file=path, found=f"line {line}")
    return cells


def table_text(cases: Mapping[str, Landmarks], pixels: bool) -> str:
    """Table of all landmarks of all cases, in LPS mm, or for natural images in pixels.

    Columns that say nothing are left out: case where none has a name, z of pixels if it is 0
    everywhere, and confidence where no landmark has one.
    """
    omitted = set() if any(cases) else {"case"}
    if pixels and not any(landmarks.points_mm[landmarks.present][:, 2].any() for landmarks in cases.values()):
        omitted.add("z")
    if all(landmarks.confidence is None for landmarks in cases.values()):
        omitted.add("confidence")
    out = io.StringIO()
    table = csv.DictWriter(out, [c for c in _COLUMNS if c not in omitted], extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    space = "pixel" if pixels else "LPS"
    for case, landmarks in cases.items():
        for i, name in enumerate(landmarks.names):
            row: dict[str, object] = {"case": case, "landmark": name, "space": space, "state": state_name(landmarks.state[i])}
            row |= zip("xyz", coordinates(landmarks, i) or ())
            table.writerow(row | {"confidence": confidence_of(landmarks, i)})
    return out.getvalue()


FORMAT = LandmarkFormat(".csv", read_table, lambda landmarks, case, pixels: table_text({case: landmarks}, pixels))
