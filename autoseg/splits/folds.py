"""Which cases a model learns from and which it is judged by: five-fold cross-validation that new cases cannot upset.

A patient is never in two folds. Where one is all the same (edited by hand, or known too late) nothing moves: it is said.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np

from autoseg.errors import PlanError, UsageError, first_few, nearest
from autoseg.system.files import write_text
from autoseg.system.names import check_name
from autoseg.system.records import from_json, to_json

N_FOLDS = 5
SEED = 12345  # nnU-Net's, so that both train on the same cases
ALL = "all"
TRAINING_ONLY = "training only"
NOBODY: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Folds:
    """The split of a dataset.

    Args:
        dataset: hash of the fingerprint that the split was last brought up to date with.
        validation: names of the validation cases of folds 0, 1, …; no case is in two of them. A fold is empty once all of
            its cases have left the dataset, so that the others keep their numbers.
        training_only: cases that every fold learns from and none is judged by; only folds made by hand have some.
        patients: the patient of each case, vanished ones included, that does not stand for a patient of its own.
        vanished: cases that have left the dataset, and the place they had: a fold, or 'training only'. Models may have learnt
            from them, so that is where they go should they return.
    """

    dataset: str
    validation: tuple[tuple[str, ...], ...]
    training_only: tuple[str, ...] = ()
    patients: dict[str, str] = field(default_factory=dict)
    vanished: dict[str, str] = field(default_factory=dict)

    @property
    def cases(self) -> tuple[str, ...]:
        """All names, sorted."""
        return tuple(sorted([*self.training_only, *(name for fold in self.validation for name in fold)]))

    @property
    def names(self) -> tuple[str, ...]:
        """The folds that can be trained: '0', '1', … where there are cases to learn from and to validate on, and 'all'."""
        n_cases = len(self.cases)
        return (*(str(i) for i, fold in enumerate(self.validation) if 0 < len(fold) < n_cases), ALL)

    @property
    def leaks(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """Patients who are in several places, sorted: their cases by place, which is a fold or 'training only'."""
        found: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
        places = {str(i): fold for i, fold in enumerate(self.validation)} | {TRAINING_ONLY: self.training_only}
        for place, names in places.items():
            for patient, cases in _by_patient(names, self.patients).items():
                found[patient][place] = tuple(cases)
        return {patient: found[patient] for patient in sorted(found) if len(found[patient]) > 1}

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
        if fold == ALL:
            return "fold 'all' is validated on the cases it learnt from: its scores say nothing about new cases"
        shared = [patient for patient, places in self.leaks.items() if fold in places]
        if not shared:
            return None
        who = "a patient" if len(shared) == 1 else f"{len(shared)} patients"
        return f"fold {fold} is validated on {who} it also learns from ({first_few(shared)}): its scores are too good"

    def _check(self, fold: str) -> None:
        if fold not in self.names:
            single = "case" if len(self.cases) == 1 else "patient"
            few = f"a single {single} allows no validation; " if len(_by_patient(self.cases, self.patients)) == 1 else ""
            raise UsageError(
                f"no fold '{fold}'{nearest(fold, self.names)}",
                found=f"{few}{len(self.cases)} cases in {len(self.names) - 1} folds",
                allowed=", ".join(self.names),
            )


def make_folds(names: Iterable[str], dataset: str, patients: Mapping[str, str] = NOBODY) -> Folds:
    """Five folds. Fewer than five patients are left out one at a time.

    Where each case is a patient of its own the folds equal nnU-Net's: scikit-learn's KFold(5, shuffle=True,
    random_state=12345) over the sorted names. Otherwise the patients, those with most cases first and equal ones shuffled, go
    one by one to the fold that has fewest cases; so folds differ in size by no more than the largest patient.

    Args:
        patients: patient of each case that is not its own.
    """
    ordered = sorted(names)
    groups = _by_patient(ordered, patients)
    if len(groups) < N_FOLDS:
        parts = list(groups.values())
    elif len(groups) == len(ordered):
        parts = [[ordered[i] for i in part] for part in np.array_split(_shuffled(len(ordered)), N_FOLDS)]
    else:
        parts = [[] for _ in range(N_FOLDS)]
        shuffled = [list(groups.values())[i] for i in _shuffled(len(groups))]
        for group in sorted(shuffled, key=len, reverse=True):  # stable: equal ones stay shuffled
            min(parts, key=len).extend(group)
    return _folds(dataset, parts, (), patients)


def extend_folds(folds: Folds, names: Iterable[str], dataset: str, patients: Mapping[str, str] = NOBODY) -> Folds:
    """The folds after the dataset has changed to `names`: no case moves, so models trained before stay honest.

    A new case joins its patient: where most of that patient's cases are, should they be in several places. New patients, those
    with most cases first, go to the fold that is smallest at that moment (the first of equals). While there are fewer than
    five folds of one patient each they open new ones; if a part of the cases is for training only, so are they, since the
    validation cases were chosen by hand then. Removed cases vanish; the place they had is kept for them and their patients.
    """
    wanted = set(names)
    known = {**folds.patients, **{name: patients.get(name, name) for name in wanted}}
    titles = [*map(str, range(len(folds.validation))), TRAINING_ONLY]
    places = [list(fold) for fold in folds.validation] + [list(folds.training_only)]
    present = set(folds.cases)
    for name, title in folds.vanished.items():
        if name not in present and title in titles:  # else edited by hand
            places[titles.index(title)].append(name)
    vanished = {name: title for title, place in zip(titles, places) for name in place if name not in wanted}
    kept = [[name for name in place if name in wanted] for place in places]
    homes: dict[str, Counter[int]] = defaultdict(Counter)
    for i, place in enumerate(places):
        for name in place:
            homes[known.get(name, name)][i] += 1
    *parts, training_only = kept
    fresh = _by_patient(sorted(wanted - {name for place in places for name in place}), patients)
    for patient, group in sorted(fresh.items(), key=lambda item: -len(item[1])):
        if patient in homes:
            kept[homes[patient].most_common(1)[0][0]].extend(group)
        elif folds.training_only:
            training_only.extend(group)
        else:
            if len(parts) < N_FOLDS and all(len(_by_patient(part, patients)) == 1 for part in parts):
                parts.append([])
            min(parts, key=len).extend(group)
    return _folds(dataset, parts, training_only, known, vanished)


def leak_notes(folds: Folds) -> list[str]:
    """A sentence for every patient in several folds: who, which cases, where, and what to do."""
    return [
        f"patient {patient} is in several folds: "
        + "; ".join(
            f"{place if place == TRAINING_ONLY else f'fold {place}'}: {first_few(cases)}" for place, cases in places.items()
        )
        + ". Scores of models trained so are too good: move the cases into one fold in splits.json, or delete it, and train anew"
        for patient, places in folds.leaks.items()
    ]


def parse_folds(text: str) -> tuple[str, ...]:
    """'0', 'all', '0,1,2' or '0..4' as names, each once, in their order. Whether there are such folds is seen when one is used.

    Raises:
        UsageError: a name is missing, or cannot be a file's.
    """
    parts = [part.strip() for part in text.split(",")]
    if "" in parts:
        raise UsageError("a fold without name", found=f"'{text}'", allowed="such as 0, all, 0..4 or 0,1,2")
    names = tuple(dict.fromkeys(name for part in parts for name in _through(part)))
    for name in names:
        check_name(name, "a fold", UsageError)
    return names


def _through(part: str) -> list[str]:
    """'2..4' as '2', '3', '4'; anything else as it is."""
    ends = re.fullmatch(r"(\d{1,2})\.\.(\d{1,2})", part)
    if ends is None or int(ends[1]) > int(ends[2]):
        return [part]
    return [str(i) for i in range(int(ends[1]), int(ends[2]) + 1)]


def load_folds(path: Path) -> Folds:
    """Reads splits.json; one without patients was made before they were known.

    Raises:
        UsageError: no such file, or a case is in two folds.
        PlanError: the file is malformed, or names a case as no file can be.
    """
    if not path.is_file():
        raise UsageError("no folds yet", file=path, fix="autoseg plan_and_preprocess -d DATASET")
    folds = from_json(Folds, path.read_text(encoding="utf-8"), path)
    for name in (*folds.cases, *folds.vanished):
        check_name(name, "a case", PlanError, path)
    twice = [name for name, count in Counter(folds.cases).items() if count > 1]
    if twice:
        raise UsageError("a case is in two folds", file=path, found=", ".join(twice[:5]), fix="list it once, or delete the file")
    return folds


def save_folds(folds: Folds, path: Path) -> None:
    """Writes splits.json atomically."""
    write_text(path, to_json(folds))


def _folds(
    dataset: str,
    parts: Iterable[Iterable[str]],
    training_only: Iterable[str],
    patients: Mapping[str, str],
    vanished: Mapping[str, str] = NOBODY,
) -> Folds:
    validation, rest = tuple(tuple(sorted(part)) for part in parts), tuple(sorted(training_only))
    bare = Folds(dataset, validation, rest)
    names = sorted({*bare.cases, *vanished})
    owners = {name: patients[name] for name in names if patients.get(name, name) != name}
    return Folds(dataset, validation, rest, owners, dict(sorted(vanished.items())))


def _by_patient(names: Iterable[str], patients: Mapping[str, str]) -> dict[str, list[str]]:
    """Cases of each patient; patients sorted, cases in the order given."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[patients.get(name, name)].append(name)
    return {patient: groups[patient] for patient in sorted(groups)}


def _shuffled(n: int) -> np.ndarray:
    order = np.arange(n)
    np.random.RandomState(SEED).shuffle(order)  # the legacy generator, as KFold uses it
    return order
