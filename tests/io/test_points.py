"""Reading landmarks: Slicer's markups and point lists, tables, our own JSON; what each tolerates and what it says of the rest."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg.errors import DataError
from autoseg.imaging.landmarks import State
from autoseg.io import Point, read_points
from autoseg.io.landmark_files import AT_ORIGIN

FCSV = """# Markups fiducial file version = 4.11
# CoordinateSystem = LPS
# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID
p_1,1.5,-2,3,0,0,0,1,1,1,0,nose,,
"""


def put(path: Path, content: Any) -> Path:
    path.write_bytes(
        content if isinstance(content, bytes) else (content if isinstance(content, str) else json.dumps(content)).encode()
    )
    return path


def markup(*points: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "@schema": "https://x/markups-schema-v1.0.0.json#",
        "markups": [{"type": "Fiducial", **more, "controlPoints": points}],
    }


def only(path: Path) -> tuple[Point, ...]:
    ((name, points),) = read_points(path).cases.items()
    assert name == ""
    return points


def test_the_least_that_a_markup_file_holds(tmp_path: Path) -> None:
    path = put(tmp_path / "a.mrk.json", markup({"label": " nose ", "position": [1, 2.5, -3]}))
    assert only(path) == (Point("nose", "", (1.0, 2.5, -3.0), State.PRESENT, "LPS"),)
    assert only(put(tmp_path / "b.json", path.read_text())) == only(path)  # Slicer takes both endings


@pytest.mark.parametrize(("word", "space"), [("LPS", "LPS"), ("RAS", "RAS"), ("0", "RAS"), ("1", "LPS"), (0, "RAS"), (1, "LPS")])
def test_coordinate_systems_of_markups(tmp_path: Path, word: Any, space: str) -> None:
    path = put(tmp_path / "a.mrk.json", markup({"label": "a", "position": [1, 2, 3]}, coordinateSystem=word))
    assert [p.space for p in only(path)] == [space]


@pytest.mark.parametrize("unit", ["um", ["um", "UCUM", "micrometer"]])
def test_micrometres(tmp_path: Path, unit: Any) -> None:
    path = put(tmp_path / "a.mrk.json", markup({"label": "a", "position": [1000, 0, -500]}, coordinateUnits=unit))
    assert only(path)[0].position == (1.0, 0.0, -0.5)


@pytest.mark.parametrize(
    ("point", "state"),
    [
        ({"position": [1, 2, 3], "positionStatus": "defined"}, State.PRESENT),
        ({"position": [1, 2, 3], "positionStatus": "missing"}, State.ABSENT),
        ({"position": "", "positionStatus": "missing"}, State.ABSENT),  # as Slicer writes it
        ({"positionStatus": "missing"}, State.ABSENT),
        ({"position": [1, 2, 3], "positionStatus": "undefined"}, State.UNLABELLED),
        ({"position": None, "positionStatus": "preview"}, State.UNLABELLED),
        ({"position": [1, 2, 3], "positionStatus": "preview"}, State.PRESENT),
        ({"position": "", "positionStatus": "defined"}, State.UNLABELLED),  # as Slicer reads it
        ({}, State.UNLABELLED),
        ({"positionStatus": "undefined", "description": "absent"}, State.ABSENT),  # as autoseg writes it
        ({"positionStatus": "undefined", "description": "unlabelled; confidence 0.5"}, State.UNLABELLED),
        ({"position": [1, 2, 3], "positionStatus": "defined", "description": "absent"}, State.PRESENT),
        ({"positionStatus": "undefined", "description": "absentminded"}, State.UNLABELLED),
    ],
)
def test_status_of_control_points(tmp_path: Path, point: dict[str, Any], state: State) -> None:
    (found,) = only(put(tmp_path / "a.mrk.json", markup({"label": "a", **point})))
    assert found.state == state
    assert (found.position is None) == (state != State.PRESENT)


def test_several_markups_each_in_its_own_system(tmp_path: Path) -> None:
    both = markup({"label": "a", "position": [1, 2, 3]}, coordinateSystem="RAS")
    both["markups"] += markup({"label": "b", "position": [4, 5, 6], "description": "confidence 0.25"})["markups"]
    first, second = only(put(tmp_path / "a.mrk.json", both))
    assert (first.label, first.space, first.confidence) == ("a", "RAS", None)
    assert (second.label, second.space, second.confidence, second.description) == ("b", "LPS", 0.25, "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"the file is empty; file: .*a\.mrk\.json; fix: delete it"),
        (b"\xff\xfe{}", r"not UTF-8 text; file: .*found:"),
        ("{", r"not valid JSON; file: .*found: Expecting"),
        ([1], r"must hold one object; file: .*found: a list; allowed: \{\.\.\.\}"),
        ({"markup": []}, r"not a markup file of 3D Slicer; .*found: no list 'markups'"),
        ({"markups": [1]}, r"not a markup file"),
        (markup(), r"the file holds no landmark; file: .*fix: delete it if"),
        ({"markups": [{"controlPoints": [1]}]}, r"'controlPoints' must be a list of points; file: .*found: \[1\]"),
        (markup({"label": "a", "position": [1, 2]}), r"position of landmark 'a' must have three.*found: \[1, 2\]; allowed: \[x"),
        (markup({"label": "a", "position": 7}), r"position of landmark 'a' must have three.*found: 7"),
        (
            markup({"label": "a", "position": [1, 2, float("nan")]}),
            r"a coordinate of landmark 'a' is not a usable number.*found: nan",
        ),
        (markup({"label": "a", "position": [1, 2, True]}), r"a coordinate of landmark 'a' is not a usable number.*found: True"),
        (
            markup({"label": "a", "position": [1, 2, "x"]}),
            r"is not a usable number.*found: 'x'; allowed: a finite number; fix: write a dec",
        ),
        (markup({"position": [1, 2, 3]}), r"a landmark has no name; file: .*found: position \[1, 2, 3\]; fix: give each"),
        (markup({"label": "a"}, coordinateSystem="7"), r"unknown coordinate system; .*found: '7'; allowed: LPS, RAS, voxel"),
        (markup({"label": "a"}, coordinateUnits="inch"), r"unknown unit of coordinates; .*found: 'inch'; allowed: mm, um"),
        (
            markup({"label": "a", "positionStatus": "mising"}),
            r"landmark 'a' has an unknown state - did you mean 'missing'\?; .*found: 'mising'; allowed: present, defined",
        ),
        (
            markup({"label": "a", "position": [1, 2, 3], "description": "confidence 1.5"}),
            r"the confidence of landmark 'a' is not a usable number.*found: '1\.5'; allowed: a number from 0 to 1",
        ),
    ],
)
def test_invalid_markup_files(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_points(put(tmp_path / "a.mrk.json", content))


@pytest.mark.parametrize(
    ("system", "space", "remark"),
    [
        ("# CoordinateSystem = LPS\n", "LPS", ""),
        ("#CoordinateSystem=1\n", "LPS", ""),
        ("# CoordinateSystem = RAS\n", "RAS", ""),
        ("# CoordinateSystem = 0\n", "RAS", ""),
        ("", "RAS", "point lists that do not state their coordinate system are taken as RAS"),
    ],
)
def test_coordinate_systems_of_point_lists(tmp_path: Path, system: str, space: str, remark: str) -> None:
    path = put(tmp_path / "a.fcsv", FCSV.replace("# CoordinateSystem = LPS\n", system))
    assert only(path) == (Point("nose", "", (1.5, -2.0, 3.0), State.PRESENT, space),)  # type: ignore[arg-type]
    assert read_points(path).remarks == ((remark,) if remark else ())


def test_point_list_dialects(tmp_path: Path) -> None:
    """Columns by name and in another order, two more than named, quotes, Windows line ends, a byte order mark, no label."""
    text = "\ufeff# Markups fiducial file version = 5.2\r\n# CoordinateSystem = LPS,,,,\r\n# columns = label,z,y,x,desc,,,\r\n"
    text += '"a, ""left""",3,2,1,confidence 0.5,2,0\r\n\r\n,6,5,4,chin,2,0\r\n'
    assert only(put(tmp_path / "a.fcsv", text)) == (
        Point('a, "left"', "", (1.0, 2.0, 3.0), State.PRESENT, "LPS", 0.5),
        Point("", "chin", (4.0, 5.0, 6.0), State.PRESENT, "LPS"),
    )
    bare = "1,1,2,3,0,0,0,1,1,1,0,nose,,\n"  # without any comment: the columns that Slicer has
    assert only(put(tmp_path / "b.fcsv", bare)) == (Point("nose", "", (1.0, 2.0, 3.0), State.PRESENT, "RAS"),)


@pytest.mark.parametrize(("code", "state"), [("0", 0), ("1", 2), ("3", 1), ("2", 2), ("", 2)])
def test_status_of_points_in_lists(tmp_path: Path, code: str, state: int) -> None:
    """Slicer 5.2 and later adds it after the named columns, and 0 or 1 for whether it made the point itself."""
    (point,) = only(put(tmp_path / "a.fcsv", FCSV.replace("nose,,", f"nose,,,{code},0")))
    assert (point.state, point.position is None) == (state, state != 2)
    nowhere = FCSV.replace("nose,,", f"nose,,,{code},0").replace("1.5,-2,3,", ",,,")
    if code in ("2", ""):
        with pytest.raises(DataError, match="a point needs three coordinates"):
            only(put(tmp_path / "b.fcsv", nowhere))
    else:
        assert only(put(tmp_path / "b.fcsv", nowhere))[0].state == {"3": State.ABSENT}.get(code, State.UNLABELLED)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (FCSV, " \n", "the file is empty"),
        ("p_1,1.5,-2,3,0,0,0,1,1,1,0,nose,,\n", "", r"the file holds no landmark; file: .*a\.fcsv"),
        ("LPS", "7", r"unknown coordinate system; file: .*found: '7'"),
        ("label", "Label", r"needs a column 'label' - did you mean 'Label'\?; file: .*found: id, x"),
        (",y,", ",why,", r"needs a column 'y'"),
        ("-2", "", r"a point needs three coordinates; file: .*found: p_1,1\.5,,3,.*allowed: id, x"),
        ("-2", "two", r"a coordinate of landmark 'nose' is not a usable number.*found: 'two'"),
        ("nose", "", r"a landmark has no name; file: .*found: position \['1\.5'"),
    ],
)
def test_invalid_point_lists(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_points(put(tmp_path / "a.fcsv", FCSV.replace(old, new)))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables(tmp_path: Path, separator: str) -> None:
    rows = [
        "Case,Landmark,x,y,z,Space,State,Confidence,who",
        "a,nose,1,2,3,RAS,,,me",
        "a,chin,,,,,,0.1,",
        "a,ear,,,,RAS,unlabelled,,",
        "",
    ]
    rows += ["b , nose ,1,2,,pixel,present,1,me", "b,chin,7,8,9,,missing,,", ",,,,,,,,"]
    found = read_points(put(tmp_path / "a.csv", "\n".join(rows).replace(",", separator))).cases
    assert found == {
        "a": (
            Point("nose", "", (1.0, 2.0, 3.0), State.PRESENT, "RAS"),
            Point("chin", "", None, State.ABSENT, None, 0.1),
            Point("ear", "", None, State.UNLABELLED, "RAS"),
        ),
        "b": (Point("nose", "", (1.0, 2.0), State.PRESENT, "voxel", 1.0), Point("chin", "", None, State.ABSENT, None)),
    }


def test_a_table_of_one_case(tmp_path: Path) -> None:
    assert only(put(tmp_path / "a.csv", "landmark,x,y\nnose,1,2\n")) == (Point("nose", "", (1.0, 2.0), State.PRESENT, None),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n", "the file is empty"),
        ("case,landmark,x,y,z\n", r"the table holds no landmark; file: .*found: only its first line"),
        (
            "case,landmarks,x,y\na,b,1,2\n",
            r"needs one column 'landmark' - did you mean 'landmarks'\?; file: .*found: case, landm",
        ),
        ("case,landmark,x,x,y\na,b,1,1,2\n", r"needs one column 'x'; file: .*allowed: case, landmark, x, y, z, space"),
        ("case,landmark,x\na,b,1\n", r"needs one column 'y'"),
        ("case,landmark,x,y\na,b,1,2,3\n", r"more or fewer cells.*found: 5 in line 2; allowed: 4 \(case, landmark, x, y\); fix"),
        ("case,landmark,x,y\n\na,b,1\n", r"more or fewer cells.*found: 3 in line 3"),
        ("case,landmark,x,y\n,b,1,2\n", r"a row names no case; file: .*found: line 2"),
        ("case,landmark,x,y\na,,1,2\n", r"a landmark has no name"),
        (
            "case;landmark;x;y\na;b;1,5;2\n",
            r"a coordinate of landmark 'b' is not a usable number.*found: '1,5'.*fix: write a decimal point",
        ),
        (
            "case,landmark,x,y\na,b,nan,2\n",
            r"a coordinate of landmark 'b' is not a usable number.*found: 'nan'.*leave an unknown value empty",
        ),
        ("case,landmark,x,y\na,b,inf,2\n", r"a coordinate of landmark 'b' is not a usable number"),
        ("case,landmark,x,y\na,b,,2\n", r"a coordinate of landmark 'b' is not a usable number.*found: ''"),
        ("case,landmark,x,y\na,b,1,\n", r"landmark 'b' has 1 coordinates; .*allowed: x, y, z, or x, y in 2D"),
        ("case,landmark,x,y,state\na,b,,,present\n", r"landmark 'b' is present but has no position; .*fix: give x, y, z, or"),
        ("case,landmark,x,y,state\na,b,1,2,here\n", r"landmark 'b' has an unknown state; .*found: 'here'"),
        ("case,landmark,x,y,space\na,b,1,2,MNI\n", r"unknown coordinate system; .*found: 'MNI'"),
        (
            "case,landmark,x,y,z,space\na,b,1,2,3,LPS\na,c,1,2,3,RAS\n",
            r"case a: the points of one case are in several coordinate systems; .*found: LPS, RAS; fix: fill",
        ),
        ("case,landmark,x,y,z,space\na,b,1,2,3,LPS\na,c,1,2,3,\n", r"several coordinate systems; .*found: LPS, none"),
    ],
)
def test_invalid_tables(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_points(put(tmp_path / "a.csv", text))


def test_a_table_from_a_spreadsheet(tmp_path: Path) -> None:
    for line in ("sep=;\n", "SEP=;\r\n", '"sep=;"\n', "sep=,\n", "sep=;;;;\n"):
        found = read_points(put(tmp_path / "a.csv", f"{line}case;landmark;x;y\na;nose;1.5;2\n"))
        assert found.cases == {"a": (Point("nose", "", (1.5, 2.0), State.PRESENT, None),)}
    for separator in "|\t^":
        text = f"sep={separator}\ncase;landmark;x;y\na;nose;1.5;2\n".replace(";", separator)
        assert read_points(put(tmp_path / "a.csv", text)).cases == found.cases
    with pytest.raises(
        DataError, match=r"needs one column 'landmark' - did you mean 'landmark\|x\|y'\?; .*between commas, semicolons or tabs"
    ):
        read_points(put(tmp_path / "a.csv", "landmark|x|y\nnose|1|2\n"))
    with pytest.raises(DataError, match=r"more or fewer cells.*found: 2 in line 3"):
        read_points(put(tmp_path / "a.csv", "sep=;\nlandmark;x;y\nnose;1\n"))
    with pytest.raises(DataError, match=r"a row names no case; .*found: line 4"):
        read_points(put(tmp_path / "a.csv", "\nsep=;\ncase;landmark;x;y\n;nose;1;2\n"))
    with pytest.raises(DataError, match=r"needs one column 'landmark'"):
        read_points(put(tmp_path / "a.csv", "sep=;\n"))


def test_cases_of_a_table_may_differ_in_their_system(tmp_path: Path) -> None:
    text = "case,landmark,x,y,z,space\na,b,1,2,3,LPS\nc,b,1,2,3,RAS\n"
    assert {name: points[0].space for name, points in read_points(put(tmp_path / "a.csv", text)).cases.items()} == {
        "a": "LPS",
        "c": "RAS",
    }


def test_our_own_json(tmp_path: Path) -> None:
    entries = {"nose": {"position": [1, 2, 3], "confidence": 0.5}, "chin": {"position": None}, "ear": {"state": "unlabelled"}}
    path = put(tmp_path / "a.json", {"space": "RAS", "unit": "mm", "case": "x", "landmarks": entries})
    assert read_points(path).cases == {
        "x": (
            Point("nose", "", (1.0, 2.0, 3.0), State.PRESENT, "RAS", 0.5),
            Point("chin", "", None, State.ABSENT, "RAS"),
            Point("ear", "", None, State.UNLABELLED, "RAS"),
        )
    }
    put(tmp_path / "b.json", {"space": "pixel", "landmarks": {"a": {"position": [1, 2]}}})
    assert only(tmp_path / "b.json") == (Point("a", "", (1.0, 2.0), State.PRESENT, "voxel"),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"landmarks": {}},
            r"does not state landmarks and their coordinate system; .*found: keys landmarks; allowed: .*Slicer",
        ),
        ({"space": "LPS", "landmarks": []}, r"does not state landmarks"),
        ({"space": "LPS", "landmarks": {}}, r"the file holds no landmark"),
        ({"space": "MNI", "landmarks": {}}, r"unknown coordinate system"),
        (
            {"space": "LPS", "unit": "cm", "landmarks": {}},
            r"the unit does not fit the space; .*found: 'cm' in LPS; allowed: mm",
        ),
        (
            {"space": "LPS", "landmarks": {"a": [1, 2, 3]}},
            r"landmark 'a' must be an object with a position; .*found: \[1, 2, 3\]",
        ),
        ({"space": "LPS", "landmarks": {"a": {"position": "x"}}}, r"landmark 'a' must be an object with a position"),
        (
            {"space": "LPS", "landmarks": {"a": {"positon": [1, 2, 3]}}},
            r"unknown key 'positon' - did you mean 'position'\?; .*allowed",
        ),
        ({"space": "LPS", "landmarks": {"a": {"position": [1, 2, 3, 4]}}}, r"landmark 'a' has 4 coordinates"),
        ('{"space": "LPS", "landmarks": {"a": {}, "a": {}}}', r'duplicate key; file: .*found: "a"; fix: give each'),
        (
            {"space": "LPS", "landmarks": {"a\x1bb": {"position": [1, 2, 3]}}},
            r"a landmark needs a name that can be read; .*a\\x1bb",
        ),
        (
            {"space": "LPS", "landmarks": {"a": {"position": [1, 2, 10**400]}}},
            r"a coordinate of landmark 'a' is not a usable number",
        ),
        (
            {"space": "LPS", "landmarks": {"a": {"position": [1, 2, "1_000"]}}},
            r"a coordinate of landmark 'a' is not a usable number",
        ),
        ({"space": "LPS", "landmarks": {"a": {"position": [1, 2, math.nan]}}}, r"a coordinate of landmark 'a' is not a usable"),
        ("[" * 100_000, r"the file of landmarks is nested too deeply; file: "),
    ],
)
def test_invalid_json_files(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_points(put(tmp_path / "a.json", content))


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file; file: .*a\.csv"):
        read_points(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"not a file of landmarks; file: .*a\.txt; allowed: \.mrk\.json, \.fcsv, \.json, \.csv"):
        read_points(put(tmp_path / "a.txt", "x"))


def test_a_file_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, mode: str) -> str:
        raise PermissionError(13, "Permission denied")

    path = put(tmp_path / "a.csv", "landmark,x,y\nnose,1,2\n")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"the file of landmarks cannot be read; file: .*found: Permission denied"):
        read_points(path)


def test_a_file_is_parsed_once_and_again_when_it_changes(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", "landmark,x,y\nnose,1,2\n")
    assert read_points(path) is read_points(path)
    put(path, "landmark,x,y\nchin,10,20\n")
    assert only(path)[0].label == "chin"


@pytest.mark.real
def test_anatomical_fiducials(real_data: Callable[[str], Path]) -> None:
    """All lists of the AFIDs project have the same 32 points. Colin27 is RAS: in LPS, the points lie in the image's brain."""
    folder = real_data("fiducials")
    lists = sorted((folder / "afids").rglob("*groundtruth_afids.fcsv"))
    assert len(lists) > 10
    for path in lists:
        points = only(path)
        assert [p.label for p in points] == [str(i) for i in range(1, 33)]
        assert {p.space for p in points} == {"RAS"}
    points = only(next(p for p in lists if "Colin27" in p.name))
    ac, pc = (np.array(p.position) for p in points[:2])
    assert points[0].description == "AC"
    assert 20 < ac[1] - pc[1] < 32  # mm, the posterior commissure lies behind: in RAS at smaller y
    image = sitk.ReadImage(str(folder / "colin27.nii.gz"))
    inside = [image.TransformPhysicalPointToIndex((-p.position[0], -p.position[1], p.position[2])) for p in points if p.position]
    assert all(0 <= i < n for index in inside for i, n in zip(index, image.GetSize()))
    assert np.mean([image[index] > 0 for index in inside]) > 0.9


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("label", None, r"a landmark has no name"),
        ("label", ["nose"], r"'label' must be a text; file: .*found: \[\"nose\"\]"),
        ("label", True, r"'label' must be a text; .*found: true"),
        ("description", {"a": 1}, r"'description' must be a text; .*found: \{\"a\": 1\}"),
    ],
)
def test_texts_of_markups_are_texts(tmp_path: Path, key: str, value: Any, message: str) -> None:
    point = {"label": "nose", "position": [1.0, 2.0, 3.0], "description": None}
    assert only(put(tmp_path / "a.mrk.json", {"markups": [{"controlPoints": [point]}]}))[0].description == ""
    with pytest.raises(DataError, match=message):
        read_points(put(tmp_path / "b.mrk.json", {"markups": [{"controlPoints": [{**point, key: value}]}]}))


def test_the_case_of_a_file_is_a_text(tmp_path: Path) -> None:
    whole = {"space": "LPS", "landmarks": {"a": {"position": [1, 2, 3], "state": None}}}
    assert list(read_points(put(tmp_path / "a.json", {**whole, "case": None})).cases) == [""]
    assert list(read_points(put(tmp_path / "b.json", {**whole, "case": 12})).cases) == ["12"]
    with pytest.raises(DataError, match=r"'case' must be a text; .*found: \[\"a\"\]"):
        read_points(put(tmp_path / "c.json", {**whole, "case": ["a"]}))


def test_only_point_lists_of_a_file_hold_landmarks(tmp_path: Path) -> None:
    """Curves and planes have control points, too."""
    points = markup({"label": "nose", "position": [1, 2, 3]})
    others = [
        {"type": kind, "controlPoints": [{"label": f"{kind}-{i}", "position": [i, i, 5]} for i in range(3)]}
        for kind in ("Plane", "ClosedCurve", "ROI", "Line", "Angle", "Curve")
    ]
    points["markups"] += others
    file = read_points(put(tmp_path / "a.mrk.json", points))
    assert [point.label for point in file.cases[""]] == ["nose"]
    kinds = "Angle, ClosedCurve, Curve, Line, Plane, ROI"
    assert file.remarks == (f"markups that are no point lists ({kinds}) hold no landmarks and are left out",)
    path = put(tmp_path / "b.mrk.json", {**points, "markups": others[:2]})
    with pytest.raises(DataError, match=r"holds no landmark; .*found: no point list, but ClosedCurve, Plane; allowed: .*F"):
        read_points(path)


def test_what_is_made_of_a_status_is_said(tmp_path: Path) -> None:
    entries = [
        {"label": status, "position": [1, 2, 3 + i], "positionStatus": status}
        for i, status in enumerate(("defined", "preview", "undefined", "missing"))
    ]
    file = read_points(put(tmp_path / "a.mrk.json", markup(*entries)))
    assert [point.state for point in file.cases[""]] == [State.PRESENT, State.PRESENT, State.UNLABELLED, State.ABSENT]
    assert [remark.partition("'")[2].partition("'")[0] for remark in file.remarks] == ["preview", "undefined"]
    listed = read_points(put(tmp_path / "a.fcsv", FCSV.replace("nose,,", "nose,,,0,0")))
    assert listed.remarks[0].startswith("positions of points of the status 'undefined' are left out")


@pytest.mark.parametrize("name", ["a.mrk.json", "a.fcsv", "a.csv"])
def test_points_at_the_origin_are_said(tmp_path: Path, name: str) -> None:
    text = {
        "a.mrk.json": json.dumps(markup({"label": "a", "position": [0, 0, 0]}, {"label": "b", "position": [0, 0, 1]})),
        "a.fcsv": FCSV.replace("1.5,-2,3", "0,0,0"),
        "a.csv": "landmark,x,y,z\na,0,0,0\nb,1,2,3\n",
    }[name]
    assert read_points(put(tmp_path / name, text)).remarks == (AT_ORIGIN,)
    (tmp_path / name).unlink()
    assert read_points(put(tmp_path / name, text.replace("0, 0, 0", "0, 0, 2").replace("0,0,0", "0,0,2"))).remarks == ()


def test_point_lists_in_voxels(tmp_path: Path) -> None:
    path = put(tmp_path / "a.fcsv", FCSV.replace("= LPS", "= 2"))
    assert [point.space for point in only(path)] == ["voxel"]
