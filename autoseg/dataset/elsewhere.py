"""Files of a dataset that lie elsewhere: where a list names them by absolute paths or `..`, or a folder holds links."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from autoseg.dataset.case import Case
from autoseg.errors import first_few
from autoseg.system.progress import log, number_of


def log_files_elsewhere(cases: Sequence[Case], root: Path) -> None:
    """Note the cases with files outside of the dataset's folder, links followed: they are read, and copies lack them."""
    inside = os.path.join(os.path.realpath(root), "")
    folders: dict[Path, str] = {}
    paths = ((c.name, _real_path(path, folders)) for c in cases for path in _files(c))
    outside = {name: path for name, path in paths if not path.startswith(inside)}
    if outside:
        name, path = next(iter(outside.items()))
        log.warning(
            "note: %s with files outside of the dataset's folder, which are read where they are: %s (%s is %s)",
            number_of(len(outside), "case"),
            first_few(list(outside)),
            name,
            path,
        )


def _files(case: Case) -> Iterable[Path]:
    return (path for path in (*case.images, case.label, case.landmarks) if path is not None)


def _real_path(path: Path, folders: dict[Path, str]) -> str:
    """The path without links; of what is no link itself only its folder is looked at, once.

    Args:
        folders: those that were looked at.
    """
    if path.name == ".." or os.path.islink(path):
        return os.path.realpath(path)
    if path.parent not in folders:
        folders[path.parent] = os.path.realpath(path.parent)
    return os.path.join(folders[path.parent], path.name)
