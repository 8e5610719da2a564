"""Cases listed in a table: `cases.csv` with the columns case, image (image2, image3, …), label and landmarks.

Paths are absolute or start from the table's folder. Other columns may hold what they like. Commas, semicolons and tabs
separate, whichever the first line uses.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from autoseg.dataset.case import Case
from autoseg.errors import DataError, nearest
from autoseg.io import IMAGE_ENDINGS, LANDMARK_ENDINGS, image_ending, landmark_ending
from autoseg.system.names import check_name

MANIFEST = "cases.csv"
_EXAMPLE = "case,image,label"


def manifest_cases(table: Path) -> list[Case]:
    """The cases in the order of the table; no file is opened. An empty label means that there is none.

    Raises:
        DataError: not a table, a column is missing, or a row without a case, an image, or with a file that is none.
    """
    try:
        text = table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("the table of cases is not UTF-8", file=table, found=str(error), fix="save it as CSV UTF-8") from error
    lines = text.splitlines()
    head = lines[0] if lines else ""
    rows = list(csv.reader(lines, delimiter=max(",;\t", key=head.count)))
    columns = [c.strip().lower() for c in rows[0]] if rows else []
    images = _image_columns(columns, table)
    return [_case(dict(zip(columns, map(str.strip, row))), images, table, n) for n, row in enumerate(rows[1:], 2) if any(row)]


def _image_columns(columns: Sequence[str], table: Path) -> list[str]:
    for column in ("case", "image"):
        if columns.count(column) != 1:
            raise DataError(
                f"the table of cases needs one column '{column}'{nearest(column, columns)}",
                file=table,
                found=", ".join(columns) or "an empty file",
                fix=f"begin it with the line {_EXAMPLE}",
            )
    numbered = [c for c in columns if re.match("image.*", c) and c != "image"]
    allowed = [f"image{i}" for i in range(2, len(numbered) + 2)]
    if sorted(numbered) != sorted(allowed):
        raise DataError(
            "the columns of further channels are numbered from 2",
            file=table,
            found=", ".join(numbered),
            allowed=", ".join(["image", *allowed]),
        )
    return ["image", *allowed]


def _case(row: dict[str, str], images: Sequence[str], table: Path, line: int) -> Case:
    name, label = row["case"], row.get("label", "")
    files = [row.get(column, "") for column in images]
    check_name(name, "a case", DataError, table, f"in line {line}")
    for column, value in (*zip(images, files), *([("label", label)] if label else [])):
        if not image_ending(Path(value)):
            raise DataError(
                f"column '{column}' must name an image file",
                case=name,
                file=table,
                found=f"'{value}' in line {line}",
                allowed=", ".join(IMAGE_ENDINGS),
            )
    points = row.get("landmarks", "")
    if points and not (landmark_ending(Path(points)) or image_ending(Path(points))):
        raise DataError(
            "column 'landmarks' must name a file of landmarks",
            case=name,
            file=table,
            found=f"'{points}' in line {line}",
            allowed=", ".join(LANDMARK_ENDINGS),
        )
    images_at = tuple(table.parent / f for f in files)
    return Case(name, images_at, table.parent / label if label else None, table.parent / points if points else None)
