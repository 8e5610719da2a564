"""What dataset.json would say, taken from the files where there is none: channels from headers, structures from label values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.dataset.case import Case, case_name
from autoseg.dataset.folders import channel_number, image_and_label_folder, image_folder, label_files
from autoseg.dataset.landmark_files import landmark_cases, landmark_source
from autoseg.errors import AutosegError, DataError, PlanError
from autoseg.imaging.labels import LabelSet
from autoseg.io import RGB_8_BIT, Header, has_geometry, image_ending, read_header, read_label_values
from autoseg.system.files import file_stamp, write_text
from autoseg.system.progress import log
from autoseg.system.records import from_json, to_json
from autoseg.system.workers import CaseRun

MOST_STRUCTURES = 50  # in natural images; brain atlases, which have more, come as volumes or with a dataset.json
FEW_VALUES = 8  # so many may all be thin borders
_READ_AGAIN = ""  # no file's stamp: what went wrong, such as too little memory, need not be the file's fault
SOLID = 0.5  # share of a structure's voxels whose neighbours belong to it; in smooth images and borders it is near 0


def channels_per_case(root: Path) -> int:
    """How many image files a case of two flat folders has.

    One, unless all names end in channel numbers (`_0000`, `_0001`) and the label maps or landmarks are named without them.
    """
    folders, images, landmarks = image_and_label_folder(root), image_folder(root), landmark_source(root)
    assert images is not None
    labels = set(label_files(folders[1]) if folders else ()) | (landmark_cases(landmarks) if landmarks else set())
    stems = [case_name(p) for p in images.iterdir() if image_ending(p)]
    marks = [channel_number(stem) for stem in stems]
    whole, parts = sum(s in labels for s in stems), sum(m is not None and m[0] in labels for m in marks)
    return 1 + max((m[1] if m else 0 for m in marks), default=0) if parts > whole and all(marks) else 1


def infer_channels(cases: Sequence[Case]) -> tuple[str, ...]:
    """Names of the channels: red, green and blue if any image has colour, else 'image', or 'image 1', 'image 2', …

    Where all images have 8 bit, red, green and blue are called "rgb_to_0_1" as nnU-Net does, which also says how they are
    normalised.

    Raises:
        DataError: no image can be read.
    """
    most = max(len(case.images) for case in cases)
    if most > 1:
        return tuple(f"image {i + 1}" for i in range(most))
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
class _Found:
    """The values of a label file, or why it cannot be used."""

    file: str
    stamp: str
    values: tuple[int, ...]
    problem: str


@dataclass(frozen=True)
class _AllFound:
    files: tuple[_Found, ...]


def infer_labels(cases: Sequence[Case], root: Path, memory: Path | None) -> LabelSet:
    """A structure for each value above 0 in the label maps, called 'structure 1' after it.

    Faulty label maps are left out here; reading their cases says what is wrong with them.

    Args:
        memory: a file that keeps what was found, and tells which label maps need not be read again.

    Raises:
        DataError: no usable label map, nothing but background, or so many values that they cannot be structures.
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
    found = _scan(labelled, memory)
    good = [f for f in found if not f.problem]
    if not good:
        raise DataError("no label map can be used", found=f"{len(found)} faulty, the first: {found[0].problem}", file=root)
    counts = Counter(v for f in good for v in f.values)
    values = sorted(counts)
    if not values:
        raise DataError("no label map contains a structure", file=root, found=f"only background in {len(good)} label maps")
    natural = not any(has_geometry(c.label) for c in labelled if c.label)
    if natural and len(values) > MOST_STRUCTURES:
        raise DataError(
            "the label maps hold too many values to be structures",
            file=root,
            found=f"{len(values)} values from {values[0]} to {values[-1]}",
            allowed=f"up to {MOST_STRUCTURES} without a dataset.json",
            fix="if each object has a number of its own, give all objects of a kind the same; else name the structures "
            "in dataset.json",
        )
    return LabelSet(tuple(f"structure {v}" for v in values), tuple(values))


def _scan(cases: Sequence[Case], memory: Path | None) -> list[_Found]:
    """The values in each label map, in the order of the cases."""
    known: dict[str, _Found] = {}
    if memory is not None and memory.is_file():
        try:
            known = {f.file: f for f in from_json(_AllFound, memory.read_text(encoding="utf-8"), memory).files}
        except PlanError:  # of another version: read again
            known = {}
    done = {c.name: known[f] for c in cases if (f := str(c.label)) in known and known[f].stamp == file_stamp(Path(f))}
    left = [c for c in cases if c.name not in done]
    if left:
        run = CaseRun(_values_of, left, "label values")
        done.update({case.name: found for case, found in run})
        files = {c.name: str(c.label) for c in left}
        done.update({f.case: _Found(files[f.case], _READ_AGAIN, (), f.reason) for f in run.failures})
        found = [done[c.name] for c in cases]
        _tell(found)
        if memory is not None:
            write_text(memory, to_json(_AllFound(tuple(found))))
    return [done[c.name] for c in cases]


def _values_of(case: Case) -> _Found:
    assert case.label is not None
    path, mark = case.label, file_stamp(case.label)
    try:
        data = read_label_values(path)
        values = _distinct(data)
        _check_solid(data, values, path)
    except DataError as error:
        return _Found(str(path), mark, (), str(error))
    return _Found(str(path), mark, values, "")


def _distinct(data: np.ndarray) -> tuple[int, ...]:
    """Values above 0, ascending."""
    seen = np.zeros(int(data.max()) + 1, dtype=bool)
    for plane in data:  # a plane at a time: indices take eight bytes a voxel
        seen[plane] = True
    return tuple(int(v) for v in np.flatnonzero(seen) if v > 0)


def _check_solid(data: np.ndarray, values: Sequence[int], path: Path) -> None:
    """
    Raises:
        DataError: the values are those of an image, or of a mask whose borders were smoothed.
    """
    fault = None
    if not has_geometry(path) and len(values) > MOST_STRUCTURES:
        fault = f"{len(values)} values from {values[0]} to {values[-1]}"
    elif len(values) > FEW_VALUES:
        inner = data[:, :-1, :-1]
        between = (inner > 0) & (inner < values[-1])  # a smoothed mask still has its own value inside
        solid = (inner == data[:, 1:, :-1]) & (inner == data[:, :-1, 1:])
        share = float(solid[between].mean()) if between.any() else 1.0
        if share < SOLID:
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


def _tell(found: Sequence[_Found]) -> None:
    """What was read from the values, since nobody has said it."""
    good, bad = [f for f in found if not f.problem], [f for f in found if f.problem]
    counts = Counter(v for f in good for v in f.values)
    values = sorted(counts)
    some = ", ".join(map(str, values[:10])) + (", …" if len(values) > 10 else "")
    log.warning("note: no dataset.json: structures are the values in %d label maps: %s", len(good), some)
    rare = [v for v in values if counts[v] == 1]
    if rare and len(good) > 4:
        log.warning("note: in a single label map: value %s; a slip of the pen?", ", ".join(map(str, rare[:10])))
    if bad:
        log.warning("note: %d label maps cannot be used, the first: %s", len(bad), bad[0].problem)
