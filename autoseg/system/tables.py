"""Tables as text: separated values for programs, aligned columns for people."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from autoseg.errors import DataError
from autoseg.system.documents import read_text

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
        DataError: the file is not UTF-8 text, or no table (see `csv_rows`); a row has more cells than there are columns, so that
            nobody can tell which is in which.
    """
    columns, rows = parse_csv(read_text(path, what=title, fix="save it as CSV UTF-8"), path, title=title)
    for line, cells in rows:
        if any(cell.strip() for cell in cells[len(columns) :]):
            raise DataError(
                f"{title} has a row with more cells than columns",
                file=path,
                found=f"{len(cells)} cells in line {line}: {', '.join(cells)}",
                allowed=f"{len(columns)} ({', '.join(columns)})",
                fix='put a cell with the separator in it between quotation marks: "a, b"; or give its column a name',
            )
    return columns, rows


def parse_csv(
    text: str, source: Path, *, separator: str = "", title: str = "the table"
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Split a table into cells. Its first line has the names of the columns.

    Args:
        source: the file, for messages.
        separator: by default the one of comma, semicolon and tab that the first line has most of.
        title: of the table in messages.

    Returns:
        Column names in lower case without blanks around them; of each further row the number of its line, and its cells.

    Raises:
        DataError: see `csv_rows`.
    """
    header = (text.splitlines() or [""])[0]
    rows = csv_rows(io.StringIO(text, newline=""), source, separator or max(SEPARATORS, key=header.count), title)
    _, names = next(rows, (0, []))
    return [name.strip().lower() for name in names], list(rows)


def csv_rows(lines: Iterable[str], source: Path, separator: str, title: str) -> Iterator[tuple[int, list[str]]]:
    """The cells of each row, with the number of its last line.

    Raises:
        DataError: a cell of more than 131,072 characters, a quotation mark without its partner, or a separator that is none.
    """
    try:
        reader = csv.reader(lines, delimiter=separator, strict=True)
    except (ValueError, TypeError) as error:
        raise DataError(f"{title} cannot be read", file=source, found=str(error), allowed="one character as separator") from error
    line = 1
    try:
        for cells in reader:
            yield reader.line_num, cells
            line = reader.line_num + 1
    except csv.Error as error:
        fix = "close each quotation mark, and save it as CSV UTF-8"
        raise DataError(f"{title} cannot be read", file=source, found=f"{error} from line {line} on", fix=fix) from error


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
