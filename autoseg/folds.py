"""Which cases a model learns from and which it is judged by: five-fold cross-validation that new cases cannot upset."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.errors import UsageError, nearest
from autoseg.files import write_text
from autoseg.records import from_json, to_json

N_FOLDS = 5
SEED = 12345  # nnU-Net's, so that both train on the same cases
ALL = "all"


@dataclass(frozen=True)
class Folds:
    """The split of a dataset.

    Args:
        dataset: hash of the fingerprint that the split was last brought up to date with.
        validation: names of the validation cases of folds 0, 1, …; every case is in exactly one of them. A fold is empty
            once all of its cases have left the dataset, so that the others keep their numbers.
    """

    dataset: str
    validation: tuple[tuple[str, ...], ...]

    @property
    def cases(self) -> tuple[str, ...]:
        """All names, sorted."""
        return tuple(sorted(name for fold in self.validation for name in fold))

    @property
    def names(self) -> tuple[str, ...]:
        """The folds that can be trained: '0', '1', … where there are cases to learn from and to validate on, and 'all'."""
        numbers = tuple(str(i) for i, fold in enumerate(self.validation) if fold)
        return (*numbers, ALL) if len(numbers) > 1 else (ALL,)

    def training_cases(self, fold: str) -> tuple[str, ...]:
        """Sorted names that the fold learns from.

        Raises:
            UsageError: no such fold.
        """
        self._check(fold)
        if fold == ALL:
            return self.cases
        held_out = set(self.validation[int(fold)])
        return tuple(name for name in self.cases if name not in held_out)

    def validation_cases(self, fold: str) -> tuple[str, ...]:
        """Sorted names that the fold is judged by; for 'all' these are the training cases.

        Raises:
            UsageError: no such fold.
        """
        self._check(fold)
        return self.cases if fold == ALL else tuple(sorted(self.validation[int(fold)]))

    def remark(self, fold: str) -> str | None:
        """What the user must know about the scores of this fold, if anything."""
        if fold != ALL:
            return None
        return "fold 'all' is validated on the cases it learnt from: its scores say nothing about new cases"

    def _check(self, fold: str) -> None:
        if fold not in self.names:
            few = "a single case allows no validation; " if len(self.cases) == 1 else ""
            raise UsageError(
                f"no fold '{fold}'{nearest(fold, self.names)}",
                found=f"{few}{len(self.cases)} cases in {len(self.names) - 1} folds",
                allowed=", ".join(self.names),
            )


def make_folds(names: Iterable[str], dataset: str) -> Folds:
    """Five folds equal to nnU-Net's: scikit-learn's KFold(5, shuffle=True, random_state=12345) over the sorted names.

    Fewer than five cases are left out one at a time.
    """
    ordered = sorted(names)
    if len(ordered) < N_FOLDS:
        return Folds(dataset, tuple((name,) for name in ordered))
    shuffled = np.arange(len(ordered))
    np.random.RandomState(SEED).shuffle(shuffled)  # the legacy generator, as KFold uses it
    return Folds(dataset, tuple(tuple(ordered[i] for i in sorted(part)) for part in np.array_split(shuffled, N_FOLDS)))


def extend_folds(folds: Folds, names: Iterable[str], dataset: str) -> Folds:
    """The folds after the dataset has changed to `names`: no case moves, so models trained before stay honest.

    New cases go, in sorted order, to the fold that is smallest at that moment (the first of equals); while there are fewer
    than five folds they open new ones. Removed cases vanish.
    """
    wanted = set(names)
    kept = [[name for name in fold if name in wanted] for fold in folds.validation]
    kept += [[] for _ in range(N_FOLDS - len(kept))]
    for name in sorted(wanted - set(folds.cases)):
        min(kept, key=len).append(name)
    while kept and not kept[-1] and len(kept) > len(folds.validation):
        kept.pop()
    return Folds(dataset, tuple(tuple(sorted(fold)) for fold in kept))


def parse_folds(text: str) -> tuple[str, ...]:
    """'0', 'all' or '0,1,2' as names, each once, in their order. Whether there are such folds is seen when one is used.

    Raises:
        UsageError: a name is missing.
    """
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if "" in names:
        raise UsageError("a fold without name", found=f"'{text}'", allowed="such as 0, all, or 0,1,2")
    return names


def load_folds(path: Path) -> Folds:
    """Reads splits.json.

    Raises:
        UsageError: no such file, or a case is in two folds.
        PlanError: the file is malformed.
    """
    if not path.is_file():
        raise UsageError("no folds yet", file=path, fix="autoseg plan_and_preprocess -d DATASET")
    folds = from_json(Folds, path.read_text(encoding="utf-8"), path)
    twice = sorted({name for name in folds.cases if folds.cases.count(name) > 1})
    if twice:
        raise UsageError("a case is in two folds", file=path, found=", ".join(twice[:5]), fix="list it once, or delete the file")
    return folds


def save_folds(folds: Folds, path: Path) -> None:
    """Writes splits.json atomically."""
    write_text(path, to_json(folds))
