"""Tables as text: commas for programs, aligned columns for people."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

DIGITS = 6  # after the point, of scores in files: below what any of them can tell


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """A line a row; None is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def rounded(cells: Iterable[object]) -> list[object]:
    """A row with its fractions rounded."""
    return [round(cell, DIGITS) if isinstance(cell, float) else cell for cell in cells]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A line a row, the first one underlined; names in the first column to the left, everything else to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths))).rstrip() for row in rows
    ]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]
