"""Files of landmarks in any format, chosen by their ending: a new format is a file with a FORMAT, and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from autoseg.errors import DataError, UsageError, nearest
from autoseg.imaging.landmarks import Landmarks
from autoseg.io import fcsv, markups, point_json, point_tables
from autoseg.io.points import LandmarkFormat, PointFile
from autoseg.system.arguments import FilePath, as_path
from autoseg.system.files import file_stamp, write_text

FORMATS: tuple[LandmarkFormat, ...] = (
    markups.FORMAT,
    fcsv.FORMAT,
    point_json.FORMAT,
    point_tables.FORMAT,
)
AT_ORIGIN = "points lie exactly at (0, 0, 0), where programs put those that were cleared; if they are not meant, delete them"
LANDMARK_ENDINGS = tuple(landmark_format.ending for landmark_format in FORMATS)


def landmark_ending(path: Path) -> str | None:
    """Ending of a landmark file's name ('.mrk.json', …); None for any other file and for hidden files."""
    name = path.name.lower()
    return None if name.startswith(".") else next((e for e in LANDMARK_ENDINGS if name.endswith(e)), None)


def landmarks_format_ending(word: str) -> str:
    """Ending of the landmark files of a format, by the name that a user gives it: 'mrk.json' or 'csv', for example.

    Raises:
        UsageError: no such format.
    """
    formats = [ending[1:] for ending in LANDMARK_ENDINGS]
    if word.lower().lstrip(".") not in formats:
        raise UsageError(f"unknown format of landmarks{nearest(word, formats)}", found=word, allowed=", ".join(formats))
    return "." + word.lower().lstrip(".")


def read_points(path: Path) -> PointFile:
    """Read the points of a file, which is parsed once, since a table may hold all cases of a dataset.

    Raises:
        DataError: no such file, or no file of landmarks.
    """
    landmark_format = _format_of(path)
    if not path.is_file():
        raise DataError("no such file", file=path)
    return _read(path, landmark_format, file_stamp(path))


def write_landmarks(path: FilePath, landmarks: Landmarks, case: str = "", pixels: bool = False) -> None:
    """Write the landmarks of one case, atomically.

    `.fcsv` cannot state that a landmark is absent or unlabelled, so it leaves both out.

    Args:
        path: its ending chooses the format.
        case: name of the case, for formats that state it.
        pixels: the image is a natural one, so LPS mm are pixels, and .csv and .json call them so.

    Raises:
        DataError: no format of landmarks has that ending.
        DiskError: nothing can be written there.
    """
    path = as_path(path, "path")
    write_text(path, _format_of(path).text(landmarks, case, pixels))


def write_landmark_table(path: Path, cases: Mapping[str, Landmarks], pixels: bool = False) -> None:
    """Write the landmarks of many cases as one CSV, atomically; see `write_landmarks`."""
    write_text(path, point_tables.table_text(cases, pixels))


@lru_cache(maxsize=4096)
def _read(path: Path, landmark_format: LandmarkFormat, stamp: str) -> PointFile:
    """Parse a file; `stamp` changes with it, and so makes the cache forget."""
    file = landmark_format.read(path)
    origins = [p for points in file.cases.values() for p in points if p.position is not None and not any(p.position)]
    return replace(file, remarks=(*file.remarks, AT_ORIGIN)) if origins else file


def _format_of(path: Path) -> LandmarkFormat:
    """Format of a file by its ending.

    Raises:
        DataError: no format of landmarks has that ending.
    """
    ending = landmark_ending(path)
    if ending is None:
        raise DataError("not a file of landmarks", file=path, allowed=", ".join(LANDMARK_ENDINGS))
    return next(f for f in FORMATS if f.ending == ending)
