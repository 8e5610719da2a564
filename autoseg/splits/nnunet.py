"""Folds made by hand for nnU-Net: a splits_final.json in the dataset's folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from autoseg.errors import DataError, first_few, nearest
from autoseg.splits.folds import Folds
from autoseg.system.documents import read_json, shown

FILE = "splits_final.json"
FORM = '[{"train": [case, …], "val": [case, …]}, …]'


def read_nnunet_splits(path: Path, names: Collection[str], dataset: str) -> Folds:
    """Read nnU-Net's folds. Cases that no fold is validated on are for training only.

    Args:
        names: all cases of the dataset.
        dataset: hash of the fingerprint.

    Raises:
        DataError: another form; validation sets that overlap; a fold that does not train on all the
            rest; cases that the dataset lacks, or that the file leaves out.
    """
    folds = _read_lists(path)
    listed = {name for train, val in folds for name in (*train, *val)}
    cases = set(names)
    if unknown := sorted(listed - cases):
        raise DataError(
            f"the splits name a case that the dataset lacks{nearest(unknown[0], names)}", file=path, found=first_few(unknown)
        )
    if missing := sorted(cases - listed):
        raise DataError(
            "the splits leave out cases of the dataset",
            file=path,
            found=first_few(missing),
            fix="add them to the lists: to every 'train' alone if no fold is to be validated on them",
        )
    validation = Counter(name for _, val in folds for name in val)
    if repeated := sorted(name for name, count in validation.items() if count > 1):
        raise DataError("a case is validated on twice", file=path, found=first_few(repeated), allowed="each in one 'val' at most")
    for i, (train, val) in enumerate(folds):
        if shared := sorted(set(train) & set(val)):
            raise DataError(f"fold {i} trains on its validation cases", file=path, found=first_few(shared))
        if unused := sorted(listed - set(train) - set(val)):
            raise DataError(
                f"fold {i} leaves out cases", file=path, found=first_few(unused), allowed="a fold trains on all the rest"
            )
    return Folds(dataset, tuple(tuple(sorted(val)) for _, val in folds), tuple(sorted(cases - validation.keys())))


def _read_lists(path: Path) -> list[tuple[list[str], list[str]]]:
    """Training and validation cases of each fold."""
    raw = read_json(path, what=FILE, fix=f"write {FORM}, or delete the file for folds of autoseg's own")
    if not isinstance(raw, list) or not raw or not all(map(_is_fold, raw)):
        raise DataError(f"{FILE} has another form", file=path, found=shown(raw), allowed=FORM)
    return [(fold["train"], fold["val"]) for fold in raw]


def _is_fold(raw: Any) -> bool:
    """True for an object with two lists of names, of which that of validation cases is not empty."""
    if not isinstance(raw, dict) or raw.keys() != {"train", "val"}:
        return False
    lists = list(raw.values())
    return all(isinstance(part, list) and all(isinstance(n, str) for n in part) for part in lists) and bool(raw["val"])
