"""Tables as text: separated values for programs, aligned columns for people."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from autoseg.errors import DataError

CASE_TABLE = "cases.csv"  # in the folder of a dataset: its cases, and their patients
SEPARATORS = ",;\t"  # as spreadsheets save tables

DIGITS = 6  # after the point, of scores in files: below the precision of any of them


def read_csv(path: Path, title: str = "the table") -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Read a table in UTF-8, with or without a byte order mark.

    Args:
        title: of the table in messages.

    Returns:
        Column names and rows, as `parse_csv` does.

    Raises:
        DataError: the file is not UTF-8 text, or no table: a cell of more than 131,072 characters.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{title} is not UTF-8 text", file=path, found=str(error), fix="save it as CSV UTF-8") from error
    try:
        return parse_csv(text)
    except csv.Error as error:
        raise DataError(f"{title} cannot be read", file=path, found=str(error), fix="save it as CSV UTF-8") from error


def parse_csv(text: str, separator: str = "") -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Split a table into cells. Its first line has the names of the columns.

    Args:
        separator: by default the one of comma, semicolon and tab that the first line has most of.

    Returns:
        Column names in lower case without blanks around them; of each further row the number of its line, and its cells.
    """
    header = (text.splitlines() or [""])[0]
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator or max(SEPARATORS, key=header.count))
    columns = [name.strip().lower() for name in next(lines, [])]
    return columns, [(lines.line_num, cells) for cells in lines]


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Write rows as CSV, one line per row; None is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def rounded(cells: Iterable[object]) -> list[object]:
    """Round the fractions of a row to `DIGITS` digits."""
    return [round(cell, DIGITS) if isinstance(cell, float) else cell for cell in cells]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align rows as text, the first one underlined: first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths))).rstrip() for row in rows
    ]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]
