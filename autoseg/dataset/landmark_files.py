"""Files with the landmarks of cases: where they lie, and which case each belongs to.

A case has a file of its name in landmarksTr or landmarks, or all cases share one table,
landmarks.csv, in one of these folders or beside them. dataset.json (Decathlon) and cases.csv may
name files instead.

A landmark that a case's file does not list is absent: a file that lists some is taken as complete,
as a label map is. Where files list only what somebody came to annotate, "unlisted_landmarks":
"unlabelled" in dataset.json says so. Cases without a file are unlabelled.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from autoseg.dataset.case import Case, LandmarkRules, case_name
from autoseg.dataset.folders import image_and_label_folder, image_folder, label_files
from autoseg.dataset.landmark_names import in_natural_order
from autoseg.errors import DataError, first_few
from autoseg.io import Point, image_ending, landmark_ending, read_points
from autoseg.system.files import file_stamp
from autoseg.system.progress import log

LANDMARK_FOLDERS = ("landmarksTr", "landmarks")
LANDMARK_TABLE = "landmarks.csv"
DEFAULT_RULES = LandmarkRules()


def landmark_source(root: Path) -> Path | None:
    """Folder or table with the landmarks of a dataset; None if it has neither.

    Raises:
        DataError: it has several.
    """
    sources = _sources(root)
    if len(sources) > 1:
        raise DataError(
            "the dataset has several sets of landmarks", file=root, found=", ".join(map(str, sources)), fix="keep one"
        )
    return sources[0] if sources else None


def has_dataset_folders(root: Path) -> bool:
    """True if a folder has images with label maps or landmarks beside them; no file is opened."""
    return image_and_label_folder(root) is not None or (image_folder(root) is not None and bool(_sources(root)))


def cases_with_landmarks(source: Path) -> set[str]:
    """Names of the cases whose landmarks a folder or table holds.

    Raises:
        DataError: two files of one name; the table cannot be read, or does not name the cases.
    """
    if source.is_dir():
        return set(_files_by_case(source))
    names = read_points(source).cases
    if "" in names:
        raise DataError(
            "a table with the landmarks of all cases needs a column 'case'",
            file=source,
            allowed="case, landmark, x, y and, where needed, z, space, state, confidence",
            fix="add it, with the names of the images, or put a file for each case into landmarksTr",
        )
    return {_entry_case(name) for name in names}


def case_landmarks(folder: Path, names: Collection[str], rules: LandmarkRules = DEFAULT_RULES) -> dict[str, Path]:
    """The file with the landmarks of each case in a folder: one of its own, else the table
    landmarks.csv that lists it.

    Args:
        names: of the cases to look for; a folder of results holds other tables, too.
        rules: if label maps may show landmarks as spots, they are taken where there is no other
            file.

    Raises:
        DataError: two files of one case; the table cannot be read.
    """
    table = folder / LANDMARK_TABLE
    listed = dict.fromkeys(cases_with_landmarks(table), table) if table.is_file() else {}
    files = listed | _files_by_case(folder, names) or (label_files(folder) if rules.values else {})
    return {name: files[name] for name in sorted(files) if name in names}


def assign_landmark_files(cases: Sequence[Case], root: Path) -> list[Case]:
    """The cases with their files of landmarks; unchanged if some have one already.

    Raises:
        DataError: two files of one name; a table that cannot be read, or has none of the cases.
    """
    source = landmark_source(root)
    if source is None or any(case.landmarks for case in cases):
        return list(cases)
    if source.is_dir():
        files = _files_by_case(source)
    else:
        files = dict.fromkeys(cases_with_landmarks(source), source)
    return _assign(cases, files, source)


def assign_spot_maps(cases: Sequence[Case], root: Path, *, structures: bool) -> list[Case]:
    """The cases with the label maps that show their landmarks as spots: those in landmarksTr, else
    the label maps themselves.

    Files of points are taken where there are no such label maps.

    Args:
        structures: true if the label maps show structures.

    Raises:
        DataError: label maps would have to show both, or none of the files belongs to a case.
    """
    if any(case.landmarks for case in cases):
        return list(cases)
    for folder in (root / name for name in LANDMARK_FOLDERS):
        if files := label_files(folder):
            return _assign(cases, files, folder)
    from_labels = [] if structures else [replace(c, label=None, landmarks=c.label) for c in cases]
    if not any(c.landmarks and c.landmarks.is_file() for c in from_labels) and landmark_source(root):
        return assign_landmark_files(cases, root)
    if structures:
        raise DataError(
            "label maps show either structures or landmarks",
            file=root / "dataset.json",
            found="values for both, and no label maps in landmarksTr",
            fix="put label maps with the landmarks into a folder landmarksTr",
        )
    return from_labels


def read_case_points(case: Case, path: Path) -> tuple[Point, ...]:
    """Points of a case, as its file has them.

    Raises:
        DataError: the file cannot be read, or has those of other cases only.
    """
    entries = read_points(path).cases
    if "" in entries:
        return entries[""]
    by_case = _points_by_case(path, file_stamp(path))
    for name in (case.name, case_name(case.images[0])):
        if name in by_case:
            return by_case[name]
    raise DataError("the file has landmarks of other cases only", case=case.name, file=path, found=first_few(list(entries)))


def _assign(cases: Sequence[Case], files: Mapping[str, Path], source: Path) -> list[Case]:
    """The cases with the files of their names, or of the names of their first images; notes files
    that belong to no case.

    Raises:
        DataError: no file belongs to a case.
    """
    assigned = [replace(c, landmarks=files.get(c.name) or files.get(case_name(c.images[0]))) for c in cases]
    case_names = {name for c in cases for name in (c.name, case_name(c.images[0]))}
    unassigned = in_natural_order(set(files) - case_names)
    if not any(c.landmarks for c in assigned):
        raise DataError(
            "the landmarks are of none of the cases",
            file=source,
            found=first_few(unassigned),
            allowed=first_few([c.name for c in cases]),
            fix="name files, or the cases in the table, like the images",
        )
    if unassigned:
        log.warning("note: landmarks without an image: %s", first_few(unassigned))
    return assigned


def _sources(root: Path) -> list[Path]:
    """All tables and folders with landmarks of a dataset."""
    folders = [root / name for name in LANDMARK_FOLDERS]
    tables = [folder / LANDMARK_TABLE for folder in (root, *folders)]
    return [path for path in tables if path.is_file()] + [folder for folder in folders if folder.is_dir() and _files(folder)]


def _files(folder: Path) -> list[Path]:
    """Files with the landmarks of a single case each, sorted."""
    return sorted(p for p in folder.iterdir() if landmark_ending(p) and p.name != LANDMARK_TABLE)


def _files_by_case(folder: Path, names: Collection[str] | None = None) -> dict[str, Path]:
    """Files of single cases by the names of these, as far as they are in `names`."""
    files: dict[str, Path] = {}
    for path in _files(folder):
        name = path.name[: -len(landmark_ending(path) or "")]
        if names is not None and name not in names:
            continue
        if name in files:
            raise DataError(
                "two files of landmarks have the same name", file=folder, found=f"{files[name].name}, {path.name}", fix="keep one"
            )
        files[name] = path
    return files


@lru_cache(maxsize=16)
def _points_by_case(path: Path, stamp: str) -> dict[str, tuple[Point, ...]]:
    """Points in a table by the name of their case, of two entries of one case the first; `stamp` changes with the file."""
    by_case: dict[str, tuple[Point, ...]] = {}
    for entry, points in read_points(path).cases.items():
        by_case.setdefault(_entry_case(entry), points)
    return by_case


def _entry_case(name: str) -> str:
    """Case name of an entry in a table, which may be a file name: '001.png' is case '001'."""
    return case_name(Path(name)) if image_ending(Path(name)) else name
