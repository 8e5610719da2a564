"""Patients of cases: from a column of a table, else from the names of cases, and from equal files.

A model that has learnt from one image of a patient and is validated on another seems better than it
is. So folds keep the cases of a patient together.
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

# What names a part of a patient's data. Anything else, a bare number above all, may just as well
# name the patient.
_NUMBERED = "frame|phase|visit|session|ses|scan|timepoint|tp|time|day|week|month|year|slice|run|study|exam"
_LETTER = "t|v|z"  # with their number only: P12_t1
_ALONE = "baseline|bl|follow[-_ ]?up|fu|pre[-_ ]?op|post[-_ ]?op|pre|post|left|right|ed|es"
_PART = rf"(?:(?:{_NUMBERED})[-_. ]?\d+[a-z]?|(?:{_LETTER})\d+|(?:{_ALONE})(?:[-_]?\d)?)"
_PATIENT_AND_PARTS = re.compile(
    rf"(?P<patient>.+?)(?P<parts>(?:[-_. ]{_PART})+(?:-\d{{1,2}})?)",  # -044-1: a second image
    re.IGNORECASE,
)
# Naming schemes whose first part is the patient: BIDS (https://bids-specification.readthedocs.io),
# and BraTS since 2023 (BraTS-GLI-00005-100 is time point 100 of patient 00005).
_SCHEMES = (re.compile(r"(?P<patient>sub-[A-Za-z0-9]+)(?:_.+)?"), re.compile(r"(?P<patient>BraTS-[A-Z]+-\d{5})-\d{3}"))
# "spleen_scan_12" may be the twelfth patient; nobody calls the twelfth patient "spleen_visit_12" or
# "spleen_left".
_CERTAIN_PART = re.compile(rf"[-_. ](?:visit|session|ses|timepoint|tp|time|day|week|month|year|{_ALONE})(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Patients:
    """Patients of the cases of a dataset.

    Args:
        by_case: patient of each case that is not a patient of its own.
        source: the source of this knowledge, to be read behind "from"; empty if there is none.
        notices: sentences on cases that deserve a look.
    """

    by_case: dict[str, str] = field(default_factory=dict)
    source: str = ""
    notices: tuple[str, ...] = ()

    def summary(self, names: Collection[str]) -> str:
        """Number of patients of these cases in one line; empty where each case is its own patient."""
        n = len({self.by_case.get(name, name) for name in names})
        return (
            f"{n} patients with {len(names)} cases (from {self.source}), folds keep each patient together"
            if n < len(names)
            else ""
        )


def find_patients(root: Path, names: Collection[str], digests: Mapping[str, str]) -> Patients:
    """Find the patients of cases.

    The first source that knows anything decides: `patients.csv` (columns case, patient), such
    columns of `cases.csv`, the names. Cases with equal files belong to one patient in any case.

    Args:
        names: all cases of the dataset.
        digests: digest of the files of each case that can be used.

    Raises:
        DataError: patients.csv is malformed, gives a case two patients, or has no case of this
            dataset.
    """
    by_case, source, notices = _patients_from_tables(root, names)
    if not source:
        by_case = patients_from_names(names)
        source = _example_name(by_case) if by_case else ""
    equal = _equal_cases(digests)
    equal_notices = [
        f"cases {' and '.join(cases)} hold the same files: all but one can go; they are kept in one fold" for cases in equal
    ]
    merged = _merge_patients({name: by_case.get(name, name) for name in names}, equal)
    by_case = {name: patient for name, patient in merged.items() if patient != name}
    source = (source or f"equal files: {', '.join(equal[0])}") if by_case else ""
    return Patients(by_case, source, (*notices, *equal_notices))


def patients_from_names(names: Iterable[str]) -> dict[str, str]:
    """Patient of each case whose name is a patient followed by a visit, frame, session, slice, side
    or the like.

    `patient001_frame12`, `sub-01_ses-02`, `P12_t1`, `0003-week-012` belong to `patient001`,
    `sub-01`, `P12` and `0003`; `liver_12` is its own patient. Empty unless some patient has several
    cases, and if all cases would be one patient's, since the common part then names the dataset.
    """
    ordered = sorted(set(names))
    by_case = {name: patient for name in ordered if (patient := _patient_part(name))}
    n_patients = len({by_case.get(name, name) for name in ordered})
    return by_case if 1 < n_patients < len(ordered) else {}


def _patient_part(name: str) -> str | None:
    """The part of a case name that names the patient; None where none can be told."""
    for scheme in _SCHEMES:
        if match := scheme.fullmatch(name):
            return match["patient"]
    match = _PATIENT_AND_PARTS.fullmatch(name)
    if match and (any(c.isdigit() for c in match["patient"]) or _CERTAIN_PART.match(match["parts"])):
        return match["patient"]
    return None


def _example_name(by_case: Mapping[str, str]) -> str:
    """Source of patients from names: a case of the patient with most of them as an example."""
    largest = Counter(by_case.values()).most_common(1)[0][0]
    return f"case names: {next(name for name in sorted(by_case) if by_case[name] == largest)} …"


def _patients_from_tables(root: Path, names: Collection[str]) -> tuple[dict[str, str], str, tuple[str, ...]]:
    """Patients by case, the name of the table they are from, and notices; the table of cases counts
    if it has the columns.
    """
    if (root / PATIENTS).is_file():
        rows = _read_columns(root / PATIENTS)
        if rows is None:
            raise DataError(f"{PATIENTS} lacks a column", file=root / PATIENTS, allowed="a first line 'case,patient'")
        by_case, notices = _check_rows(rows, root / PATIENTS, names)
        return by_case, PATIENTS, notices
    rows = _read_columns(root / CASE_TABLE) if (root / CASE_TABLE).is_file() else None
    if not rows:
        return {}, "", ()
    by_case, notices = _check_rows(rows, root / CASE_TABLE, names)
    return by_case, CASE_TABLE, notices


def _read_columns(path: Path) -> list[tuple[str, str]] | None:
    """Case and patient of every row that has both; None without such columns."""
    columns, rows = read_csv(path)
    patient_column = next((c for c in _COLUMNS if c in columns), None)
    if "case" not in columns or patient_column is None:
        return None
    indices = columns.index("case"), columns.index(patient_column)
    pairs = [tuple(cells[i].strip() for i in indices) for _, cells in rows if len(cells) > max(indices)]
    return [(case, patient) for case, patient in pairs if case and patient]


def _check_rows(rows: list[tuple[str, str]], path: Path, names: Collection[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Patient of each case of the dataset, and notices on rows that name no case and cases without
    a row.
    """
    listed: dict[str, str] = {}
    for case, patient in rows:
        if listed.setdefault(case, patient) != patient:
            raise DataError(
                "a case has two patients", case=case, file=path, found=f"{listed[case]}, {patient}", fix="keep one line"
            )
    cases = set(names)
    by_case = {case: patient for case, patient in listed.items() if case in cases}
    unknown = sorted(listed.keys() - cases)
    if not by_case:
        first, hint = (unknown[0], nearest(unknown[0], names)) if unknown else ("no line with both", "")
        allowed = f"case names, such as {min(names, default='none')}"
        fix = "correct the names in it, or remove the file" if path.name == PATIENTS else f"correct them, or use {PATIENTS}"
        raise DataError(f"the table names no case of this dataset{hint}", file=path, found=first, allowed=allowed, fix=fix)
    notices: list[str] = []
    if unknown:
        notices.append(f"{path.name} has cases that the dataset lacks: {first_few(unknown)}{nearest(unknown[0], names)}")
    if missing := sorted(cases - by_case.keys()):
        notices.append(
            f"{path.name} has no line for {first_few(missing)}: each counts as a patient of its own; add lines before training"
        )
    return by_case, tuple(notices)


def _equal_cases(digests: Mapping[str, str]) -> list[list[str]]:
    """Groups of cases with equal files, sorted."""
    groups = defaultdict(list)
    for name in sorted(digests):
        groups[digests[name]].append(name)
    return [cases for cases in groups.values() if len(cases) > 1]


def _merge_patients(by_case: Mapping[str, str], groups: Iterable[Collection[str]]) -> dict[str, str]:
    """Patients by case, those of each group merged into one, who has the first of their names in
    sorted order.
    """
    merged = dict(by_case)
    for group in groups:
        same = {merged[case] for case in group}
        merged = {case: min(same) if patient in same else patient for case, patient in merged.items()}
    return merged
