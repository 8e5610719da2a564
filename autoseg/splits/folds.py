"""Five-fold cross-validation: training and validation cases of each fold, stable when cases are
added.

A patient is never put into two folds. Where one is in several (edited by hand, or known too late),
nothing moves, and a note says so.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from autoseg.errors import PlanError, UsageError, first_few, nearest
from autoseg.system.files import write_text
from autoseg.system.names import check_name
from autoseg.system.progress import number_of
from autoseg.system.records import read_record, to_json

N_FOLDS = 5
SEED = 12345  # nnU-Net's, so that both train on the same cases
ALL = "all"
TRAINING_ONLY = "training only"
NO_PATIENTS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Folds:
    """Split of a dataset into folds.

    Args:
        dataset: hash of the fingerprint that the split was last brought up to date with.
        validation: names of the validation cases of folds 0, 1, …; no case is in two of them. A
            fold is empty once all of its cases have left the dataset, so that the others keep their
            numbers.
        training_only: cases that every fold trains on and none validates on; only folds made by
            hand have some.
        patients: the patient of each case, vanished ones included, that is not a patient of its
            own.
        vanished: cases that have left the dataset, and the part they were in: a fold, or 'training
            only'. Models may have learnt from them, so they go back there should they return.
    """

    dataset: str
    validation: tuple[tuple[str, ...], ...]
    training_only: tuple[str, ...] = ()
    patients: dict[str, str] = field(default_factory=dict)
    vanished: dict[str, str] = field(default_factory=dict)

    @property
    def cases(self) -> tuple[str, ...]:
        """Names of all cases, sorted."""
        return tuple(sorted([*self.training_only, *(name for fold in self.validation for name in fold)]))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the folds that can be trained: '0', '1', … if they have training and validation
        cases, and 'all'.
        """
        n_cases = len(self.cases)
        return (*(str(i) for i, fold in enumerate(self.validation) if 0 < len(fold) < n_cases), ALL)

    @property
    def leaks(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """Patients in several parts, sorted: their cases by part, which is a fold or 'training
        only'.
        """
        cases_by_part: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
        parts = {str(i): fold for i, fold in enumerate(self.validation)} | {TRAINING_ONLY: self.training_only}
        for part, names in parts.items():
            for patient, cases in _by_patient(names, self.patients).items():
                cases_by_part[patient][part] = tuple(cases)
        return {patient: by_part for patient, by_part in sorted(cases_by_part.items()) if len(by_part) > 1}

    def training_cases(self, fold: str) -> tuple[str, ...]:
        """Names of the training cases of a fold, sorted.

        Raises:
            UsageError: no such fold.
        """
        self._check(fold)
        if fold == ALL:
            return self.cases
        held_out = set(self.validation[int(fold)])
        return tuple(name for name in self.cases if name not in held_out)

    def validation_cases(self, fold: str) -> tuple[str, ...]:
        """Names of the validation cases of a fold, sorted; for 'all' these are the training cases.

        Raises:
            UsageError: no such fold.
        """
        self._check(fold)
        return self.cases if fold == ALL else tuple(sorted(self.validation[int(fold)]))

    def remark(self, fold: str) -> str | None:
        """Warning about the scores of a fold; None where they can be trusted."""
        if fold == ALL:
            return "fold 'all' is validated on the cases it learnt from: its scores say nothing about new cases"
        shared = [patient for patient, parts in self.leaks.items() if fold in parts]
        if not shared:
            return None
        patients = "a patient" if len(shared) == 1 else f"{len(shared)} patients"
        return f"fold {fold} is validated on {patients} it also learns from ({first_few(shared)}): its scores are too good"

    def _check(self, fold: str) -> None:
        if fold not in self.names:
            unit = "case" if len(self.cases) == 1 else "patient"
            single = f"a single {unit} allows no validation; " if len(_by_patient(self.cases, self.patients)) == 1 else ""
            raise UsageError(
                f"no fold '{fold}'{nearest(fold, self.names)}",
                found=f"{single}{number_of(len(self.cases), 'case')} in {number_of(len(self.names) - 1, 'fold')}",
                allowed=", ".join(self.names),
                fix=f"-f {self.names[0]} (Python: fold='{self.names[0]}')"
                + (", which trains on every case" if self.names[0] == ALL else ""),
            )


def make_folds(names: Iterable[str], dataset: str, patients: Mapping[str, str] = NO_PATIENTS) -> Folds:
    """Make five folds, or one for each patient if there are fewer than five.

    Where each case is a patient of its own the folds equal nnU-Net's: scikit-learn's KFold(5,
    shuffle=True, random_state=12345) over the sorted names. Otherwise the patients, those with most
    cases first and equal ones shuffled, go one by one to the fold that has fewest cases; so folds
    differ in size by no more than the largest patient.

    Args:
        patients: patient of each case that is not its own.
    """
    ordered = sorted(names)
    groups = _by_patient(ordered, patients)
    if len(groups) < N_FOLDS:
        parts = list(groups.values())
    elif len(groups) == len(ordered):
        parts = [[ordered[i] for i in part] for part in np.array_split(_permutation(len(ordered)), N_FOLDS)]
    else:
        parts = [[] for _ in range(N_FOLDS)]
        shuffled = [list(groups.values())[i] for i in _permutation(len(groups))]
        for group in sorted(shuffled, key=len, reverse=True):  # stable: equal ones stay shuffled
            min(parts, key=len).extend(group)
    return _sorted_folds(dataset, parts, (), patients)


def extend_folds(folds: Folds, names: Iterable[str], dataset: str, patients: Mapping[str, str] = NO_PATIENTS) -> Folds:
    """Update the folds after the dataset has changed to `names`: no case moves, so scores of
    trained models stay honest.

    A new case joins its patient: where most of that patient's cases are, should they be in several
    parts. New patients, those with most cases first, go to the fold that is smallest at that moment
    (the first of equals). While there are fewer than five folds of one patient each they open new
    ones; if some cases are for training only, so are they, since the validation cases were chosen
    by hand then. Removed cases vanish; their part is remembered for them and their patients.
    """
    present = set(names)
    patient_of = {**folds.patients, **{name: patients.get(name, name) for name in present}}
    titles = [*map(str, range(len(folds.validation))), TRAINING_ONLY]
    remembered = [list(fold) for fold in folds.validation] + [list(folds.training_only)]
    listed = set(folds.cases)
    for name, title in folds.vanished.items():
        if name not in listed and title in titles:  # else edited by hand
            remembered[titles.index(title)].append(name)
    vanished = {name: title for title, part in zip(titles, remembered) for name in part if name not in present}
    parts = [[name for name in part if name in present] for part in remembered]
    n_cases: dict[str, Counter[int]] = defaultdict(Counter)  # of each patient, by part
    for i, part in enumerate(remembered):
        for name in part:
            n_cases[patient_of.get(name, name)][i] += 1
    *validation, training_only = parts
    new_patients = _by_patient(sorted(present - {name for part in remembered for name in part}), patients)
    for patient, group in sorted(new_patients.items(), key=lambda item: -len(item[1])):
        if patient in n_cases:
            parts[n_cases[patient].most_common(1)[0][0]].extend(group)
        elif folds.training_only:
            training_only.extend(group)
        else:
            if len(validation) < N_FOLDS and all(len(_by_patient(fold, patients)) == 1 for fold in validation):
                validation.append([])
            min(validation, key=len).extend(group)
    return _sorted_folds(dataset, validation, training_only, patient_of, vanished)


def leak_notes(folds: Folds) -> list[str]:
    """Notes on the patients in several folds, one each: the patient, the cases, their folds, and
    what to do.
    """
    return [
        f"patient {patient} is in several folds: "
        + "; ".join(f"{part if part == TRAINING_ONLY else f'fold {part}'}: {first_few(cases)}" for part, cases in parts.items())
        + ". Scores of models trained so are too good: move the cases into one fold in splits.json, or delete it, and train anew"
        for patient, parts in folds.leaks.items()
    ]


def parse_folds(text: str) -> tuple[str, ...]:
    """Names of folds in '0', 'all', '0,1,2' or '0..4', each once, in their order. They are not
    checked against any folds.

    Raises:
        UsageError: a name is missing, or cannot be a file's.
    """
    parts = [part.strip() for part in text.split(",")]
    if "" in parts:
        raise UsageError("a fold without name", found=f"'{text}'", allowed="such as 0, all, 0..4 or 0,1,2")
    names = tuple(dict.fromkeys(name for part in parts for name in _expand_range(part)))
    for name in names:
        check_name(name, "a fold", UsageError)
    return names


def _expand_range(part: str) -> list[str]:
    """Expand '2..4' to '2', '3', '4'; anything else stays as it is."""
    ends = re.fullmatch(r"(\d{1,2})\.\.(\d{1,2})", part)
    if ends is None or int(ends[1]) > int(ends[2]):
        return [part]
    return [str(i) for i in range(int(ends[1]), int(ends[2]) + 1)]


def load_folds(path: Path) -> Folds:
    """Read splits.json; one without patients was made before they were known.

    Raises:
        UsageError: no such file, or a case is in two folds.
        PlanError: the file is malformed, or has a case name that cannot be a file's.
    """
    if not path.is_file():
        raise UsageError("no folds yet", file=path, fix="autoseg plan_and_preprocess -d DATASET")
    folds = read_record(Folds, path, fix="undo the last edit; new folds, without the file, need models trained anew")
    for name in (*folds.cases, *folds.vanished):
        check_name(name, "a case", PlanError, path)
    duplicates = [name for name, count in Counter(folds.cases).items() if count > 1]
    if duplicates:
        raise UsageError(
            "a case is in two folds", file=path, found=", ".join(duplicates[:5]), fix="list it once, or delete the file"
        )
    return folds


def save_folds(folds: Folds, path: Path) -> None:
    """Write splits.json atomically."""
    write_text(path, to_json(folds))


def _sorted_folds(
    dataset: str,
    parts: Iterable[Iterable[str]],
    training_only: Iterable[str],
    patients: Mapping[str, str],
    vanished: Mapping[str, str] = NO_PATIENTS,
) -> Folds:
    """Folds with everything sorted, and with the patients of those cases only that they name."""
    folds = Folds(dataset, tuple(tuple(sorted(part)) for part in parts), tuple(sorted(training_only)))
    names = sorted({*folds.cases, *vanished})
    patients = {name: patients[name] for name in names if patients.get(name, name) != name}
    return replace(folds, patients=patients, vanished=dict(sorted(vanished.items())))


def _by_patient(names: Iterable[str], patients: Mapping[str, str]) -> dict[str, list[str]]:
    """Cases of each patient; patients sorted, cases in the order given."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[patients.get(name, name)].append(name)
    return {patient: groups[patient] for patient in sorted(groups)}


def _permutation(n: int) -> np.ndarray:
    order = np.arange(n)
    np.random.RandomState(SEED).shuffle(order)  # the legacy generator, as KFold uses it
    return order
