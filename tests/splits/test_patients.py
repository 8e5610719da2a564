"""Who is whose: by case names, by a column, by equal files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.errors import DataError
from autoseg.splits.patients import Patients, find_patients, patients_from_names


@pytest.mark.parametrize(
    ("names", "patients"),
    [
        (("patient001_frame01", "patient001_frame12", "patient002_frame01"), ("patient001", "patient001", "patient002")),  # ACDC
        (("sub-01_ses-02", "sub-01_ses-pre_T1w", "sub-02"), ("sub-01", "sub-01", "sub-02")),  # BIDS
        (("0003-week-012", "0003-week-050-1", "0004-week-000"), ("0003", "0003", "0004")),  # LUMIERE
        (("BraTS-GLI-00005-100", "BraTS-GLI-00005-101", "BraTS-GLI-00006-100"), (*["BraTS-GLI-00005"] * 2, "BraTS-GLI-00006")),
        (("A0S9V9_ED", "A0S9V9_ES", "A1D0Q7_ED"), ("A0S9V9", "A0S9V9", "A1D0Q7")),  # M&Ms
        (("P12_t1", "P12_t2", "P13_t1"), ("P12", "P12", "P13")),
        (("p1_visit2_slice003", "p1_visit1_slice01", "p2"), ("p1", "p1", "p2")),
        (("knee7.left", "knee7.RIGHT", "knee8.left"), ("knee7", "knee7", "knee8")),
        (("anna_baseline", "anna_follow-up", "anna_fu2", "ben_pre", "ben_postop"), ("anna",) * 3 + ("ben",) * 2),
        (("JD_Visit_1", "JD_Visit_2", "MK_Visit_1"), ("JD", "JD", "MK")),
        (("P12", "P12_followup", "P13"), ("P12", "P12", "P13")),
        (("liver_12", "P1_tp0", "P1_tp1"), ("liver_12", "P1", "P1")),
    ],
)
def test_patients_in_names(names: tuple[str, ...], patients: tuple[str, ...]) -> None:
    of = patients_from_names(names)
    assert tuple(of.get(name, name) for name in names) == patients


@pytest.mark.parametrize(
    "names",
    [
        ("hippocampus_001", "hippocampus_003", "hippocampus_004"),
        ("BraTS_001", "BraTS_002", "BraTS2021_00000", "BraTS2021_00002"),
        ("liver_12", "liver_13", "spleen_12", "spleen_13"),
        ("KiTS-00001", "KiTS-00002", "s0011", "s0012", "volume-1", "volume-2"),
        ("liver_v2_001", "liver_v2_002", "spleen_v2_001", "spleen_v2_002"),  # a version, not a visit
        ("liver_scan_1", "liver_scan_2", "spleen_scan_1", "spleen_scan_2"),
        ("site1_pre_001", "site1_pre_002", "site2_pre_001", "site2_pre_002"),
        ("study3_scan1", "study3_scan2", "study3_scan3"),  # all are one patient's or nobody's
        ("P1_t1", "P2_t1", "P3_t1"),  # a modality: no patient has two
        ("frame01", "frame02", "left", "right"),
        ("patientframe01", "patientframe02", "other"),
        ("P1_postal", "P1_preview", "P1_times", "P2"),
        (),
    ],
)
def test_names_without_patients(names: tuple[str, ...]) -> None:
    assert patients_from_names(names) == {}


def table(folder: Path, text: str, name: str = "patients.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_a_column_takes_precedence_over_names(tmp_path: Path) -> None:
    names = ["P1_t1", "P1_t2", "P2_t1"]
    by_names = find_patients(tmp_path, names, {})
    assert by_names == Patients({"P1_t1": "P1", "P1_t2": "P1", "P2_t1": "P2"}, "case names: P1_t1 …")
    table(tmp_path, "image,case,group\nx,P1_t1,a\ny,P1_t2,b\nz,P2_t1,b\n", "cases.csv")
    assert find_patients(tmp_path, names, {}) == Patients({"P1_t1": "a", "P1_t2": "b", "P2_t1": "b"}, "cases.csv")
    table(tmp_path, "case,patient,sex\nP1_t1,m,f\nP1_t2,n,f\nP2_t1,m,f\n")
    of = {"P1_t1": "m", "P1_t2": "n", "P2_t1": "m"}
    assert find_patients(tmp_path, names, {}) == Patients(of, "patients.csv")


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffCase;Patient\r\n a ;1\r\nb;1\r\nc;2\r\n",
        "patient\tnote\tcase\n1\tx, y; z\ta\n1\t\tb\n2\t\tc\n",
        'case,group\na,1\n\n"b",1\nc,2',
    ],
)
def test_tables_of_several_programs(tmp_path: Path, text: str) -> None:
    assert find_patients(table(tmp_path, text), "abc", {}).by_case == {"a": "1", "b": "1", "c": "2"}


def test_a_table_of_cases_without_patients(tmp_path: Path) -> None:
    names, of = ["P1_t1", "P1_t2", "P2"], {"P1_t1": "P1", "P1_t2": "P1"}
    for text in ("", "case,image\nP1_t1,x\n", "image,patient\nx,y\n", "case,patient\nP1_t1,\nP1_t2,\nP2,\n"):
        assert find_patients(table(tmp_path, text, "cases.csv"), names, {}).by_case == of


def test_unknown_and_missing_cases_in_a_table(tmp_path: Path) -> None:
    patients = find_patients(table(tmp_path, "case,patient\nliver_1,x\nliver_2,x\nliver_03,y\nliver_4,\nliver_1,x\n"), NAMES, {})
    assert patients.by_case == {"liver_1": "x", "liver_2": "x"}
    assert list(patients.notices) == [
        "patients.csv has cases that the dataset lacks: liver_03 - did you mean 'liver_3'?",
        "patients.csv has no line for liver_3, liver_4: each counts as a patient of its own; add lines before training",
    ]


NAMES = ["liver_1", "liver_2", "liver_3", "liver_4"]


def test_unusable_tables(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"case liver_1: a case has two patients; file: .*patients.csv; found: x, y; fix: keep one line"
    ):
        find_patients(table(tmp_path, "case,patient\nliver_1,x\nliver_1,y\n"), NAMES, {})
    with pytest.raises(
        DataError, match=r"no case of this dataset - did you mean 'liver_1'\?.*found: liver_01; allowed: .*liver_1; fix: .*remove"
    ):
        find_patients(table(tmp_path, "case,patient\nliver_01,x\n"), NAMES, {})
    with pytest.raises(DataError, match="found: no line with both"):
        find_patients(table(tmp_path, "case,patient\n"), NAMES, {})
    for text in ("", "liver_1,x\n", "case,person\nliver_1,x\n"):
        with pytest.raises(DataError, match=r"patients.csv lacks a column.*allowed: a first line 'case,patient'"):
            find_patients(table(tmp_path, text), NAMES, {})
    (tmp_path / "patients.csv").write_bytes("case,patient\nliver_1,Müller\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"not UTF-8 text.*fix: save it as CSV UTF-8"):
        find_patients(tmp_path, NAMES, {})
    (tmp_path / "patients.csv").unlink()
    with pytest.raises(DataError, match=r"cases.csv; found: a; .*fix: correct them, or use patients.csv"):
        find_patients(table(tmp_path, "case,patient\na,x\n", "cases.csv"), NAMES, {})


def test_equal_files_belong_to_one_patient(tmp_path: Path) -> None:
    found = find_patients(tmp_path, "dabc", {"a": "1", "b": "2", "c": "1", "d": "3"})
    notice = "cases a and c hold the same files: all but one can go; they are kept in one fold"
    assert found == Patients({"c": "a"}, "equal files: a, c", (notice,))
    assert found.summary("abcd") == "3 patients with 4 cases (from equal files: a, c), folds keep each patient together"
    assert find_patients(tmp_path, "abc", {"a": "1", "b": "2"}) == Patients()
    assert Patients().summary("abc") == ""


def test_equal_files_join_patients_of_a_table(tmp_path: Path) -> None:
    table(tmp_path, "case,patient\na,x\nb,y\nc,y\nd,z\n")
    found = find_patients(tmp_path, "abcd", {"a": "1", "b": "1", "c": "2", "d": "3"})
    assert (found.by_case, found.source) == ({"a": "x", "b": "x", "c": "x", "d": "z"}, "patients.csv")


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), unique=True),
    st.sampled_from(["_t", "-visit-", "_frame0", ".scan_"]),
)
def test_generated_names_are_parsed(ids: list[tuple[int, int]], part: str) -> None:
    names = {f"P{patient}{part}{visit}": f"P{patient}" for patient, visit in ids}
    grouped = 1 < len(set(names.values())) < len(names)
    assert patients_from_names(names) == (names if grouped else {})


def test_a_name_with_the_separator_in_it_is_not_cut(tmp_path: Path) -> None:
    (tmp_path / "patients.csv").write_text("case,patient\na,Miller, J.\nb,Miller, A.\n")
    with pytest.raises(
        DataError, match=r"^the table has a row with more cells than columns; .*3 cells in line 2.*fix: put a cell"
    ):
        find_patients(tmp_path, ["a", "b"], {})
    (tmp_path / "patients.csv").write_text('case,patient,\na,"Miller, J.",,\nb,"Miller, A.",\n')
    assert find_patients(tmp_path, ["a", "b"], {}).by_case == {"a": "Miller, J.", "b": "Miller, A."}
