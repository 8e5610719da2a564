"""What the landmarks of a dataset are called, and which of them are left and right of each other."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from autoseg.dataset.case import LandmarkRules
from autoseg.errors import DataError, LabelError, nearest
from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import LandmarkSet, State
from autoseg.imaging.side_names import sides
from autoseg.io import Point

_UNLISTED = {"absent": State.ABSENT, "unlabelled": State.UNLABELLED}


def described_landmarks(meta: dict[str, Any], about: Path) -> tuple[LandmarkSet, LandmarkRules]:
    """What dataset.json says: under "landmarks" a list of names, or an object of names and values where label maps show each
    landmark as a spot of its own value; "symmetric_pairs" (or "pairs"); and what "unlisted_landmarks" are.

    Raises:
        DataError: one of them has another form.
        LabelError: names, values or pairs that contradict each other.
    """
    word = meta.get("unlisted_landmarks", "absent")
    if word not in _UNLISTED:
        raise DataError(
            f"'unlisted_landmarks' is unknown{nearest(str(word), _UNLISTED)}",
            file=about,
            found=word,
            allowed=", ".join(_UNLISTED),
        )
    raw = meta.get("landmarks", [])
    values: tuple[int, ...] = ()
    if isinstance(raw, dict):
        spots = [(value, name) for name, value in raw.items() if value != 0]
        wrong = [name for value, name in spots if not isinstance(value, int) or isinstance(value, bool)]
        if wrong:
            raise DataError("values of landmarks must be whole numbers", file=about, found=f"{wrong[0]}: {raw[wrong[0]]}")
        spots.sort()
        values = tuple(value for value, _ in spots)
        names = [name for _, name in spots]
        with _said_in(about):
            LabelSet(tuple(names), values)  # the same rules hold for the values of spots
    elif isinstance(raw, list) and all(isinstance(name, str) for name in raw):
        names = [name.strip() for name in raw]
    else:
        raise DataError(
            "'landmarks' must list names, or give each name its value in the label maps",
            file=about,
            found=str(raw)[:80],
            allowed='["nose", "chin"] or {"nose": 1, "chin": 2}',
        )
    return landmark_set(names, meta, about) if names else LandmarkSet(()), LandmarkRules(values, _UNLISTED[word])


def landmark_set(names: Sequence[str], meta: dict[str, Any] | None, about: Path) -> LandmarkSet:
    """The landmarks, paired as dataset.json says, or else by their names ('eye_L' and 'eye_R').

    Raises:
        DataError: pairs that are none.
        LabelError: a name or pair that contradicts another.
    """
    raw = None if meta is None else meta.get("symmetric_pairs", meta.get("pairs"))
    pairs = _paired_by_name(names) if raw is None else _pairs(raw, about)
    with _said_in(about):
        return LandmarkSet(tuple(names), pairs)


def point_names(points: Sequence[Point], known: Sequence[str]) -> list[str]:
    """The name of each point: its label, or its description where those are what is known.

    Where no names are known, descriptions count only if all labels are numbers and each has a description of its own, as in
    the files of the AFIDs project.
    """
    labels = [p.label or p.description for p in points]
    others = [p.description or p.label for p in points]
    if known:
        names = set(known)
        return others if sum(n in names for n in others) > sum(n in names for n in labels) else labels
    numbered = all(re.fullmatch(r"\d+", p.label) and p.description for p in points)
    return others if numbered and len(set(others)) == len(others) else labels


def in_natural_order(names: Iterable[str]) -> list[str]:
    """Sorted, numbers by their size: 'lm2' before 'lm10'."""
    return sorted(
        names, key=lambda name: ([(p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in re.split(r"(\d+)", name)])
    )


def _pairs(raw: Any, about: Path) -> tuple[tuple[str, str], ...]:
    if not isinstance(raw, list) or not all(
        isinstance(p, list) and len(p) == 2 and all(isinstance(n, str) for n in p) for p in raw
    ):
        raise DataError("pairs must be lists of two names", file=about, found=str(raw)[:80], allowed='[["eye_L", "eye_R"]]')
    return tuple((a, b) for a, b in raw)


@contextlib.contextmanager
def _said_in(about: Path) -> Iterator[None]:
    """Names the file in what is wrong with labels."""
    try:
        yield
    except LabelError as error:
        error.file = str(about)
        raise


def _paired_by_name(names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Pairs of which each names the other, the left one first."""
    known = {name.lower(): i for i, name in enumerate(names)}
    found = sides(names)
    pairs = []
    for i, side in enumerate(found):
        j = known.get(side.partner) if side else None
        across = None if j is None else found[j]
        if side and side.left and j is not None and across and known.get(across.partner) == i:
            pairs.append((names[i], names[j]))
    return tuple(pairs)
