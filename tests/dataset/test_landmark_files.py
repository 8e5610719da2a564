"""Datasets with landmarks: where their files are found, and what the landmarks are called."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from autoseg.dataset import Case, LandmarkRules, find_dataset, is_dataset, open_dataset, read_description
from autoseg.dataset.landmark_files import read_case_points
from autoseg.errors import DataError, LabelError, UsageError
from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import Landmarks, LandmarkSet, State
from autoseg.io import write_landmark_table, write_landmarks

CHANNEL = {"channel_names": {"0": "CT"}}
LIVER = {**CHANNEL, "labels": {"background": 0, "liver": 1}}
NONE = LabelSet((), ())


def points(*names: str, state: State = State.PRESENT) -> Landmarks:
    at = np.full((len(names), 3), 1.0 if state == State.PRESENT else np.nan)
    return Landmarks(names, at, np.full(len(names), state))


def lay_out(root: Path, about: Any = None, files: tuple[str, ...] = (), **landmarks: Landmarks) -> Path:
    """A dataset with the cases a and b, whose images are empty files; `files` are landmark files,
    `{}` stands for the case.
    """
    (root / "imagesTr").mkdir(parents=True)
    for name in "ab":
        (root / "imagesTr" / f"{name}_0000.nii.gz").touch()
        for file in files:
            write_landmarks(root / file.format(name), landmarks.get(name, points("nose", "chin")), name)
    if about is not None:
        (root / "dataset.json").write_text(json.dumps(about))
    return root


def put_png(path: Path, value: int = 7) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(np.full((4, 6), value, np.uint8)).save(path)
    return path


@pytest.mark.parametrize("folder", ["landmarksTr", "landmarks"])
@pytest.mark.parametrize("ending", [".mrk.json", ".fcsv", ".json", ".csv"])
def test_a_file_for_each_case(tmp_path: Path, folder: str, ending: str) -> None:
    root = lay_out(tmp_path / "x", CHANNEL, (f"{folder}/{{}}{ending}",))
    dataset = open_dataset(root)
    assert (dataset.labels, dataset.landmarks, dataset.landmark_rules) == (NONE, LandmarkSet(("chin", "nose")), LandmarkRules())
    images = root / "imagesTr"
    assert dataset.cases == tuple(Case(n, (images / f"{n}_0000.nii.gz",), None, root / folder / f"{n}{ending}") for n in "ab")


@pytest.mark.parametrize("table", ["landmarks.csv", "landmarksTr/landmarks.csv", "landmarks/landmarks.csv"])
def test_one_table_for_all_cases(tmp_path: Path, table: str, caplog: pytest.LogCaptureFixture) -> None:
    root = lay_out(tmp_path / "x", {**CHANNEL, "landmarks": ["nose", "chin"]})
    write_landmark_table(root / table, {"b.nii.gz": points("nose", "chin"), "c": points("nose")})
    with caplog.at_level(logging.WARNING, "autoseg"):
        dataset = open_dataset(root)
    assert dataset.landmarks.names == ("nose", "chin")
    assert [c.landmarks for c in dataset.cases] == [None, root / table]
    assert caplog.messages == ["note: landmarks without an image: c", "note: 1 of 2 cases have no landmarks: a"]


def test_files_may_have_the_name_of_the_image(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "x", CHANNEL, ("landmarksTr/{}_0000.csv",))
    assert [c.landmarks and c.landmarks.name for c in open_dataset(root).cases] == ["a_0000.csv", "b_0000.csv"]


def test_structures_and_landmarks(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "x", LIVER, ("landmarksTr/{}.mrk.json",))
    dataset = open_dataset(root)
    assert (dataset.labels.names, dataset.landmarks.names) == (("liver",), ("chin", "nose"))
    assert dataset.cases[0].label == root / "labelsTr" / "a.nii.gz"
    assert dataset.cases[0].landmarks == root / "landmarksTr" / "a.mrk.json"
    (root / "dataset.json").write_text(json.dumps({**LIVER, "landmarks": []}))  # they are none of ours
    dataset = open_dataset(root)
    assert (dataset.landmarks, dataset.cases[0].landmarks) == (LandmarkSet(()), None)


def test_datasets_without_landmarks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "autoseg"):
        dataset = open_dataset(lay_out(tmp_path / "x", LIVER))
    assert (dataset.landmarks, dataset.landmark_rules, caplog.messages) == (LandmarkSet(()), LandmarkRules(), [])
    assert [c.landmarks for c in dataset.cases] == [None, None]


def test_decathlon_entries_may_name_files(tmp_path: Path) -> None:
    entries = [{"image": f"imagesTr/{n}_0000.nii.gz", "landmarks": f"points/{n}.json"} for n in "ab"]
    root = lay_out(tmp_path / "x", {**CHANNEL, "landmarks": ["nose"], "training": entries}, a=points("nose"))
    for name in "ab":
        write_landmarks(root / "points" / f"{name}.json", points("nose"), f"{name}_0000")
    assert [c.landmarks for c in open_dataset(root).cases] == [root / "points" / "a.json", root / "points" / "b.json"]


def test_a_column_of_the_table_of_cases(tmp_path: Path) -> None:
    root = tmp_path / "x"
    for name in "ab":
        put_png(root / f"{name}.png")
    write_landmark_table(root / "p.csv", {"a": points("eye_R", "eye_L")}, pixels=True)
    (root / "cases.csv").write_text("case,image,landmarks\na,a.png,p.csv\nb,b.png,\n")
    dataset = open_dataset(root)
    assert (dataset.channels, dataset.labels) == (("image",), NONE)
    assert dataset.landmarks == LandmarkSet(("eye_L", "eye_R"), (("eye_L", "eye_R"),))
    assert [c.landmarks for c in dataset.cases] == [root / "p.csv", None]
    (root / "cases.csv").write_text("case,image,landmarks\na,a.png,p.txt\n")
    with pytest.raises(
        DataError, match=r"case a: column 'landmarks' must name a file of landmarks; .*found: 'p\.txt' in line 2; all"
    ):
        open_dataset(root)


def test_two_folders_without_dataset_json(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "x"
    for name in ("a_0000", "a_0001", "b_0000", "b_0001"):
        put_png(root / "images" / f"{name}.png")
    assert not is_dataset(root)
    write_landmark_table(root / "landmarks.csv", {n: points("lm10", "lm2", "lm1") for n in "ab"}, pixels=True)
    assert find_dataset(str(root), []) == root.resolve()
    with caplog.at_level(logging.WARNING, "autoseg"):
        dataset = open_dataset(root)
    assert (dataset.channels, dataset.labels, dataset.landmarks.names) == (("image 1", "image 2"), NONE, ("lm1", "lm2", "lm10"))
    assert [(c.name, c.label) for c in dataset.cases] == [("a", None), ("b", None)]
    assert caplog.messages == ["note: dataset.json names no landmarks; the files have 3: lm1, lm2, lm10"]
    put_png(root / "labels" / "a.png", 0)
    with pytest.raises(DataError, match="no label map contains a structure"):
        open_dataset(root)  # someone meant to have structures, too


def test_folders_without_annotation(tmp_path: Path) -> None:
    (tmp_path / "x" / "images").mkdir(parents=True)
    (tmp_path / "x" / "landmarks").mkdir()
    with pytest.raises(UsageError, match=r"label maps or landmarks; .*found: images, landmarks; fix: point -d at .*or landmarks"):
        find_dataset(str(tmp_path / "x"), [])


@pytest.mark.parametrize(
    ("more", "pairs"),
    [
        ({}, (("Eye_L", "eye_R"),)),
        ({"symmetric_pairs": [["chin", "nose"]]}, (("chin", "nose"),)),
        ({"pairs": [["chin", "nose"]]}, (("chin", "nose"),)),
        ({"pairs": []}, ()),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_pairs(tmp_path: Path, more: dict[str, Any], pairs: tuple[tuple[str, str], ...], named: bool) -> None:
    names = ("eye_R", "nose", "Eye_L", "chin", "ear_L")
    about = {**CHANNEL, **more, **({"landmarks": list(names)} if named else {})}
    root = lay_out(tmp_path / "x", about, ("landmarks/{}.json",), a=points(*names), b=points(*names))
    found = open_dataset(root).landmarks
    assert found.pairs == pairs
    assert found.names == (names if named else tuple(sorted(names)))
    assert read_description(root).landmarks == (found if named else LandmarkSet(()))


def test_names_in_descriptions(tmp_path: Path) -> None:
    """Numbers as labels and names as descriptions, as in the AFIDs project."""
    root = lay_out(tmp_path / "x", CHANNEL, ("landmarksTr/{}.fcsv",), a=points("1", "2"), b=points("1", "2"))
    assert open_dataset(root).landmarks.names == ("1", "2")
    for name in "ab":
        file = root / "landmarksTr" / f"{name}.fcsv"
        file.write_text(file.read_text().replace(",1,,", ",1,AC,").replace(",2,,", ",2,PC,"))
    assert open_dataset(root).landmarks.names == ("AC", "PC")
    file.write_text(file.read_text().replace("PC", "AC"))  # no names, then
    assert open_dataset(root).landmarks.names == ("1", "2", "AC", "PC")


def test_notes_on_assumptions(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = lay_out(
        *(
            tmp_path / "x",
            {**CHANNEL, "landmarks": ["nose", "chin", "ear"], "unlisted_landmarks": "unlabelled"},
            ("landmarks/{}.csv",),
        ),
        a=points("nose"),
        b=points("nose", "chin", "ear", state=State.ABSENT),
    )
    (root / "landmarks" / "a.csv").write_text("landmark,x,y,z\nnose,1,2,3\n")
    with caplog.at_level(logging.WARNING, "autoseg"):
        dataset = open_dataset(root)
    assert dataset.landmark_rules == LandmarkRules((), State.UNLABELLED)
    assert caplog.messages == [
        "note: tables without a column 'space' are in LPS mm: a.csv",
        "note: landmarks that no case has: chin, ear",
        "note: 2 of 6 landmarks are not listed in the files of their cases (a: 1 of 3) and count as unlabelled; "
        'if they are not in the image, say "unlisted_landmarks": "absent" in dataset.json',
    ]


def test_note_on_an_old_point_list(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = lay_out(tmp_path / "x", {**CHANNEL, "landmarks": ["nose", "chin"]}, ("landmarks/{}.fcsv",))
    for file in (root / "landmarks").iterdir():
        file.write_text(file.read_text().replace("# CoordinateSystem = LPS\n", ""))
    with caplog.at_level(logging.WARNING, "autoseg"):
        open_dataset(root)
    assert caplog.messages == ["note: point lists that do not state their coordinate system are taken as RAS: a.fcsv, b.fcsv"]


def test_a_faulty_file_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = lay_out(tmp_path / "x", {**CHANNEL, "landmarks": ["nose", "chin"]}, ("landmarks/{}.csv",))
    (root / "landmarks" / "b.csv").write_text("")
    with caplog.at_level(logging.WARNING, "autoseg"):
        assert len(open_dataset(root).cases) == 2
    assert [m.split(";")[0] for m in caplog.messages] == [
        "note: 1 files of landmarks cannot be used, the first: the file is empty"
    ]
    (root / "landmarks" / "a.csv").write_text("")
    with pytest.raises(
        DataError, match=r"no file of landmarks can be used; file: .*x; found: 2 faulty, the first: the file is empty"
    ):
        open_dataset(root)


def test_label_maps_of_spots(tmp_path: Path) -> None:
    """nnLandmark's layout: each landmark a value in labelsTr; or beside label maps of structures,
    in landmarksTr.
    """
    about = {**CHANNEL, "landmarks": {"background": 0, "nose": 7, "ear_R": 2, "ear_L": 3}}
    root = lay_out(tmp_path / "x", about)
    dataset = open_dataset(root)
    assert dataset.landmarks == LandmarkSet(("ear_R", "ear_L", "nose"), (("ear_L", "ear_R"),))
    assert (dataset.labels, dataset.landmark_rules) == (NONE, LandmarkRules((2, 3, 7)))
    assert [(c.label, c.landmarks) for c in dataset.cases] == [(None, root / "labelsTr" / f"{n}.nii.gz") for n in "ab"]
    (root / "dataset.json").write_text(json.dumps({**about, **LIVER}))
    with pytest.raises(
        DataError, match=r"label maps show either structures or landmarks; .*found: values for both.*fix: put lab"
    ):
        open_dataset(root)
    (root / "landmarksTr").mkdir()
    (root / "landmarksTr" / "b.nii.gz").touch()
    assert [(c.label, c.landmarks) for c in open_dataset(root).cases] == [
        (root / "labelsTr" / "a.nii.gz", None),
        (root / "labelsTr" / "b.nii.gz", root / "landmarksTr" / "b.nii.gz"),
    ]
    (root / "cases.csv").write_text("case,image,label,landmarks\na,a.nii,l.nii,s.nii\n")
    (case,) = open_dataset(root).cases
    assert (case.label, case.landmarks) == (root / "l.nii", root / "s.nii")


def test_spots_of_other_cases(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = lay_out(tmp_path / "x", {**LIVER, "landmarks": {"nose": 1}})
    (root / "landmarksTr").mkdir()
    (root / "landmarksTr" / "patient_a.nii.gz").touch()
    with pytest.raises(
        DataError, match=r"the landmarks are of none of the cases; file: .*landmarksTr; found: patient_a; allowed: a, b"
    ):
        open_dataset(root)
    (root / "landmarksTr" / "a.nii.gz").touch()
    assert [c.landmarks is None for c in open_dataset(root).cases] == [False, True]
    assert caplog.messages[-2:] == ["note: landmarks without an image: patient_a", "note: 1 of 2 cases have no landmarks: b"]


@pytest.mark.parametrize("about", [CHANNEL, LIVER])
def test_points_where_spots_should_be(tmp_path: Path, about: dict[str, Any]) -> None:
    """They count unless there are label maps with spots."""
    root = lay_out(tmp_path / "x", {**about, "landmarks": {"nose": 1, "chin": 2}}, ("landmarksTr/{}.mrk.json",))
    dataset = open_dataset(root)
    assert [c.landmarks and c.landmarks.name for c in dataset.cases] == ["a.mrk.json", "b.mrk.json"]
    assert dataset.landmarks.names == ("nose", "chin")
    maps = root / ("landmarksTr" if "labels" in about else "labelsTr")
    maps.mkdir(exist_ok=True)
    (maps / "a.nii.gz").touch()
    assert open_dataset(root).cases[0].landmarks == maps / "a.nii.gz"


def test_a_case_may_lack_its_label_map(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = lay_out(tmp_path / "x", LIVER, ("landmarksTr/{}.mrk.json",))
    (root / "labelsTr").mkdir()
    assert [c.label for c in open_dataset(root).cases] == [
        root / "labelsTr" / f"{n}.nii.gz" for n in "ab"
    ]  # none there: a mistake
    (root / "labelsTr" / "a.nii.gz").touch()
    caplog.clear()
    assert [c.label for c in open_dataset(root).cases] == [root / "labelsTr" / "a.nii.gz", None]
    assert (
        "note: 1 of 2 cases have landmarks, but no label map, so that nothing is known of their structures: b" in caplog.messages
    )
    (root / "landmarksTr" / "b.mrk.json").unlink()
    assert all(c.label for c in open_dataset(root).cases)  # nothing is known of b, which is told when it is read


def test_a_name_that_may_be_misspelt(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = lay_out(tmp_path / "x", CHANNEL, ("landmarksTr/{}.csv",), a=points("lm1", "lm2"), b=points("lm1", "lm2", "lm3"))
    open_dataset(root)
    assert not [m for m in caplog.messages if "misspelt" in m]  # lm3 is new, b has the other two
    for name, words in {"c": ("nose", "left ear"), "a": ("nose", "left ear"), "b": ("nose", "lefft ear")}.items():
        (root / "imagesTr" / f"{name}_0000.nii.gz").touch()
        write_landmarks(root / "landmarksTr" / f"{name}.csv", points(*words), name)
    open_dataset(root)
    assert (
        "note: a name may be misspelt, and counts as a landmark of its own: 'lefft ear' in b only - did you mean 'left ear'?"
        in caplog.messages
    )


def test_rare_and_misspelt_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = lay_out(tmp_path / "x", CHANNEL)
    for i in range(20):
        words = [
            "nose" if i % 2 else "Nose",  # by two people: as many this way as that
            "lefft-ear" if i in (3, 4) else "left ear",
            "right_ear" if i < 4 else "right ear",
            *(["chin 1"] if i == 7 else ["chin"]),
            "tooth 18" if i == 9 else "tooth 17",
            *(["tooth a"] if i % 5 < 2 else ["tooth b"] if i % 5 < 4 else []),  # neither is rare
        ]
        (root / "imagesTr" / f"c{i}_0000.nii.gz").touch()
        write_landmarks(root / "landmarksTr" / f"c{i}.csv", points(*words), f"c{i}")
    open_dataset(root)
    (message,) = [m for m in caplog.messages if "misspelt" in m]
    assert message == (
        "note: a name may be misspelt, and counts as a landmark of its own: "
        "'Nose' in c0, c2, c4 and 7 more only - did you mean 'nose'?, 'chin 1' in c7 only - did you mean 'chin'?, "
        "'lefft-ear' in c3, c4 only - did you mean 'left ear'? and 1 more"
    )


def test_a_table_of_all_cases_names_them(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "x", CHANNEL)
    (root / "landmarks.csv").write_text("landmark,x,y,z\nnose,1,2,3\n")
    with pytest.raises(
        DataError,
        match=r"needs a column 'case'; file: .*landmarks\.csv; allowed: case, landmark, x, y and, .*; fix: add it",
    ):
        open_dataset(root)


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        (
            {"landmarks": "nose"},
            DataError,
            r"'landmarks' must list names, or give each.*found: \"nose\"; allowed: \[\"nose\", \"chin",
        ),
        ({"landmarks": [1]}, DataError, r"'landmarks' must list names"),
        ({"landmarks": {"nose": "1"}}, DataError, r'values of landmarks must be whole numbers; .*found: nose: "1"'),
        ({"landmarks": ["a\x1bb"]}, DataError, r"a landmark needs a name that can be read; .*found: 'a\\x1bb'"),
        (
            {"unlisted_landmarks": ["absent"]},
            DataError,
            r"'unlisted_landmarks' is unknown - did you mean 'absent'.*found: \[\"absent\"\]",
        ),
        ({"landmarks": {"nose": 1, "chin": 1}}, LabelError, r"label value used twice; file: .*json; found: 1"),
        ({"landmarks": {"nose": -1}}, LabelError, "label values must be ascending integers"),
        ({"landmarks": ["nose", "nose"]}, LabelError, r"each landmark needs a name of its own; file: .*json; found: nose"),
        ({"landmarks": ["nose"], "pairs": ["nose"]}, DataError, r"pairs must be lists of two names; .*allowed: \[\[\"eye_L"),
        (
            {"landmarks": ["nose"], "pairs": [["nose", "x"]]},
            LabelError,
            r"a pair names an unknown landmark; file: .*json; found: x",
        ),
        (
            {"landmarks": ["nose"], "unlisted_landmarks": "absnt"},
            DataError,
            r"'unlisted_landmarks' is unknown - did you mean 'absent'\?; .*found: absnt; allowed: absent, unlabelled",
        ),
        ({"landmarks": []}, DataError, r"dataset\.json has no 'labels'; .*or \"landmarks\": \[\"nose\"\]"),
        ({"labels": {"background": 0}}, DataError, "neither a structure besides background nor a landmark"),
        (
            {"landmarks": ["nose"]},
            DataError,
            r"no case has landmarks; file: .*x; found: 2 images, the first a_0000\.nii\.gz; allowed: landmarksTr/a\.mrk",
        ),
    ],
)
def test_malformed_descriptions(tmp_path: Path, more: dict[str, Any], error: type[Exception], message: str) -> None:
    root = lay_out(tmp_path / "x", {**CHANNEL, **more})
    with pytest.raises(error, match=message):
        open_dataset(root)


def test_landmarks_of_other_cases(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "x", CHANNEL)
    write_landmark_table(root / "landmarks.csv", {f"{i}": points("nose") for i in range(5)})
    with pytest.raises(
        DataError, match=r"of none of the cases; file: .*csv; found: 0, 1, 2 and 2 more; allowed: a, b; fix: name"
    ):
        open_dataset(root)


def test_several_sets_of_landmarks(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "x", CHANNEL, ("landmarks/{}.csv", "landmarks/{}.json"))
    with pytest.raises(DataError, match=r"two files of landmarks have the same name; .*found: a\.csv, a\.json; fix: keep one"):
        open_dataset(root)
    (root / "landmarks.csv").touch()
    assert is_dataset(root)
    with pytest.raises(
        DataError, match=r"the dataset has several sets of landmarks; file: .*found: .*landmarks\.csv, .*landmarks; fix: keep one"
    ):
        open_dataset(root)


def test_no_landmark_is_present(tmp_path: Path) -> None:
    nothing = points("nose", "chin", state=State.ABSENT)
    root = lay_out(tmp_path / "x", CHANNEL, ("landmarks/{}.csv",), a=nothing, b=nothing)
    with pytest.raises(DataError, match=r"no landmark is present in any case; file: .*x; found: 2 names in 2 cases"):
        open_dataset(root)


@pytest.mark.real
def test_mouse_skulls(real_data: Callable[[str], Path], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "autoseg"):
        dataset = open_dataset(real_data("mouse_skull"))
    assert (len(dataset.cases), dataset.channels, dataset.labels) == (41, ("microCT",), NONE)
    assert dataset.landmarks.names == tuple(f"lm{i:02d}" for i in range(1, 46))
    assert (len(dataset.landmarks.pairs), dataset.landmarks.pairs[0]) == (18, ("lm02", "lm03"))
    assert {c.landmarks and c.landmarks.name for c in dataset.cases} == {f"{c.name}.mrk.json" for c in dataset.cases}
    assert caplog.messages == []


@pytest.mark.real
def test_skull_x_rays(real_data: Callable[[str], Path], caplog: pytest.LogCaptureFixture) -> None:
    """Images and one table, nothing else."""
    with caplog.at_level(logging.WARNING, "autoseg"):
        dataset = open_dataset(real_data("ceph"))
    assert (len(dataset.cases), dataset.channels, dataset.labels) == (32, ("image",), NONE)
    assert dataset.landmarks == LandmarkSet(tuple(f"l{i}" for i in range(1, 20)))
    assert caplog.messages[0] == "note: dataset.json names no landmarks; the files have 19: l1, l2, l3 and 16 more"
    assert caplog.messages[1].startswith("note: 6 of 608 landmarks are not listed in the files of their cases")
    assert len(caplog.messages) == 2


@pytest.mark.parametrize("named", [True, False])
def test_too_many_landmarks(tmp_path: Path, named: bool) -> None:
    names = [f"lm{i}" for i in range(2001)]
    rows = [{"case": "a", "landmark": name, "x": 1, "y": 2} for name in names]
    about = {"channel_names": {"0": "x-ray"}, "labels": {}} | ({"landmarks": names} if named else {})
    root = lay_out(tmp_path / "x", about)
    (root / "landmarks.csv").write_text("case,landmark,x,y\n" + "".join(",".join(map(str, r.values())) + "\n" for r in rows))
    message = r"^too many landmarks; file: .*x.*; found: 2001 names: lm0, lm1, lm2 and 1998 more; allowed: up to 2000; fix: list"
    with pytest.raises(DataError, match=message):
        open_dataset(root)
    (root / "landmarks.csv").write_text("case,landmark,x,y\n" + "".join(",".join(map(str, r.values())) + "\n" for r in rows[1:]))
    assert named or len(open_dataset(root).landmarks) == 2000


def test_a_table_of_thousands_of_cases_takes_no_time(tmp_path: Path) -> None:
    names = [f"c{i:05d}" for i in range(5000)]
    (tmp_path / "imagesTr").mkdir()
    table = tmp_path / "landmarks.csv"
    table.write_text("case,landmark,x,y,z\n" + "".join(f"{name}.nii.gz,nose,1,2,{i}\n" for i, name in enumerate(names)))
    start = time.process_time()
    for i, name in enumerate(names):
        case = Case(name, (tmp_path / f"{name}.nii.gz",), None, table)
        assert read_case_points(case, table)[0].position == (1, 2, i)
    assert time.process_time() - start < 5
