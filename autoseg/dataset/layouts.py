"""Opening a dataset in any layout."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoseg.dataset.case import Case, Dataset, Description
from autoseg.dataset.case_table import read_case_table
from autoseg.dataset.dataset_json import decathlon_cases, parse_description, read_dataset_json
from autoseg.dataset.elsewhere import log_files_elsewhere
from autoseg.dataset.folders import folder_cases, image_folder
from autoseg.dataset.landmark_files import assign_landmark_files, assign_spot_maps, has_dataset_folders
from autoseg.dataset.landmark_names import make_landmark_set
from autoseg.dataset.landmark_survey import log_cases_without_landmarks, survey_landmarks
from autoseg.dataset.without_json import channels_per_case, infer_channels, infer_labels
from autoseg.errors import DataError, first_few, repeated
from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import LandmarkSet
from autoseg.io import IMAGE_ENDINGS, landmark_ending
from autoseg.system.names import check_name
from autoseg.system.progress import log
from autoseg.system.tables import CASE_TABLE


def open_dataset(root: Path, cache: Path | None = None) -> Dataset:
    """List the cases of a dataset, with its channels, structures and landmarks.

    These are taken from dataset.json; then no image is opened. Without one, channels are taken from
    the headers of all images and structures ('structure 1', …) from the values in all label maps.
    Files of landmarks are read in any case, and landmarks are taken from them if dataset.json names
    none.

    Args:
        cache: a file that keeps the values found in label maps, so that each is read once.

    Raises:
        DataError: a malformed dataset.json or table of cases, no case, unusable label maps, or no
            landmark at all where there should be some.
    """
    path, table = root / "dataset.json", root / CASE_TABLE
    meta = read_dataset_json(path) if path.is_file() or not (table.is_file() or has_dataset_folders(root)) else None
    description = None if meta is None else parse_description(meta, path)
    cases, in_folders = _list_cases(root, meta, description)
    if meta is None or description is None:
        cases, landmarks = _assign_landmarks(cases, root, None, Description((), LabelSet((), ())))
        labelled = not landmarks.names or any(c.label is not None and c.label.is_file() for c in cases)
        channels = infer_channels(cases)
        description = Description(channels, infer_labels(cases, root, cache) if labelled else LabelSet((), ()), landmarks)
    else:
        cases, landmarks = _assign_landmarks(cases, root, meta, description)
        description = replace(description, landmarks=landmarks)
    if not description.labels.names:
        cases = [replace(c, label=None) for c in cases]
    elif in_folders:
        cases = _drop_missing_label_maps(cases)
    log_files_elsewhere(cases, root)
    return Dataset(
        name=Path(os.path.abspath(root)).name,  # '.' has no name of its own
        root=root,
        channels=description.channels,
        labels=description.labels,
        cases=tuple(cases),
        landmarks=description.landmarks,
        landmark_rules=description.landmark_rules,
    )


def read_description(root: Path) -> Description:
    """Read dataset.json without looking for cases.

    Raises:
        DataError: dataset.json is missing or malformed.
    """
    path = root / "dataset.json"
    return parse_description(read_dataset_json(path), path)


def _list_cases(root: Path, meta: dict[str, Any] | None, description: Description | None) -> tuple[list[Case], bool]:
    """Cases sorted by name, and true if they were found by the names of files in two folders.

    Raises:
        DataError: no case, two of one name, or a name that cannot be a file's.
    """
    path, table = root / "dataset.json", root / CASE_TABLE
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
    source = table if table.is_file() else path
    if not in_folders:  # a file of an odd name in a folder fails when its case is read, and alone
        for case in cases:
            check_name(case.name, "a case", DataError, source)
    if duplicates := repeated([case.name for case in cases]):
        raise DataError("two cases have the same name", file=source, found=", ".join(duplicates[:5]))
    return sorted(cases, key=lambda c: c.name), in_folders


def _drop_missing_label_maps(cases: list[Case]) -> list[Case]:
    """The cases, those with landmarks but without the file of a label map marked as having none.

    Where no case has the file nothing changes, since the label maps are then missing as a whole.
    """
    mapped = [c.label is not None and c.label.is_file() for c in cases]
    unmapped = [c.name for c, is_mapped in zip(cases, mapped) if c.landmarks and not is_mapped]
    if not unmapped or not any(mapped):
        return cases
    log.warning(
        "note: %d of %d cases have landmarks, but no label map, so that nothing is known of their structures: %s",
        len(unmapped),
        len(cases),
        first_few(unmapped),
    )
    names = set(unmapped)
    return [replace(c, label=None) if c.name in names else c for c in cases]


def _assign_landmarks(
    cases: list[Case], root: Path, meta: dict[str, Any] | None, description: Description
) -> tuple[list[Case], LandmarkSet]:
    """The cases with their files of landmarks, and the landmarks; an empty list of them in
    dataset.json means none.
    """
    landmarks, rules = description.landmarks, description.landmark_rules
    if rules.values:
        cases = assign_spot_maps(cases, root, structures=bool(description.labels.names))
        if not any(c.landmarks and landmark_ending(c.landmarks) for c in cases):
            log_cases_without_landmarks(cases)
            return cases, landmarks
    if meta is not None and "landmarks" in meta and not landmarks.names:
        return [replace(c, landmarks=None) for c in cases], landmarks
    if not rules.values:
        cases = assign_landmark_files(cases, root)
    if not landmarks.names and not any(c.landmarks for c in cases):
        return cases, landmarks
    names = survey_landmarks(cases, landmarks.names, rules, root)
    return cases, landmarks if landmarks.names else make_landmark_set(names, meta, root / "dataset.json")
