"""Names of the landmarks of a dataset, and which of them form pairs of left and right."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from autoseg.dataset.case import LandmarkRules
from autoseg.errors import DataError, LabelError, first_few, nearest
from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import LandmarkSet, State
from autoseg.imaging.side_names import name_sides
from autoseg.io import Point
from autoseg.system.documents import shown
from autoseg.system.names import check_title

MOST_LANDMARKS = 2000  # each is compared with each other, and a network makes a map of each; so many take some seconds
_FEWER = 'list those to learn under "landmarks" in dataset.json'
_UNLISTED_STATES = {"absent": State.ABSENT, "unlabelled": State.UNLABELLED}


def parse_landmarks(meta: dict[str, Any], path: Path) -> tuple[LandmarkSet, LandmarkRules]:
    """Landmarks of dataset.json, and how files of landmarks are to be read.

    "landmarks" is a list of names, or an object of names and values where label maps show each
    landmark as a spot of its own value; "symmetric_pairs" (or "pairs") are pairs of names;
    "unlisted_landmarks" says whether these are absent or unlabelled.

    Raises:
        DataError: one of them has another form.
        LabelError: names, values or pairs contradict each other.
    """
    unlisted = meta.get("unlisted_landmarks", "absent")
    if not isinstance(unlisted, str) or unlisted not in _UNLISTED_STATES:
        raise DataError(
            f"'unlisted_landmarks' is unknown{nearest(str(unlisted), _UNLISTED_STATES)}",
            file=path,
            found=unlisted if isinstance(unlisted, str) else shown(unlisted),
            allowed=", ".join(_UNLISTED_STATES),
        )
    raw = meta.get("landmarks", [])
    values: tuple[int, ...] = ()
    if isinstance(raw, dict):
        spots = [(value, name) for name, value in raw.items() if value != 0]
        malformed = [f"{name}: {shown(value)}" for value, name in spots if not isinstance(value, int) or isinstance(value, bool)]
        if malformed:
            raise DataError("values of landmarks must be whole numbers", file=path, found=malformed[0])
        spots.sort()
        values = tuple(value for value, _ in spots)
        names = [name for _, name in spots]
        with naming_file(path):
            LabelSet(tuple(names), values)  # the same rules hold for the values of spots
    elif isinstance(raw, list) and all(isinstance(name, str) for name in raw):
        names = [name.strip() for name in raw]
    else:
        raise DataError(
            "'landmarks' must list names, or give each name its value in the label maps",
            file=path,
            found=shown(raw),
            allowed='["nose", "chin"] or {"nose": 1, "chin": 2}',
        )
    for name in names:
        check_title(name, "a landmark", DataError, path)
    return make_landmark_set(names, meta, path) if names else LandmarkSet(()), LandmarkRules(values, _UNLISTED_STATES[unlisted])


def make_landmark_set(names: Sequence[str], meta: dict[str, Any] | None, path: Path) -> LandmarkSet:
    """The landmarks, paired as in dataset.json or else by their names ('eye_L' and 'eye_R').

    Raises:
        DataError: the pairs are malformed, or there are too many landmarks.
        LabelError: a name or pair contradicts another.
    """
    check_number(names, path)
    raw = None if meta is None else meta.get("symmetric_pairs", meta.get("pairs"))
    pairs = _pairs_by_name(names) if raw is None else _parse_pairs(raw, path)
    with naming_file(path):
        return LandmarkSet(tuple(names), pairs)


def check_number(names: Sequence[str], path: Path) -> None:
    """Check that there are not too many landmarks.

    Raises:
        DataError: there are.
    """
    if len(names) > MOST_LANDMARKS:
        found = f"{len(names)} names: {first_few(names)}"
        raise DataError("too many landmarks", file=path, found=found, allowed=f"up to {MOST_LANDMARKS}", fix=_FEWER)


def point_names(points: Sequence[Point], names: Sequence[str]) -> list[str]:
    """Name of each point: its label, or its description where the descriptions match more of
    `names`.

    Where `names` is empty, descriptions count only if all labels are numbers and each has a
    description of its own, as in the files of the AFIDs project.
    """
    labels = [p.label or p.description for p in points]
    descriptions = [p.description or p.label for p in points]
    if names:
        known = set(names)
        n_labels, n_descriptions = (sum(text in known for text in texts) for texts in (labels, descriptions))
        return descriptions if n_descriptions > n_labels else labels
    numbered = all(re.fullmatch(r"\d+", p.label) and p.description for p in points)
    return descriptions if numbered and len(set(descriptions)) == len(descriptions) else labels


def in_natural_order(names: Iterable[str]) -> list[str]:
    """Names sorted with numbers by their size: 'lm2' before 'lm10'."""
    return sorted(
        names, key=lambda name: ([(p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in re.split(r"(\d+)", name)])
    )


def _parse_pairs(raw: Any, path: Path) -> tuple[tuple[str, str], ...]:
    if not isinstance(raw, list) or not all(
        isinstance(p, list) and len(p) == 2 and all(isinstance(n, str) for n in p) for p in raw
    ):
        raise DataError("pairs must be lists of two names", file=path, found=shown(raw), allowed='[["eye_L", "eye_R"]]')
    return tuple((a, b) for a, b in raw)


@contextlib.contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Add the file to label errors."""
    try:
        yield
    except LabelError as error:
        error.file = str(path)
        raise


def _pairs_by_name(names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Pairs of names that name each other as partner, the left one first."""
    index = {name.lower(): i for i, name in enumerate(names)}
    sides = name_sides(names)
    pairs = []
    for i, side in enumerate(sides):
        j = index.get(side.partner) if side else None
        partner_side = None if j is None else sides[j]
        if side and side.left and j is not None and partner_side and index.get(partner_side.partner) == i:
            pairs.append((names[i], names[j]))
    return tuple(pairs)
