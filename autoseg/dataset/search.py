"""Finding the folder of a dataset that a user names with `-d`."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from autoseg.dataset.landmark_files import has_dataset_folders
from autoseg.errors import UsageError, nearest
from autoseg.system.names import check_path
from autoseg.system.tables import CASE_TABLE


def find_dataset(name: str, folders: Sequence[Path]) -> Path:
    """Find a dataset by a path, a folder name, `Task01` or `1`.

    Args:
        folders: to search, in order.

    Raises:
        UsageError: no dataset has the name, or several do.
    """
    check_path(name, "the dataset", UsageError)
    direct = _in_home(name)
    if is_dataset(direct):
        return direct.resolve()
    pattern = rf"(Task|Dataset)0*{int(name)}_.*" if name.isdecimal() else rf"{re.escape(name)}(_.*)?"
    available: list[Path] = []
    for folder in dict.fromkeys(_in_home(str(p)).resolve() for p in folders):
        if not folder.is_dir():
            continue
        available += sorted(p for p in folder.iterdir() if is_dataset(p))
    matches = [p for p in available if re.fullmatch(pattern, p.name)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UsageError(f"'{name}' could be several datasets", found=", ".join(map(str, matches)), fix="give the path")
    if direct.is_dir():
        raise UsageError(
            "the folder holds no dataset.json, no cases.csv and no pair of folders with images and label maps or landmarks",
            file=direct,
            found=", ".join(sorted(p.name for p in direct.iterdir())[:8]) or "nothing",
            fix="point -d at the folder with dataset.json, or with imagesTr and labelsTr, or images and labels, or landmarks",
        )
    raise UsageError(
        f"no dataset '{name}'{nearest(name, [p.name for p in available])}",
        found=", ".join(map(str, available[:8])) or "no dataset at all",
        allowed="a path, a folder name, Task01 or 1; looked in " + ", ".join(dict.fromkeys(str(p) for p in folders)),
        fix="give the path of the folder with dataset.json",
    )


def search_folders() -> list[Path]:
    """Folders to search by default: the current one, ./data, and those of two optional environment
    variables.
    """
    optional = [os.environ.get("AUTOSEG_DATA"), os.environ.get("nnUNet_raw")]
    return [Path.cwd(), Path.cwd() / "data", *(Path(p) for p in optional if p)]


def is_dataset(folder: Path) -> bool:
    """True if the folder has the files or folders of a dataset, and may be looked at; no file is opened."""
    try:
        described = any((folder / name).is_file() for name in ("dataset.json", CASE_TABLE))
        return described or has_dataset_folders(folder)
    except PermissionError:
        return False


def _in_home(path: str) -> Path:
    """The path, `~` as the user's folder unless it is somebody's whom nobody knows."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
