"""Prepared cases on disk: compressed, read in parts, complete or absent.

    case.image.b2nd        (C, Z, Y, X) float16
    case.label.b2nd        (Z, Y, X) class indices, if there is a label map
    case.foreground.npy    linear voxel indices of the structures, class after class
    case.json              everything else; written last, so a case without it counts as absent

While the parts are written, and while they are deleted, the JSON is called case.json.partial. It lists
the files of the case: nothing else in the folder is ever deleted.

Nothing here is flushed to the disk with fsync: a prepared case can be made again, and 0.4 ms a file is
a tenth of the time of a small case. Against a power cut, which may keep the JSON and lose data, the
JSON lists the size of every file. Against disks that change bits it lists the checksums, of the files and
of itself; a file's is checked when a process reads the case for the first time.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from autoseg.errors import DataError, DiskError, PlanError
from autoseg.imaging.geometry import AxisMap, Box, Grid, Triple
from autoseg.imaging.landmarks import State
from autoseg.plan.limits import FOREGROUND_MINIMUM
from autoseg.preprocessing.array_file import npy_content, packed_content, read_box, read_errors, unreadable_file
from autoseg.preprocessing.placement import Placement, Prepared
from autoseg.system.documents import read_json
from autoseg.system.names import check_name
from autoseg.system.records import read_record, to_json

FOREGROUND_SHARE = 0.01  # of a structure's voxels that are kept where that is more than FOREGROUND_MINIMUM (nnU-Net)
FOREGROUND_SEED = 1234

_IMAGE, _LABEL, _FOREGROUND = ".image.b2nd", ".label.b2nd", ".foreground.npy"
_PARTS = (_IMAGE, _LABEL, _FOREGROUND)
_MARKER, _PARTIAL = ".json", ".json.partial"
_CHUNK = 1 << 20
_checked: set[tuple[str, int | None]] = set()  # cases whose files this process has compared with their checksums

_WORLD_MM = 1e9

Row = tuple[float, float, float, float]


@dataclass(frozen=True)
class _GridRecord:
    shape: Triple
    affine: tuple[Row, Row, Row, Row]


@dataclass(frozen=True)
class _ClassRecord:
    """Count of the voxels of a class in the case, and of those that the foreground file keeps."""

    index: int
    voxels: int
    kept: int


@dataclass(frozen=True, kw_only=True)
class _Record:
    """The JSON of a stored case. Landmarks have a point (fractional voxels of the prepared grid) where they are present."""

    key: str
    n_channels: int
    shape: Triple
    source: _GridRecord
    axis_order: Triple
    axis_flip: tuple[bool, bool, bool]
    crop_start: Triple
    crop_stop: Triple
    target: _GridRecord
    classes: tuple[_ClassRecord, ...]
    file_sizes: dict[str, int]
    landmark_states: tuple[int, ...] = ()
    landmark_points: tuple[tuple[float, float, float] | None, ...] = ()
    file_checksums: dict[str, int] = field(default_factory=dict)
    checksum: int | None = None

    def own_checksum(self) -> int:
        """CRC-32 of everything else in the record."""
        return zlib.crc32(to_json(replace(self, checksum=None)).encode())


@dataclass(frozen=True)
class StoredCase:
    """A case of the store, to be read in parts. Holds no open file: cheap to copy, safe to use from many threads.

    Args:
        previous_stage: the prediction of the previous stage of a cascade, if there is one: a stored case
            with class indices or landmark spots in place of the image.
    """

    folder: Path
    name: str
    record: _Record
    previous_stage: StoredCase | None = None

    @staticmethod
    def open(folder: Path, name: str, previous_stage: Path | None = None) -> StoredCase:
        """Open a case of the store.

        Args:
            previous_stage: folder of the stored predictions of the previous stage, if there is one.

        Raises:
            DataError: the case is absent or incomplete.
        """
        record = _complete(folder, name)
        if record is None:
            raise DataError("not prepared, or only in part", case=name, file=folder, fix="autoseg preprocess")
        return StoredCase(folder, name, record, StoredCase.open(previous_stage, name) if previous_stage else None)

    @property
    def shape(self) -> Triple:
        return self.record.shape

    @property
    def n_channels(self) -> int:
        return self.record.n_channels

    @property
    def has_label(self) -> bool:
        return _LABEL in self.record.file_sizes

    @cached_property
    def placement(self) -> Placement:
        r = self.record
        return Placement(_grid(r.source), AxisMap(r.axis_order, r.axis_flip), Box(r.crop_start, r.crop_stop), _grid(r.target))

    @property
    def voxel_counts(self) -> dict[int, int]:
        """Voxels of each structure that occurs, by class index."""
        return {c.index: c.voxels for c in self.record.classes}

    @property
    def classes_present(self) -> tuple[int, ...]:
        """Class indices of the structures that occur, ascending."""
        return tuple(c.index for c in self.record.classes)

    @cached_property
    def points(self) -> np.ndarray:
        """Landmarks (N, 3) in fractional voxels (z, y, x), also outside the case; NaN unless present."""
        return np.array([p or (np.nan,) * 3 for p in self.record.landmark_points], dtype=np.float64).reshape(-1, 3)

    @cached_property
    def state(self) -> np.ndarray:
        """States (N,) of the landmarks, values of `landmarks.State`."""
        return np.array(self.record.landmark_states, dtype=np.int64)

    @cached_property
    def inside(self) -> np.ndarray:
        """Mask (N,) of the landmarks that are present and inside the stored case."""
        index = np.rint(self.points)  # to the voxel that it lies in
        return (np.isfinite(index) & (index >= 0) & (index < self.shape)).all(1)

    @property
    def landmarks_present(self) -> tuple[int, ...]:
        """Numbers of the landmarks that are present."""
        return tuple(np.flatnonzero(self.state == State.PRESENT).tolist())

    def read(self, box: Box | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """Read image (C, z, y, x) float16 and label (z, y, x) of a box or of the whole case.

        0 where the box reaches outside; no label in a case without label map.

        Raises:
            DataError: a file is damaged, or not written by the store.
        """
        self._check_files()
        box = box or Box((0, 0, 0), self.shape)
        image = read_box(self.folder / f"{self.name}{_IMAGE}", box, self.shape, (self.n_channels,))
        return image, read_box(self.folder / f"{self.name}{_LABEL}", box, self.shape, ()) if self.has_label else None

    def previous_prediction(self, box: Box | None = None) -> np.ndarray | None:
        """Read the previous stage's prediction (z, y, x) in a box, if there is one; 0 where the box reaches outside."""
        return None if self.previous_stage is None else self.previous_stage.read(box)[0][0]

    def foreground(self, class_index: int) -> np.ndarray:
        """Read voxel indices (N, 3), (z, y, x), of a structure: all, or a fixed random choice of many.

        Raises:
            DataError: the file is damaged, or not written by the store.
        """
        self._check_files()
        start = 0
        for c in self.record.classes:
            if c.index == class_index:
                path = self._foreground_file
                with read_errors(path):
                    kept = np.lib.format.open_memmap(path, mode="r")[start : start + c.kept]
                    if kept.shape != (c.kept,):
                        raise unreadable_file(path, f"{kept.shape} of {c.kept} voxels of class {class_index}")
                    return np.stack(np.unravel_index(kept, self.shape), axis=1)
            start += c.kept
        return np.empty((0, 3), dtype=np.int64)

    def _check_files(self) -> None:
        """Compare the files with their checksums, once in a process.

        Raises:
            DataError: a file has changed since it was written.
        """
        marker = (str(self.folder / self.name), self.record.checksum)
        if marker in _checked:
            return
        for ending, checksum in self.record.file_checksums.items():
            path, found = self.folder / f"{self.name}{ending}", 0
            with read_errors(path), open(path, "rb") as handle:
                while chunk := handle.read(_CHUNK):
                    found = zlib.crc32(chunk, found)
            if found != checksum:
                raise unreadable_file(path, "other bytes than were written: their checksum differs")
        _checked.add(marker)

    @property
    def _foreground_file(self) -> Path:
        return self.folder / f"{self.name}{_FOREGROUND}"


def write_case(folder: Path, name: str, prepared: Prepared, key: str) -> None:
    """Write or replace one case. Killed at any moment, it leaves a complete case or none.

    Args:
        key: digest of the case's sources; `stored_key` gives it back.

    Raises:
        DataError: a name that no file can have.
        DiskError: the disk is full or the folder cannot be written to.
    """
    check_name(name, "a case", DataError, folder)
    parts = {_IMAGE: prepared.image} | ({} if prepared.label is None else {_LABEL: prepared.label})
    classes, foreground = _foreground(prepared.label)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_case(folder, name)
        contents = {ending: packed_content(array) for ending, array in parts.items()} | {_FOREGROUND: npy_content(foreground)}
        record = _record(prepared, key, classes, contents)
        partial = folder / f"{name}{_PARTIAL}"
        _write_new(partial, to_json(replace(record, checksum=record.own_checksum())).encode())
        for ending, content in contents.items():
            _write_new(folder / f"{name}{ending}", content)
        os.replace(partial, folder / f"{name}{_MARKER}")
    except (OSError, RuntimeError) as error:  # blosc2 reports a full disk as RuntimeError
        raise DiskError(
            "cannot write the prepared case", case=name, file=folder, found=str(error), fix="free disk space, or another --root"
        ) from error


def _write_new(path: Path, content: bytes) -> None:
    """Write a file in place of what has its name; what a link there leads to is left alone."""
    path.unlink(missing_ok=True)
    with open(path, "xb") as handle:
        handle.write(content)


def stored_key(folder: Path, name: str) -> str | None:
    """Key that a case was written with; None if the case is absent or incomplete."""
    record = _complete(folder, name)
    return None if record is None else record.key


def stored_names(folder: Path) -> tuple[str, ...]:
    """Names of all cases with a marker in the folder, complete or not, sorted; other files are ignored."""
    files = os.listdir(folder) if folder.is_dir() else []
    markers = [(f[: -len(e)], f) for f in files for e in (_MARKER, _PARTIAL) if f.endswith(e)]
    return tuple(sorted({name for name, file in markers if _listed_endings(folder / file)}))


def remove_case(folder: Path, name: str) -> None:
    """Delete the files of a case that its marker lists; without a marker nothing is deleted.

    Killed at any moment, it leaves a complete case or one that counts as absent and can be deleted.
    """
    marker, partial = folder / f"{name}{_MARKER}", folder / f"{name}{_PARTIAL}"
    if _listed_endings(marker):
        os.replace(marker, partial)  # from now on the case counts as absent, and this still lists the files to delete
    if endings := _listed_endings(partial):
        for ending in endings:
            (folder / f"{name}{ending}").unlink(missing_ok=True)
        partial.unlink()


def _complete(folder: Path, name: str) -> _Record | None:
    """Record of a case whose files all have the sizes that it lists; else None."""
    marker = folder / f"{name}{_MARKER}"
    try:
        record = read_record(_Record, marker)
        if not {*record.file_sizes} <= {*_PARTS} or not _is_sound(record) or record.checksum not in (None, record.own_checksum()):
            return None
        sizes = {ending: (folder / f"{name}{ending}").stat().st_size for ending in record.file_sizes}
    except (OSError, PlanError):  # no marker, or one from a power cut or an older autoseg
        return None
    return record if sizes == record.file_sizes else None


def _is_affine(affine: np.ndarray) -> bool:
    """True for a (4, 4) affine that takes voxels to places in a world of a thousand kilometres."""
    return bool(np.abs(affine).max() < _WORLD_MM and abs(np.linalg.det(affine[:3, :3])) > 0 and (affine[3] == (0, 0, 0, 1)).all())


def _is_sound(record: _Record) -> bool:
    """True if the numbers of a record can be those of a case, which an edit by hand may have changed."""
    grids = (record.source, record.target)
    return (
        min(record.n_channels, *record.shape, *(n for grid in grids for n in grid.shape)) >= 1
        and record.target.shape == record.shape
        and sorted(record.axis_order) == [0, 1, 2]
        and all(0 <= start < stop for start, stop in zip(record.crop_start, record.crop_stop))
        and all(_is_affine(np.array(grid.affine)) for grid in grids)
        and all(c.index >= 1 and 0 <= c.kept <= c.voxels for c in record.classes)
        and len(record.landmark_states) == len(record.landmark_points)
        and all((s == State.PRESENT) == (p is not None) for s, p in zip(record.landmark_states, record.landmark_points))
        and set(record.landmark_states) <= set(State)
    )


def _record(prepared: Prepared, key: str, classes: tuple[_ClassRecord, ...], contents: Mapping[str, bytes]) -> _Record:
    placement = prepared.placement
    points = zip(prepared.points.tolist(), prepared.state)
    return _Record(
        key=key,
        n_channels=len(prepared.image),
        shape=prepared.image.shape[1:],
        source=_grid_record(placement.source),
        axis_order=placement.axes.order,
        axis_flip=placement.axes.flip,
        crop_start=placement.crop.start,
        crop_stop=placement.crop.stop,
        target=_grid_record(placement.target),
        classes=classes,
        file_sizes={ending: len(content) for ending, content in contents.items()},
        file_checksums={ending: zlib.crc32(content) for ending, content in contents.items()},
        landmark_states=tuple(prepared.state.tolist()),
        landmark_points=tuple(tuple(point) if state == State.PRESENT else None for point, state in points),
    )


def _grid_record(grid: Grid) -> _GridRecord:
    return _GridRecord(grid.shape, tuple(tuple(row) for row in grid.affine.tolist()))  # type: ignore[arg-type]


def _grid(record: _GridRecord) -> Grid:
    return Grid(record.shape, np.array(record.affine))


def _foreground(label: np.ndarray | None) -> tuple[tuple[_ClassRecord, ...], np.ndarray]:
    """Counts of voxels per class and, class after class, the linear indices of those that are kept."""
    if label is None:
        return (), np.empty(0, dtype=np.uint32)
    linear = np.flatnonzero(label)
    values = label.reshape(-1)[linear]
    order = np.argsort(values, kind="stable")  # radix sort: linear in time, and voxels stay in reading order
    counts = np.bincount(values)
    ends = np.cumsum(counts)
    records, kept = [], []
    ignored = np.iinfo(label.dtype).max  # see LabelSet.ignore_index
    for index in np.flatnonzero(counts):
        if index == ignored:
            continue
        n = int(counts[index])
        voxels = linear[order[ends[index] - n : ends[index]]]
        n_kept = max(FOREGROUND_MINIMUM, math.ceil(FOREGROUND_SHARE * n))
        if n_kept < n:
            generator = np.random.default_rng((FOREGROUND_SEED, int(index)))
            voxels = np.sort(generator.choice(voxels, n_kept, replace=False, shuffle=False))
        records.append(_ClassRecord(int(index), n, len(voxels)))
        kept.append(voxels)
    narrow = np.uint32 if label.size <= 2**32 else np.uint64
    return tuple(records), np.concatenate(kept).astype(narrow) if kept else np.empty(0, dtype=narrow)


def _listed_endings(marker: Path) -> tuple[str, ...]:
    """Endings of the files that a marker, of this or an older autoseg, lists; none where the file is no marker."""
    try:
        document = read_json(marker)
    except DataError:  # absent, or somebody else's file
        return ()
    sizes = document.get("file_sizes") if isinstance(document, dict) else None
    return tuple(ending for ending in _PARTS if ending in sizes) if isinstance(sizes, dict) else ()
