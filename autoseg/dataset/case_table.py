"""Cases listed in a table: `cases.csv` with the columns case, image (image2, image3, …), label and
landmarks.

Paths are absolute or start from the table's folder. Other columns may hold what they like. Commas,
semicolons and tabs separate, whichever the first line uses.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from autoseg.dataset.case import Case
from autoseg.errors import DataError, nearest
from autoseg.io import IMAGE_ENDINGS, LANDMARK_ENDINGS, image_ending, landmark_ending
from autoseg.system.names import check_name, check_path
from autoseg.system.tables import read_csv

_EXAMPLE = "case,image,label"


def read_case_table(table: Path) -> list[Case]:
    """Lists the cases in the order of the table, without opening their files. An empty label means
    that there is none.

    Raises:
        DataError: not UTF-8, a column is missing, or a row names no case, no image, or a file that
            is not an image.
    """
    columns, rows = read_csv(table, "the table of cases")
    images = _image_columns(columns, table)
    return [_case(dict(zip(columns, map(str.strip, cells))), images, table, line) for line, cells in rows if any(cells)]


def _image_columns(columns: Sequence[str], table: Path) -> list[str]:
    """The columns of the channels in order: image, image2, image3, …"""
    for column, least in (("case", 1), ("image", 1), ("label", 0), ("landmarks", 0)):
        if not least <= columns.count(column) <= 1:
            raise DataError(
                f"the table of cases needs one column '{column}'{nearest(column, [c for c in columns if c != column])}",
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
    landmarks = row.get("landmarks", "")
    for column, value in (*zip(images, files), ("label", label), ("landmarks", landmarks)):
        check_path(value, f"column '{column}'", DataError, table, f"in line {line}")
    if landmarks and not (landmark_ending(Path(landmarks)) or image_ending(Path(landmarks))):
        raise DataError(
            "column 'landmarks' must name a file of landmarks",
            case=name,
            file=table,
            found=f"'{landmarks}' in line {line}",
            allowed=", ".join(LANDMARK_ENDINGS),
        )
    folder = table.parent
    return Case(
        name,
        tuple(folder / file for file in files),
        label=folder / label if label else None,
        landmarks=folder / landmarks if landmarks else None,
    )
