"""From a folder to a dataset, whatever its layout."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoseg.dataset.case import Case, Dataset, Description
from autoseg.dataset.case_table import read_case_table
from autoseg.dataset.dataset_json import decathlon_cases, describe, read_meta
from autoseg.dataset.folders import folder_cases, image_folder
from autoseg.dataset.landmark_files import has_known_folders, survey, tell_bare, with_landmark_files, with_spots
from autoseg.dataset.landmark_names import landmark_set
from autoseg.dataset.without_json import channels_per_case, infer_channels, infer_labels
from autoseg.errors import DataError, first_few
from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import LandmarkSet
from autoseg.io import IMAGE_ENDINGS, landmark_ending
from autoseg.system.names import check_name
from autoseg.system.progress import log
from autoseg.system.tables import CASE_TABLE


def open_dataset(root: Path, values: Path | None = None) -> Dataset:
    """Lists the cases of a dataset, and says what they have in common.

    That is what dataset.json says; then no image is opened. Without one, channels are taken from the headers of all images
    and structures ('structure 1', …) from the values in all label maps. Files of landmarks are read in any case; their
    names count where dataset.json says none.

    Args:
        values: a file that keeps the values found in label maps, so that each is read once.

    Raises:
        DataError: a malformed dataset.json or table of cases, no case, label maps that are none, or no landmark at all
            where there should be some.
    """
    about, table = root / "dataset.json", root / CASE_TABLE
    meta = read_meta(about) if about.is_file() or not (table.is_file() or has_known_folders(root)) else None
    description = None if meta is None else describe(meta, about)
    in_folders = False
    if table.is_file():
        cases = read_case_table(table)
    elif meta and meta.get("training"):
        cases = decathlon_cases(root, meta)
    else:
        cases = folder_cases(root, len(description.channels) if description else channels_per_case(root))
        in_folders = True
    if not cases:
        raise DataError(
            "no training case",
            file=table if table.is_file() else image_folder(root) or root / "imagesTr",
            allowed=f"images ending in {', '.join(IMAGE_ENDINGS)}",
        )
    _check_names(cases, table if table.is_file() else about)
    cases.sort(key=lambda c: c.name)
    if meta is None or description is None:
        cases, landmarks = _with_landmarks(cases, root, None, Description((), LabelSet((), ())))
        labelled = not landmarks.names or any(c.label is not None and c.label.is_file() for c in cases)
        channels = infer_channels(cases)
        description = Description(channels, infer_labels(cases, root, values) if labelled else LabelSet((), ()), landmarks)
    else:
        cases, landmarks = _with_landmarks(cases, root, meta, description)
        description = replace(description, landmarks=landmarks)
    if not description.labels.names:
        cases = [replace(c, label=None) for c in cases]
    elif in_folders:
        cases = _without_missing_maps(cases)
    about_all = (description.channels, description.labels, tuple(cases), description.landmarks, description.landmark_rules)
    return Dataset(Path(os.path.abspath(root)).name, root, *about_all)  # '.' has no name of its own


def _without_missing_maps(cases: list[Case]) -> list[Case]:
    """The cases; of those that have landmarks, and no label map where it should be, the structures are not known."""
    there = [c.label is not None and c.label.is_file() for c in cases]
    bare = [c.name for c, mapped in zip(cases, there) if c.landmarks and not mapped]
    if not bare or not any(there):
        return cases
    log.warning(
        "note: %d of %d cases have landmarks, but no label map, so that nothing is known of their structures: %s",
        len(bare),
        len(cases),
        first_few(bare),
    )
    return [replace(c, label=None) if c.name in bare else c for c in cases]


def _with_landmarks(
    cases: list[Case], root: Path, meta: dict[str, Any] | None, description: Description
) -> tuple[list[Case], LandmarkSet]:
    """The cases with their files of landmarks, and the landmarks; an empty list of them in dataset.json means none."""
    about, known, rules = root / "dataset.json", description.landmarks, description.landmark_rules
    if rules.values:
        cases = with_spots(cases, root, bool(description.labels.names))
        if not any(c.landmarks and landmark_ending(c.landmarks) for c in cases):
            tell_bare(cases)
            return cases, known
    if meta is not None and "landmarks" in meta and not known.names:
        return [replace(c, landmarks=None) for c in cases], known
    if not rules.values:
        cases = with_landmark_files(cases, root)
    if not known.names and not any(c.landmarks for c in cases):
        return cases, known
    names = survey(cases, known.names, rules, root)
    return cases, known if known.names else landmark_set(names, meta, about)


def read_description(root: Path) -> Description:
    """What dataset.json says about all cases, without looking for them.

    Raises:
        DataError: dataset.json is missing or malformed.
    """
    about = root / "dataset.json"
    return describe(read_meta(about), about)


def _check_names(cases: list[Case], source: Path) -> None:
    names = [c.name for c in cases]
    for name in names:
        check_name(name, "a case", DataError, source)
    if len(set(names)) < len(names):
        twice = sorted({n for n in names if names.count(n) > 1})
        raise DataError("two cases have the same name", file=source, found=", ".join(twice[:5]))
