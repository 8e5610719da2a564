"""Which folder `-d` means."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from autoseg.dataset.landmark_files import has_known_folders
from autoseg.errors import UsageError, nearest
from autoseg.system.tables import CASE_TABLE


def find_dataset(wanted: str, places: Sequence[Path]) -> Path:
    """The folder that `-d` means: a path, a folder name, `Task01` or `1`.

    Args:
        places: folders to search, in order.

    Raises:
        UsageError: nothing fits, or more than one folder does.
    """
    direct = Path(wanted).expanduser()
    if is_dataset(direct):
        return direct.resolve()
    pattern = (
        re.compile(rf"(Task|Dataset)0*{int(wanted)}_.*") if wanted.isdecimal() else re.compile(rf"{re.escape(wanted)}(_.*)?")
    )
    seen: list[str] = []
    found: list[Path] = []
    for place in dict.fromkeys(p.expanduser().resolve() for p in places):
        if not place.is_dir():
            continue
        folders = sorted(p for p in place.iterdir() if is_dataset(p))
        seen += [str(p) for p in folders]
        found += [p for p in folders if pattern.fullmatch(p.name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"'{wanted}' could be several datasets", found=", ".join(map(str, found)), fix="give the path")
    if direct.is_dir():
        raise UsageError(
            "the folder holds no dataset.json, no cases.csv and no pair of folders with images and label maps or landmarks",
            file=direct,
            found=", ".join(sorted(p.name for p in direct.iterdir())[:8]) or "nothing",
            fix="point -d at the folder with dataset.json, or with imagesTr and labelsTr, or images and labels, or landmarks",
        )
    raise UsageError(
        f"no dataset '{wanted}'{nearest(wanted, [Path(p).name for p in seen])}",
        found=", ".join(seen[:8]) or "no dataset at all",
        allowed="a path, a folder name, Task01 or 1; looked in " + ", ".join(dict.fromkeys(str(p) for p in places)),
        fix="give the path of the folder with dataset.json",
    )


def search_places() -> list[Path]:
    """Folders in which `find_dataset` looks when nothing else is said: here, ./data, and the two optional variables."""
    optional = [os.environ.get("AUTOSEG_DATA"), os.environ.get("nnUNet_raw")]
    return [Path.cwd(), Path.cwd() / "data", *(Path(p) for p in optional if p)]


def is_dataset(folder: Path) -> bool:
    """Whether the folder has what a dataset is known by; no file is opened."""
    described = any((folder / name).is_file() for name in ("dataset.json", CASE_TABLE))
    return described or has_known_folders(folder)
