"""Which cases come from the same patient: by a column of a file, else by their names, and by files that are equal.

A model that has learnt from one scan of a patient and is judged by another seems better than it is. So folds keep a patient
together, and this module says who is whose.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autoseg.errors import DataError, first_few, nearest
from autoseg.system.tables import CASE_TABLE, read_csv

PATIENTS = "patients.csv"
_COLUMNS = ("patient", "group")

# What names a part of a patient's data. Anything else, a bare number above all, may just as well name the patient.
_NUMBERED = "frame|phase|visit|session|ses|scan|timepoint|tp|time|day|week|month|year|slice|run|study|exam"
_LETTER = "t|v|z"  # with their number only: P12_t1
_ALONE = "baseline|bl|follow[-_ ]?up|fu|pre[-_ ]?op|post[-_ ]?op|pre|post|left|right|ed|es"
_PART = rf"(?:(?:{_NUMBERED})[-_. ]?\d+[a-z]?|(?:{_LETTER})\d+|(?:{_ALONE})(?:[-_]?\d)?)"
_VISITS = re.compile(rf"(?P<patient>.+?)(?P<parts>(?:[-_. ]{_PART})+(?:-\d{{1,2}})?)", re.IGNORECASE)  # -044-1: a second scan
# Naming schemes whose first part is the patient: BIDS (https://bids-specification.readthedocs.io), and BraTS since 2023
# (BraTS-GLI-00005-100 is time point 100 of patient 00005).
_SCHEMES = (re.compile(r"(?P<patient>sub-[A-Za-z0-9]+)(?:_.+)?"), re.compile(r"(?P<patient>BraTS-[A-Z]+-\d{5})-\d{3}"))
# "spleen_scan_12" may be the twelfth patient; nobody calls the twelfth patient "spleen_visit_12" or "spleen_left".
_SURE = re.compile(rf"[-_. ](?:visit|session|ses|timepoint|tp|time|day|week|month|year|{_ALONE})(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Patients:
    """Who is whose.

    Args:
        of: patient of each case that does not stand for a patient of its own.
        source: where that is known from, to be read behind "from"; empty if nothing is known.
        notices: what deserves a look, as sentences.
    """

    of: dict[str, str] = field(default_factory=dict)
    source: str = ""
    notices: tuple[str, ...] = ()

    def summary(self, names: Collection[str]) -> str:
        """One line about these cases; empty where each is its own patient."""
        n = len({self.of.get(name, name) for name in names})
        return (
            f"{n} patients with {len(names)} cases (from {self.source}), folds keep each patient together"
            if n < len(names)
            else ""
        )


def find_patients(root: Path, names: Collection[str], digests: Mapping[str, str]) -> Patients:
    """What the dataset's folder, its case names and its files tell about patients.

    The first that knows anything decides: `patients.csv` (columns case, patient), such columns of `cases.csv`, the names. Cases
    with equal files are one patient's in any case.

    Args:
        names: all cases of the dataset.
        digests: digest of the files of each case that can be used.

    Raises:
        DataError: patients.csv is malformed, gives a case two patients, or knows no case of this dataset.
    """
    of, source, notices = _from_files(root, names)
    if not source:
        of = patients_from_names(names)
        source = _example(of) if of else ""
    twins = _twins(digests)
    same = [f"cases {' and '.join(cases)} hold the same files: all but one can go; they are kept in one fold" for cases in twins]
    joined = _joined({name: of.get(name, name) for name in names}, twins)
    known = {name: patient for name, patient in joined.items() if patient != name}
    source = (source or f"equal files: {', '.join(twins[0])}") if known else ""
    return Patients(known, source, (*notices, *same))


def patients_from_names(names: Iterable[str]) -> dict[str, str]:
    """Patient of each case whose name is a patient followed by a visit, frame, session, slice, side or the like.

    `patient001_frame12`, `sub-01_ses-02`, `P12_t1`, `0003-week-012` belong to `patient001`, `sub-01`, `P12` and `0003`;
    `liver_12` is its own patient. Nothing is said at all unless some patient has several cases, or if all cases would be one
    patient's, since the common part then names the dataset.
    """
    ordered = sorted(set(names))
    of = {name: patient for name in ordered if (patient := _patient_part(name))}
    n_patients = len({of.get(name, name) for name in ordered})
    return of if 1 < n_patients < len(ordered) else {}


def _patient_part(name: str) -> str | None:
    for scheme in _SCHEMES:
        if match := scheme.fullmatch(name):
            return match["patient"]
    match = _VISITS.fullmatch(name)
    if match and (any(c.isdigit() for c in match["patient"]) or _SURE.match(match["parts"])):
        return match["patient"]
    return None


def _example(of: Mapping[str, str]) -> str:
    largest = Counter(of.values()).most_common(1)[0][0]
    return f"case names: {next(name for name in sorted(of) if of[name] == largest)} …"


def _from_files(root: Path, names: Collection[str]) -> tuple[dict[str, str], str, tuple[str, ...]]:
    """Patients by case, the name of the file that told, and notices; the manifest tells if it has the columns."""
    if (root / PATIENTS).is_file():
        rows = _read_columns(root / PATIENTS)
        if rows is None:
            raise DataError(f"{PATIENTS} lacks a column", file=root / PATIENTS, allowed="a first line 'case,patient'")
        of, notices = _checked(rows, root / PATIENTS, names)
        return of, PATIENTS, notices
    rows = _read_columns(root / CASE_TABLE) if (root / CASE_TABLE).is_file() else None
    if not rows:
        return {}, "", ()
    of, notices = _checked(rows, root / CASE_TABLE, names)
    return of, CASE_TABLE, notices


def _read_columns(path: Path) -> list[tuple[str, str]] | None:
    """Case and patient of every row that has both; None without such columns."""
    columns, rows = read_csv(path)
    patient_column = next((c for c in _COLUMNS if c in columns), None)
    if "case" not in columns or patient_column is None:
        return None
    indices = columns.index("case"), columns.index(patient_column)
    pairs = [tuple(cells[i].strip() for i in indices) for _, cells in rows if len(cells) > max(indices)]
    return [(case, patient) for case, patient in pairs if case and patient]


def _checked(rows: list[tuple[str, str]], path: Path, names: Collection[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Patient of each case of the dataset, and notices on rows that name no case and cases without a row."""
    of: dict[str, str] = {}
    for case, patient in rows:
        if of.setdefault(case, patient) != patient:
            raise DataError("a case has two patients", case=case, file=path, found=f"{of[case]}, {patient}", fix="keep one line")
    cases = set(names)
    known = {case: patient for case, patient in of.items() if case in cases}
    strange = sorted(of.keys() - known.keys())
    if not known:
        found, hint = (strange[0], nearest(strange[0], names)) if strange else ("no line with both", "")
        allowed = f"case names, such as {min(names, default='none')}"
        fix = "correct the names in it, or remove the file" if path.name == PATIENTS else f"correct them, or use {PATIENTS}"
        raise DataError(f"the table names no case of this dataset{hint}", file=path, found=found, allowed=allowed, fix=fix)
    notices: list[str] = []
    if strange:
        notices.append(f"{path.name} names what is no case of the dataset: {first_few(strange)}{nearest(strange[0], names)}")
    if missing := sorted(cases - known.keys()):
        notices.append(
            f"{path.name} has no line for {first_few(missing)}: each is taken for a patient of its own; add lines before training"
        )
    return known, tuple(notices)


def _twins(digests: Mapping[str, str]) -> list[list[str]]:
    """Groups of cases with equal files, sorted."""
    groups = defaultdict(list)
    for name in sorted(digests):
        groups[digests[name]].append(name)
    return [cases for cases in groups.values() if len(cases) > 1]


def _joined(of: Mapping[str, str], groups: Iterable[Collection[str]]) -> dict[str, str]:
    """Patients after the cases of each group have become one patient's, who takes the first of the names in sorted order."""
    joined = dict(of)
    for group in groups:
        merged = {joined[case] for case in group}
        joined = {case: min(merged) if patient in merged else patient for case, patient in joined.items()}
    return joined
