"""Names of the landmarks in the files of all cases, and notes on what these files leave open."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from autoseg.dataset.case import Case, LandmarkRules
from autoseg.dataset.landmark_files import read_case_points
from autoseg.dataset.landmark_names import check_number, in_natural_order, point_names
from autoseg.errors import AutosegError, DataError, first_few, nearest
from autoseg.imaging.landmarks import State
from autoseg.io import PointFile, has_geometry, read_points
from autoseg.system.progress import log

COMMON_SHARE = 0.5  # of the files: a name in so many is one that a rare name may be a misspelling of
RARE_SHARE = 0.1  # of the files: a name in at most so many may be misspelt


def survey_landmarks(cases: Sequence[Case], names: Sequence[str], rules: LandmarkRules, root: Path) -> tuple[str, ...]:
    """Names of the landmarks in the cases' files, in natural order; `names` if there are any.

    Faulty files are left out here; loading their cases says what is wrong with them. Notes on names
    that may be misspelt, on landmarks that no case has or that files do not list, and on coordinate
    systems go to the log.

    Raises:
        DataError: no file, no file that can be read, no landmark that is present, or too many.
    """
    with_file = [(case, case.landmarks) for case in cases if case.landmarks is not None]
    if not with_file:
        raise DataError(
            "no case has landmarks",
            file=root,
            found=f"{len(cases)} images, the first {cases[0].images[0].name}",
            allowed=f"landmarksTr/{cases[0].name}.mrk.json, .fcsv, .json or .csv, or one table landmarks.csv",
        )
    usable: list[tuple[Case, dict[str, State]]] = []
    faults: list[str] = []
    files: dict[Path, PointFile] = {}
    for case, path in with_file:
        try:
            points = read_case_points(case, path)
        except AutosegError as error:
            faults.append(str(error))
            continue
        files[path] = read_points(path)
        usable.append((case, dict(zip(point_names(points, names), (p.state for p in points)))))
    if not usable:
        raise DataError("no file of landmarks can be used", file=root, found=f"{len(faults)} faulty, the first: {faults[0]}")
    all_names = tuple(names) or tuple(in_natural_order({name for _, states in usable for name in states}))
    check_number(all_names, root)
    present = Counter(name for _, states in usable for name, state in states.items() if state == State.PRESENT)
    if not present:
        raise DataError("no landmark is present in any case", file=root, found=f"{len(all_names)} names in {len(usable)} cases")
    if faults:
        log.warning("note: %d files of landmarks cannot be used, the first: %s", len(faults), faults[0])
    if not names:
        log.warning("note: dataset.json names no landmarks; the files have %d: %s", len(all_names), first_few(all_names))
        _log_likely_typos({case.name: set(states) for case, states in usable})
    _log_assumptions(cases, files)
    log_cases_without_landmarks(cases)
    missing = [name for name in all_names if name not in present]
    if missing:
        log.warning("note: landmarks that no case has: %s", first_few(missing))
    _log_unlisted([(case.name, states) for case, states in usable], all_names, rules)
    return all_names


def log_cases_without_landmarks(cases: Sequence[Case]) -> None:
    """Note the cases without landmarks, if there are any."""
    names = [c.name for c in cases if c.landmarks is None]
    if names:
        log.warning("note: %d of %d cases have no landmarks: %s", len(names), len(cases), first_few(names))


def _log_assumptions(cases: Sequence[Case], files: dict[Path, PointFile]) -> None:
    """Note what is assumed where files do not say it, such as the coordinate system, and what is left out of them."""
    for remark in sorted({remark for file in files.values() for remark in file.remarks}):
        names = [path.name for path, file in files.items() if remark in file.remarks]
        log.warning("note: %s: %s", remark, first_few(names))
    volumes = {c.landmarks for c in cases if has_geometry(c.images[0])}
    without_space = [
        path.name
        for path, file in files.items()
        if path in volumes and any(point.space is None for points in file.cases.values() for point in points)
    ]
    if without_space:
        log.warning("note: tables without a column 'space' are in LPS mm: %s", first_few(without_space))


def _log_likely_typos(names: Mapping[str, set[str]]) -> None:
    """Note names that are a more frequent one in another spelling, or rare and much like a common
    one.

    Two names of one case are never taken for one another.

    Args:
        names: in the file of each case.
    """
    cases: dict[str, set[str]] = defaultdict(set)
    for case, case_names in names.items():
        for name in case_names:
            cases[name].add(case)
    max_rare = max(1, int(RARE_SHARE * len(names)))
    typos = []
    for name in in_natural_order(cases):
        count = len(cases[name])
        counts = {other: len(holders) for other, holders in cases.items() if not holders & cases[name]}
        spelling = _without_punctuation(name)
        same = sorted(n for n in counts if _without_punctuation(n) == spelling and (counts[n], n) > (count, name))
        common = [
            other
            for other, n in counts.items()
            if n > max_rare and n >= COMMON_SHARE * len(names) and not _same_but_for_numbers(other, name)
        ]
        hint = f" - did you mean '{same[0]}'?" if same else nearest(name, common) if count <= max_rare else ""
        if hint:
            typos.append(f"'{name}' in {first_few(in_natural_order(cases[name]))} only{hint}")
    if typos:
        log.warning("note: a name may be misspelt, and counts as a landmark of its own: %s", first_few(typos))


def _without_punctuation(name: str) -> str:
    """A name in lower case without blanks and punctuation: 'Left_Ear' equals 'left ear'."""
    return re.sub(r"[\W_]+", "", name).casefold()


def _same_but_for_numbers(a: str, b: str) -> bool:
    """True if names differ in their numbers only: 'tooth 17' and 'tooth 18'."""
    return re.sub(r"\d+", "0", a) == re.sub(r"\d+", "0", b)


def _log_unlisted(usable: Sequence[tuple[str, Mapping[str, State]]], names: Sequence[str], rules: LandmarkRules) -> None:
    """Note how many landmarks the files leave out, and what they count as.

    Args:
        usable: name and listed landmarks of each case.
        names: of all landmarks.
    """
    listed = {case: sum(name in states for name in names) for case, states in usable}
    n_unlisted = len(names) * len(usable) - sum(listed.values())
    if not n_unlisted:
        return
    alternative = State.UNLABELLED if rules.unlisted == State.ABSENT else State.ABSENT
    log.warning(
        "note: %d of %d landmarks are not listed in the files of their cases (%s) and count as %s; "
        'if they are %s, say "unlisted_landmarks": "%s" in dataset.json',
        n_unlisted,
        len(usable) * len(names),
        first_few([f"{case}: {n} of {len(names)}" for case, n in listed.items() if n < len(names)]),
        rules.unlisted.name.lower(),
        "visible but not annotated" if alternative == State.UNLABELLED else "not in the image",
        alternative.name.lower(),
    )
