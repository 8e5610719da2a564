"""Inferring what dataset.json would say where there is none: channels from headers, structures from
label values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.dataset.case import Case, case_name
from autoseg.dataset.folders import channel_number, image_and_label_folder, image_folder, label_files
from autoseg.dataset.landmark_files import cases_with_landmarks, landmark_source
from autoseg.errors import AutosegError, DataError, PlanError
from autoseg.imaging.labels import LabelSet
from autoseg.io import RGB_8_BIT, Header, has_geometry, image_ending, read_header, read_label_values
from autoseg.system.files import file_stamp, write_text
from autoseg.system.progress import log, number_of
from autoseg.system.records import read_record, to_json
from autoseg.system.workers import CaseRun

MAX_STRUCTURES = 50  # in natural images; brain atlases, which have more, are volumes or have a dataset.json
MAX_UNCHECKED_VALUES = 8  # so many may all be thin borders
_NO_STAMP = ""  # matches no file, which is read again: an error such as too little memory need not be its fault
MIN_SOLID_SHARE = 0.5  # share of a structure's voxels whose neighbours belong to it; in smooth images and borders it is near 0


def channels_per_case(root: Path) -> int:
    """Number of image files of a case in two flat folders.

    One, unless all names end in channel numbers (`_0000`, `_0001`) and the label maps or landmarks
    are named without them.
    """
    folders, images, landmarks = image_and_label_folder(root), image_folder(root), landmark_source(root)
    assert images is not None
    labels = set(label_files(folders[1]) if folders else ()) | (cases_with_landmarks(landmarks) if landmarks else set())
    stems = [case_name(p) for p in images.iterdir() if image_ending(p)]
    marks = [channel_number(stem) for stem in stems]
    n_by_stem, n_by_case = sum(s in labels for s in stems), sum(m is not None and m[0] in labels for m in marks)
    return 1 + max((m[1] if m else 0 for m in marks), default=0) if n_by_case > n_by_stem and all(marks) else 1


def infer_channels(cases: Sequence[Case]) -> tuple[str, ...]:
    """Name the channels: red, green and blue if any image has colour, else 'image', or 'image 1',
    'image 2', …

    Where all images have 8 bit, red, green and blue are called "rgb_to_0_1" as nnU-Net does, which
    also says how they are normalised.

    Raises:
        DataError: no image can be read.
    """
    n_files = max(len(case.images) for case in cases)
    if n_files > 1:
        return tuple(f"image {i + 1}" for i in range(n_files))
    headers: list[Header] = []
    reason: AutosegError | None = None
    for case in cases:
        try:
            headers.append(read_header(case.images[0]))
        except AutosegError as error:  # it will be listed when the case is read
            reason = reason or error
    if not headers:
        raise DataError("no image can be read", found=f"{len(cases)} faulty, the first: {reason}")
    if any(h.colour for h in headers):
        return (RGB_8_BIT,) * 3 if all(h.eight_bit for h in headers) else ("red", "green", "blue")
    (n, _), *_ = Counter(h.channels for h in headers).most_common(1)
    return ("image",) if n == 1 else tuple(f"image {i + 1}" for i in range(n))


@dataclass(frozen=True)
class _LabelFile:
    """Values of a label file, or the problem with it."""

    file: str
    stamp: str
    values: tuple[int, ...]
    problem: str

    @property
    def is_sound(self) -> bool:
        """True if the values can be those of a label map, which an edit by hand may have changed."""
        return all(0 < v <= 65535 for v in self.values) and list(self.values) == sorted(set(self.values))


@dataclass(frozen=True)
class _LabelFiles:
    """Contents of the cache file."""

    files: tuple[_LabelFile, ...]


def infer_labels(cases: Sequence[Case], root: Path, cache: Path | None) -> LabelSet:
    """Define a structure for each value above 0 in the label maps, called 'structure 1' after it.

    Faulty label maps are left out here; reading their cases says what is wrong with them.

    Args:
        cache: a file that keeps the values, so that each label map is read once.

    Raises:
        DataError: no usable label map, nothing but background, or so many values that they cannot
            be structures.
    """
    labelled = [c for c in cases if c.label is not None and c.label.is_file()]
    if not labelled:
        raise DataError(
            "no case has a label map",
            file=root,
            found=f"{len(cases)} images, the first {cases[0].images[0].name}",
            allowed=str(cases[0].label) if cases[0].label else "label maps with the names of the images",
            fix="name each label map like its image, or list both in cases.csv",
        )
    files = _read_label_files(labelled, cache)
    usable = [f for f in files if not f.problem]
    if not usable:
        raise DataError("no label map can be used", found=f"{len(files)} faulty, the first: {files[0].problem}", file=root)
    values = sorted({v for f in usable for v in f.values})
    if not values:
        raise DataError("no label map contains a structure", file=root, found=f"only background in {len(usable)} label maps")
    natural = not any(has_geometry(c.label) for c in labelled if c.label)
    if natural and len(values) > MAX_STRUCTURES:
        raise DataError(
            "the label maps hold too many values to be structures",
            file=root,
            found=f"{len(values)} values from {values[0]} to {values[-1]}",
            allowed=f"up to {MAX_STRUCTURES} without a dataset.json",
            fix="if each object has a number of its own, give all objects of a kind the same; else name the structures "
            "in dataset.json",
        )
    return LabelSet(tuple(f"structure {v}" for v in values), tuple(values))


def _read_label_files(cases: Sequence[Case], cache: Path | None) -> list[_LabelFile]:
    """Values in each label map, in the order of the cases."""
    cached: dict[str, _LabelFile] = {}
    if cache is not None and cache.is_file():
        try:
            cached = {f.file: f for f in read_record(_LabelFiles, cache).files if f.is_sound}
        except PlanError as error:
            log.warning("note: all label maps are read again: %s", error)
    done = {c.name: cached[f] for c in cases if (f := str(c.label)) in cached and cached[f].stamp == file_stamp(Path(f))}
    remaining = [c for c in cases if c.name not in done]
    if remaining:
        run = CaseRun(_read_label_file, remaining, "label values")
        done.update({case.name: file for case, file in run})
        paths = {c.name: str(c.label) for c in remaining}
        done.update({f.case: _LabelFile(paths[f.case], _NO_STAMP, (), f.reason) for f in run.failures})
        files = [done[c.name] for c in cases]
        _log_values(files)
        if cache is not None:
            write_text(cache, to_json(_LabelFiles(tuple(files))))
    return [done[c.name] for c in cases]


def _read_label_file(case: Case) -> _LabelFile:
    assert case.label is not None
    path, stamp = case.label, file_stamp(case.label)
    try:
        data = read_label_values(path)
        values = _distinct_values(data)
        _check_solid(data, values, path)
    except DataError as error:
        return _LabelFile(str(path), stamp, (), str(error))
    return _LabelFile(str(path), stamp, values, "")


def _distinct_values(data: np.ndarray) -> tuple[int, ...]:
    """Values above 0, ascending."""
    occurs = np.zeros(int(data.max()) + 1, dtype=bool)
    for plane in data:  # a plane at a time: indices take eight bytes a voxel
        occurs[plane] = True
    return tuple(int(v) for v in np.flatnonzero(occurs) if v > 0)


def _check_solid(data: np.ndarray, values: Sequence[int], path: Path) -> None:
    """Check that values fill areas, as those of structures do.

    Raises:
        DataError: the values are those of an image, or of a mask whose borders were smoothed.
    """
    fault = None
    if not has_geometry(path) and len(values) > MAX_STRUCTURES:
        fault = f"{len(values)} values from {values[0]} to {values[-1]}"
    elif len(values) > MAX_UNCHECKED_VALUES:
        inner = data[:, :-1, :-1]
        between = (inner > 0) & (inner < values[-1])  # a smoothed mask still has its own value inside
        solid = (inner == data[:, 1:, :-1]) & (inner == data[:, :-1, 1:])
        share = float(solid[between].mean()) if between.any() else 1.0
        if share < MIN_SOLID_SHARE:
            fault = f"{len(values)} values, of which most stand alone ({100 * share:.0f} % have equal neighbours)"
    if fault:
        raise DataError(
            "this looks like an image or a mask with smoothed borders, not like a label map",
            file=path,
            found=fault,
            allowed="one value for each structure",
            fix="save label maps without anti-aliasing and resample them with nearest neighbour; if all values are meant, "
            "name them in dataset.json",
        )


def _log_values(files: Sequence[_LabelFile]) -> None:
    """Note the values that are taken for structures, those in a single label map, and files that
    cannot be used.
    """
    usable, faulty = [f for f in files if not f.problem], [f for f in files if f.problem]
    counts = Counter(v for f in usable for v in f.values)
    values = sorted(counts)
    listed = ", ".join(map(str, values[:10])) + (", …" if len(values) > 10 else "")
    log.warning("note: no dataset.json: structures are the values in %d label maps: %s", len(usable), listed)
    rare = [v for v in values if counts[v] == 1]
    if rare and len(usable) > 4:
        log.warning("note: in a single label map only: value %s; an annotation error?", ", ".join(map(str, rare[:10])))
    if faulty:
        log.warning("note: %s cannot be used, the first: %s", number_of(len(faulty), "label map"), faulty[0].problem)
