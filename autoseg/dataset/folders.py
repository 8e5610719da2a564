"""Cases by file names: a folder with images and a folder with label maps."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path

from autoseg.dataset.case import Case, case_name
from autoseg.errors import DataError
from autoseg.io import image_ending, label_ending

FOLDERS = (("imagesTr", "labelsTr"), ("images", "labels"), ("images", "masks"))


def image_and_label_folder(root: Path) -> tuple[Path, Path] | None:
    """Folders of images and of label maps of a dataset; None unless it has both."""
    return next((pair for pair in _folder_pairs(root) if all(p.is_dir() for p in pair)), None)


def image_folder(root: Path) -> Path | None:
    """Folder of images of a dataset, with or without one of label maps; None if there is none."""
    folders = _existing_folders(root)
    return folders[0] if folders else None


def folder_cases(root: Path, n_channels: int) -> list[Case]:
    """List the cases of a dataset: one for each image, or for each group of images that differ in
    the channel number `_0000`.

    The label map of a case has its name or that of its first image; where there is none, the path
    that it should have.

    Raises:
        DataError: no folder of images; two images of one name.
    """
    folders = _existing_folders(root)
    if folders is None:
        entries = ", ".join(sorted(p.name for p in root.iterdir())[:8])
        raise DataError("no folder imagesTr", file=root, found=entries, allowed="imagesTr or images")
    images, labels = folders
    by_name = label_files(labels)
    cases = []
    for name, files in group_by_channel(images, n_channels).items():
        label = by_name.get(name) or by_name.get(case_name(files[0])) or labels / f"{name}{label_ending(files[0])}"
        cases.append(Case(name, files, label))
    return cases


def label_files(folder: Path) -> dict[str, Path]:
    """Label maps of a folder by the name of their case; none where there is no folder.

    Raises:
        DataError: two label maps of one name.
    """
    files = sorted(p for p in folder.iterdir() if image_ending(p)) if folder.is_dir() else []
    _check_names(files, "label maps", folder)
    return {case_name(p): p for p in files}


def group_by_channel(folder: Path, n_channels: int) -> dict[str, tuple[Path, ...]]:
    """Image files by case name. `_0000` marks a channel, or belongs to the name.

    It belongs to the name of all files with the same stem if one of them has a number that no
    channel has. The rest are channels if every file of the folder is one, or if the several
    channels of some case are complete: then a stray file does not ungroup the others, it is a case
    of its own (under its full name where a group has the short one). Where there is one channel,
    files without a number ungroup nothing, unless they have the short name of one with `_0000`.

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
    if n_channels == 1 and not any(path in marks for path in single):
        plain = {case_name(path) for path in single}
        grouped = {f"{stem}_0000" if stem in plain else stem: paths for stem, paths in grouped.items()}
    elif single and (n_channels == 1 or not any(numbers[stem] == channels for stem in grouped)):
        return {case_name(p): (p,) for p in files}
    return grouped | {p.name if case_name(p) in grouped else case_name(p): (p,) for p in single}


def channel_number(stem: str) -> tuple[str, int] | None:
    """Case and channel of an nnU-Net file name: ('brain', 1) for 'brain_0001', else None."""
    match = re.fullmatch(r"(.+)_(\d{4})", stem)
    return (match[1], int(match[2])) if match else None


def _folder_pairs(root: Path) -> list[tuple[Path, Path]]:
    return [(root / images, root / labels) for images, labels in FOLDERS]


def _existing_folders(root: Path) -> tuple[Path, Path] | None:
    """Folders of images, which exists, and of label maps, which exists if that of any pair does."""
    return image_and_label_folder(root) or next((pair for pair in _folder_pairs(root) if pair[0].is_dir()), None)


def _check_names(files: list[Path], kind: str, folder: Path) -> None:
    duplicates = [name for name, count in Counter(map(case_name, files)).items() if count > 1]
    if duplicates:
        raise DataError(
            f"two {kind} have the same name", file=folder, found=", ".join(duplicates[:5]), fix="keep one format of each"
        )
