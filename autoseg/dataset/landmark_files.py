"""Which file holds the landmarks of a case, and what all these files say together.

A case has a file of its name in landmarksTr or landmarks, or all cases share one table, landmarks.csv, in one of these folders
or beside them. dataset.json (Decathlon) and cases.csv may name files instead.

A landmark that a case's file does not list is absent: a file that lists some is taken as complete, as a label map is. Where
files list only what somebody came to annotate, "unlisted_landmarks": "unlabelled" in dataset.json says so. Cases without a
file are unlabelled.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from autoseg.dataset.case import Case, LandmarkRules, case_name
from autoseg.dataset.folders import image_and_label_folder, image_folder, label_files
from autoseg.dataset.landmark_names import in_natural_order, point_names
from autoseg.errors import AutosegError, DataError, first_few, nearest
from autoseg.imaging.landmarks import State
from autoseg.io import Point, PointFile, has_geometry, image_ending, landmark_ending, read_points
from autoseg.system.progress import log

LANDMARK_FOLDERS = ("landmarksTr", "landmarks")
LANDMARK_TABLE = "landmarks.csv"
POINTS = LandmarkRules()
COMMON, RARE = 0.5, 0.1  # of the files: what a name is in that others are compared with, and at most in that is compared


def landmark_source(root: Path) -> Path | None:
    """The folder or table with the landmarks of a dataset, if it has one.

    Raises:
        DataError: it has several.
    """
    found = _sources(root)
    if len(found) > 1:
        raise DataError("the landmarks are there twice", file=root, found=", ".join(map(str, found)), fix="keep one of them")
    return found[0] if found else None


def has_known_folders(root: Path) -> bool:
    """Whether a folder has images with label maps or landmarks beside them; no file is opened."""
    return image_and_label_folder(root) is not None or (image_folder(root) is not None and bool(_sources(root)))


def landmark_cases(source: Path) -> set[str]:
    """Names of the cases that a folder or table has landmarks of.

    Raises:
        DataError: two files of one name; the table cannot be read, or does not name the cases.
    """
    if source.is_dir():
        return set(_by_case(source))
    names = read_points(source).cases
    if "" in names:
        raise DataError(
            "a table with the landmarks of all cases needs a column 'case'",
            file=source,
            allowed="case, landmark, x, y and, as far as there is something to say, z, space, state, confidence",
            fix="add it, with the names of the images, or put a file for each case into landmarksTr",
        )
    return {_plain(name) for name in names}


def case_landmarks(folder: Path, names: Collection[str], rules: LandmarkRules = POINTS) -> dict[str, Path]:
    """The file with the landmarks of each case in a folder: one of its own, else the table landmarks.csv that lists it.

    Args:
        names: of the cases that are looked for; a folder of results holds other tables, too.
        rules: where label maps may show landmarks as spots, these count if there is no other file.

    Raises:
        DataError: two files of one case; the table cannot be read.
    """
    table = folder / LANDMARK_TABLE
    listed = dict.fromkeys(landmark_cases(table), table) if table.is_file() else {}
    found = listed | _by_case(folder, names) or (label_files(folder) if rules.values else {})
    return {name: found[name] for name in sorted(found) if name in names}


def with_landmark_files(cases: Sequence[Case], root: Path) -> list[Case]:
    """The cases with their files of landmarks, unless they have been named already.

    Raises:
        DataError: two files of one name; a table that cannot be read, or has none of the cases.
    """
    source = landmark_source(root)
    if source is None or any(case.landmarks for case in cases):
        return list(cases)
    if source.is_dir():
        files = _by_case(source)
    else:
        files = dict.fromkeys(landmark_cases(source), source)
    return _matched(cases, files, source)


def with_spots(cases: Sequence[Case], root: Path, structures: bool) -> list[Case]:
    """The cases with the label maps that show their landmarks as spots: those in landmarksTr, else the label maps themselves.

    Where neither is there, but files of points are, these count.

    Args:
        structures: whether the label maps show structures.

    Raises:
        DataError: they should show both, or what there is belongs to none of the cases.
    """
    if any(case.landmarks for case in cases):
        return list(cases)
    for folder in (root / name for name in LANDMARK_FOLDERS):
        if files := label_files(folder):
            return _matched(cases, files, folder)
    shown = [] if structures else [replace(c, label=None, landmarks=c.label) for c in cases]
    if not any(c.landmarks and c.landmarks.is_file() for c in shown) and landmark_source(root):
        return with_landmark_files(cases, root)
    if structures:
        raise DataError(
            "label maps show either structures or landmarks",
            file=root / "dataset.json",
            found="values for both, and no label maps in landmarksTr",
            fix="put label maps with the landmarks into a folder landmarksTr",
        )
    return shown


def tell_bare(cases: Sequence[Case]) -> None:
    """Names the cases without landmarks, if there are any."""
    bare = [c.name for c in cases if c.landmarks is None]
    if bare:
        log.warning("note: %d of %d cases have no landmarks: %s", len(bare), len(cases), first_few(bare))


def points_of(case: Case, path: Path) -> tuple[Point, ...]:
    """The points of a case, as its file has them.

    Raises:
        DataError: the file cannot be read, or has those of other cases only.
    """
    found = read_points(path)
    mine = next((points for name, points in found.cases.items() if not name or _plain(name) == case.name), None)
    if mine is None and (whole := case_name(case.images[0])) != case.name:
        mine = next((points for name, points in found.cases.items() if _plain(name) == whole), None)
    if mine is None:
        raise DataError(
            "the file has landmarks of other cases only", case=case.name, file=path, found=first_few(list(found.cases))
        )
    return mine


def survey(cases: Sequence[Case], names: Sequence[str], rules: LandmarkRules, root: Path) -> tuple[str, ...]:
    """The names of the landmarks in the cases' files in natural order, unless `names` says them.

    Faulty files are left out here; loading their cases says what is wrong with them.

    Raises:
        DataError: no file, no file that can be read, or no landmark that is present.
    """
    given = [(case, case.landmarks) for case in cases if case.landmarks is not None]
    if not given:
        raise DataError(
            "no case has landmarks",
            file=root,
            found=f"{len(cases)} images, the first {cases[0].images[0].name}",
            allowed=f"landmarksTr/{cases[0].name}.mrk.json, .fcsv, .json or .csv, or one table landmarks.csv",
        )
    good: list[tuple[Case, dict[str, State]]] = []
    faults: list[str] = []
    files: dict[Path, PointFile] = {}
    for case, path in given:
        try:
            points = points_of(case, path)
        except AutosegError as error:
            faults.append(str(error))
            continue
        files[path] = read_points(path)
        good.append((case, dict(zip(point_names(points, names), (p.state for p in points)))))
    if not good:
        raise DataError("no file of landmarks can be used", file=root, found=f"{len(faults)} faulty, the first: {faults[0]}")
    known = tuple(names) or tuple(in_natural_order({name for _, states in good for name in states}))
    present = Counter(name for _, states in good for name, state in states.items() if state == State.PRESENT)
    if not present:
        raise DataError("no landmark is present in any case", file=root, found=f"{len(known)} names in {len(good)} cases")
    if faults:
        log.warning("note: %d files of landmarks cannot be used, the first: %s", len(faults), faults[0])
    if not names:
        log.warning("note: dataset.json names no landmarks; the files have %d: %s", len(known), first_few(known))
        _tell_slips({case.name: set(states) for case, states in good})
    _tell_assumptions(cases, files)
    tell_bare(cases)
    never = [name for name in known if name not in present]
    if never:
        log.warning("note: landmarks that no case has: %s", first_few(never))
    _tell_unlisted(good, known, rules)
    return known


def _tell_assumptions(cases: Sequence[Case], files: dict[Path, PointFile]) -> None:
    for remark in sorted({f.remark for f in files.values() if f.remark}):
        log.warning("note: %s: %s", remark, first_few([p.name for p, f in files.items() if f.remark == remark]))
    volumes = {c.landmarks for c in cases if has_geometry(c.images[0])}
    silent = [p.name for p, f in files.items() if p in volumes and any(q.space is None for ps in f.cases.values() for q in ps)]
    if silent:
        log.warning("note: tables without a column 'space' are in LPS mm: %s", first_few(silent))


def _tell_slips(listed: Mapping[str, set[str]]) -> None:
    """Names that are a more frequent one in another spelling, or rare and much like a common one, which none of their cases has.

    Args:
        listed: names by case.
    """
    having: dict[str, set[str]] = defaultdict(set)
    for case, names in listed.items():
        for name in names:
            having[name].add(case)
    most = max(1, int(RARE * len(listed)))
    slips = []
    for name in in_natural_order(having):
        there = having[name]
        others = {n: len(cases) for n, cases in having.items() if not cases & there}
        same = sorted(n for n, times in others.items() if _spelt(n) == _spelt(name) and (times, n) > (len(there), name))
        common = [
            n for n, times in others.items() if times > most and times >= COMMON * len(listed) and not _of_one_series(n, name)
        ]
        hint = f" - did you mean '{same[0]}'?" if same else nearest(name, common) if len(there) <= most else ""
        if hint:
            slips.append(f"'{name}' in {first_few(in_natural_order(there))} only{hint}")
    if slips:
        log.warning("note: a name may be misspelt, and counts as a landmark of its own: %s", first_few(slips))


def _spelt(name: str) -> str:
    """A name without what people write this way and that: 'Left_Ear' and 'left ear' are the same."""
    return re.sub(r"[\W_]+", "", name).casefold()


def _of_one_series(a: str, b: str) -> bool:
    """Whether names differ in their numbers only: 'tooth 17' and 'tooth 18'."""
    return re.sub(r"\d+", "0", a) == re.sub(r"\d+", "0", b)


def _tell_unlisted(good: Sequence[tuple[Case, dict[str, State]]], known: Sequence[str], rules: LandmarkRules) -> None:
    listed = {case.name: sum(name in states for name in known) for case, states in good}
    lacking = len(known) * len(good) - sum(listed.values())
    if not lacking:
        return
    other = State.UNLABELLED if rules.unlisted == State.ABSENT else State.ABSENT
    log.warning(
        "note: %d of %d landmarks are not listed in the files of their cases (%s) and count as %s; "
        'if they are %s, say "unlisted_landmarks": "%s" in dataset.json',
        lacking,
        len(good) * len(known),
        first_few([f"{case}: {n} of {len(known)}" for case, n in listed.items() if n < len(known)]),
        rules.unlisted.name.lower(),
        "visible but not annotated" if other == State.UNLABELLED else "not in the image",
        other.name.lower(),
    )


def _matched(cases: Sequence[Case], files: Mapping[str, Path], source: Path) -> list[Case]:
    """The cases with the files of their names, or of the names of their first images; says which files belong to no case.

    Raises:
        DataError: none does.
    """
    found = [replace(c, landmarks=files.get(c.name) or files.get(case_name(c.images[0]))) for c in cases]
    used = {name for c in cases for name in (c.name, case_name(c.images[0]))}
    strange = in_natural_order(set(files) - used)
    if not any(c.landmarks for c in found):
        raise DataError(
            "the landmarks are of none of the cases",
            file=source,
            found=first_few(strange),
            allowed=first_few([c.name for c in cases]),
            fix="name files, or the cases in the table, like the images",
        )
    if strange:
        log.warning("note: landmarks without an image: %s", first_few(strange))
    return found


def _sources(root: Path) -> list[Path]:
    folders = [root / name for name in LANDMARK_FOLDERS]
    tables = [folder / LANDMARK_TABLE for folder in (root, *folders)]
    return [path for path in tables if path.is_file()] + [folder for folder in folders if folder.is_dir() and _files(folder)]


def _files(folder: Path) -> list[Path]:
    """Files of single cases."""
    return sorted(p for p in folder.iterdir() if landmark_ending(p) and p.name != LANDMARK_TABLE)


def _by_case(folder: Path, names: Collection[str] | None = None) -> dict[str, Path]:
    """Files of single cases, of `names` if they are given."""
    found: dict[str, Path] = {}
    for path in _files(folder):
        name = path.name[: -len(landmark_ending(path) or "")]
        if names is not None and name not in names:
            continue
        if name in found:
            raise DataError(
                "two files of landmarks have the same name", file=folder, found=f"{found[name].name}, {path.name}", fix="keep one"
            )
        found[name] = path
    return found


def _plain(name: str) -> str:
    """A case as a table names it, which may be its file: '001.png' is case '001'."""
    return case_name(Path(name)) if image_ending(Path(name)) else name
