"""Cases of a folder with images and a folder with label maps, by file names."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path

from autoseg.dataset.case import Case, case_name
from autoseg.errors import DataError
from autoseg.io import image_ending, label_ending

FOLDERS = (("imagesTr", "labelsTr"), ("images", "labels"), ("images", "masks"))


def image_and_label_folder(root: Path) -> tuple[Path, Path] | None:
    """The two folders of a dataset, if it has such a pair."""
    return next((pair for pair in _pairs(root) if all(p.is_dir() for p in pair)), None)


def image_folder(root: Path) -> Path | None:
    """The folder of images, beside which there need not be one of label maps."""
    found = image_and_label_folder(root) or next((pair for pair in _pairs(root) if pair[0].is_dir()), None)
    return found[0] if found else None


def folder_cases(root: Path, n_channels: int) -> list[Case]:
    """A case for each image, or for each group of them that differ in the channel number `_0000`.

    Its label map has the case's name or that of its first image; where there is none, the place where it should be.

    Raises:
        DataError: no folder of images; two images of one name.
    """
    found = image_and_label_folder(root) or next((pair for pair in _pairs(root) if pair[0].is_dir()), None)
    if found is None:
        there = ", ".join(sorted(p.name for p in root.iterdir())[:8])
        raise DataError("no folder imagesTr", file=root, found=there, allowed="imagesTr or images")
    images, labels = found
    by_name = label_files(labels)
    cases = []
    for name, files in group_by_channel(images, n_channels).items():
        label = by_name.get(name) or by_name.get(case_name(files[0])) or labels / f"{name}{label_ending(files[0])}"
        cases.append(Case(name, files, label))
    return cases


def label_files(folder: Path) -> dict[str, Path]:
    """Label maps of a folder by the name of their case; nothing where there is no folder.

    Raises:
        DataError: two label maps of one name.
    """
    files = sorted(p for p in folder.iterdir() if image_ending(p)) if folder.is_dir() else []
    _check_names(files, "label maps", folder)
    return {case_name(p): p for p in files}


def group_by_channel(folder: Path, n_channels: int) -> dict[str, tuple[Path, ...]]:
    """Image files by case name. `_0000` marks a channel, or belongs to the name.

    It belongs to the name of all files with the same stem if one of them has a number that no channel has. The rest are
    channels if every file of the folder is one, or if the several channels of some case are complete: then a stray file does
    not part the others, it is a case of its own (under its full name where a group has the short one).

    Raises:
        DataError: two images of one name.
    """
    files = sorted(p for p in folder.iterdir() if image_ending(p) and not p.name.startswith("_"))
    _check_names(files, "images", folder)
    marks = {path: mark for path in files if (mark := channel_number(case_name(path)))}
    numbers: dict[str, set[int]] = defaultdict(set)
    for stem, number in marks.values():
        numbers[stem].add(number)
    channels = set(range(n_channels))
    grouped: dict[str, tuple[Path, ...]] = {}
    for path, (stem, _) in marks.items():
        if numbers[stem] <= channels:
            grouped[stem] = (*grouped.get(stem, ()), path)
    single = [path for path in files if path not in marks or marks[path][0] not in grouped]
    if single and (n_channels == 1 or not any(numbers[stem] == channels for stem in grouped)):
        return {case_name(p): (p,) for p in files}
    return grouped | {p.name if case_name(p) in grouped else case_name(p): (p,) for p in single}


def channel_number(stem: str) -> tuple[str, int] | None:
    """'brain_0001' as ('brain', 1): nnU-Net's way to number the channels of a case."""
    match = re.fullmatch(r"(.+)_(\d{4})", stem)
    return (match[1], int(match[2])) if match else None


def _pairs(root: Path) -> list[tuple[Path, Path]]:
    return [(root / images, root / labels) for images, labels in FOLDERS]


def _check_names(files: list[Path], what: str, folder: Path) -> None:
    if twice := [name for name, count in Counter(map(case_name, files)).items() if count > 1]:
        raise DataError(f"two {what} have the same name", file=folder, found=", ".join(twice[:5]), fix="keep one format of each")
