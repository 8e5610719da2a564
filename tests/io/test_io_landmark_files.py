"""Writing landmarks: what is written is read back the same, and the formats are what other programs expect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from helpers.slicer_schema import MARKUPS
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.errors import DataError
from autoseg.imaging.landmarks import Landmarks, State
from autoseg.io import LANDMARK_ENDINGS, Point, landmark_ending, read_points, write_landmark_table, write_landmarks

THREE = Landmarks(
    ("nose", "left ear, upper", "µ"),
    np.array([[1, -2.25, 1e-3], [np.nan] * 3, [np.nan] * 3]),
    np.array([State.PRESENT, State.ABSENT, State.UNLABELLED]),
    np.array([0.75, 0.125, np.nan]),
)


def written(path: Path, landmarks: Landmarks, **how: Any) -> str:
    write_landmarks(path, landmarks, **how)
    return path.read_text(encoding="utf-8")


def test_markups_follow_slicers_schema(tmp_path: Path) -> None:
    whole = json.loads(written(tmp_path / "a.mrk.json", THREE))
    jsonschema.validate(whole, MARKUPS)
    points = whole["markups"][0]["controlPoints"]
    assert [p["positionStatus"] for p in points] == ["defined", "undefined", "undefined"]
    assert [p["description"] for p in points] == ["confidence 0.75", "absent; confidence 0.125", "unlabelled"]
    assert points[0]["position"] == [1, -2.25, 0.001]
    assert (points[1]["label"], points[1]["id"]) == ("left ear, upper", "2")
    assert whole["markups"][0]["lastUsedControlPointNumber"] == 3


def test_point_lists_state_lps_and_hold_present_landmarks(tmp_path: Path) -> None:
    assert written(tmp_path / "a.fcsv", THREE).splitlines() == [
        "# Markups fiducial file version = 5.0",
        "# CoordinateSystem = LPS",
        "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID",
        "1,1,-2.25,0.001,0,0,0,1,1,1,0,nose,confidence 0.75,",
    ]


def test_tables(tmp_path: Path) -> None:
    assert written(tmp_path / "a.csv", THREE, case="x").splitlines() == [
        "case,landmark,x,y,z,space,state,confidence",
        "x,nose,1,-2.25,0.001,LPS,present,0.75",
        'x,"left ear, upper",,,,LPS,absent,0.125',
        "x,µ,,,,LPS,unlabelled,",
    ]


def test_tables_of_natural_images_are_in_pixels(tmp_path: Path) -> None:
    flat = Landmarks(("a", "b"), np.array([[3, 4.5, 0], [np.nan] * 3]), np.array([State.PRESENT, State.ABSENT]))
    assert written(tmp_path / "a.csv", flat, pixels=True) == "landmark,x,y,space,state\na,3,4.5,pixel,present\nb,,,pixel,absent\n"
    deep = Landmarks(("a",), np.array([[3, 4.5, 2]]), np.array([State.PRESENT]))
    assert written(tmp_path / "b.csv", deep, pixels=True) == "landmark,x,y,z,space,state\na,3,4.5,2,pixel,present\n"
    assert json.loads(written(tmp_path / "a.json", flat, case="p", pixels=True)) == {
        "space": "pixel",
        "unit": "px",
        "case": "p",
        "landmarks": {"a": {"position": [3, 4.5, 0], "state": "present"}, "b": {"position": None, "state": "absent"}},
    }


def test_our_own_json_has_a_line_for_each_landmark(tmp_path: Path) -> None:
    assert written(tmp_path / "a.json", THREE, case="x").splitlines() == [
        "{",
        '  "space": "LPS",',
        '  "unit": "mm",',
        '  "case": "x",',
        '  "landmarks": {',
        '    "nose": {"position": [1, -2.25, 0.001], "state": "present", "confidence": 0.75},',
        '    "left ear, upper": {"position": null, "state": "absent", "confidence": 0.125},',
        '    "µ": {"position": null, "state": "unlabelled"}',
        "  }",
        "}",
    ]


def test_other_endings(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not a file of landmarks; file: .*a\.txt; allowed: \.mrk\.json"):
        write_landmarks(tmp_path / "a.txt", THREE)
    assert list(tmp_path.iterdir()) == []
    assert [landmark_ending(Path(n)) for n in ("a.MRK.JSON", "a.json", "b.fcsv", "._a.csv", "a.nii")] == [
        *(".mrk.json", ".json", ".fcsv"),
        *(None, None),
    ]


NAMES = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=8)
NUMBER = st.floats(-1e6, 1e6, allow_subnormal=False)


@st.composite
def landmarks(draw: st.DrawFn) -> Landmarks:
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    states = draw(st.lists(st.sampled_from(State), min_size=len(names), max_size=len(names)))
    points = [[draw(NUMBER) for _ in range(3)] if s == State.PRESENT else [np.nan] * 3 for s in states]
    sure = [draw(st.floats(0, 1) | st.just(np.nan)) for _ in names]
    return Landmarks(tuple(names), np.array(points), np.array(states), np.array(sure) if draw(st.booleans()) else None)


def as_points(found: Landmarks, space: str) -> list[Point]:
    sure = np.full(len(found.names), np.nan) if found.confidence is None else found.confidence
    return [
        Point(
            name,
            "",
            tuple(float(v) for v in at) if state == State.PRESENT else None,
            State(state),
            space,  # type: ignore[arg-type]
            None if np.isnan(c) else float(c),
        )
        for name, at, state, c in zip(found.names, found.points_mm, found.state, sure)
    ]


@pytest.mark.parametrize("ending", LANDMARK_ENDINGS)
@settings(max_examples=40)
@given(found=landmarks())
def test_landmark_files_round_trip(tmp_path_factory: pytest.TempPathFactory, ending: str, found: Landmarks) -> None:
    path = tmp_path_factory.mktemp("round") / f"a{ending}"
    write_landmarks(path, found, "a")
    expected = [p for p in as_points(found, "LPS") if ending != ".fcsv" or p.state == State.PRESENT]
    if ending == ".mrk.json":
        jsonschema.validate(json.loads(path.read_text(encoding="utf-8")), MARKUPS)
    if not expected:
        with pytest.raises(DataError, match="holds no landmark"):
            read_points(path)
        return
    (points,) = read_points(path).cases.values()
    assert list(points) == expected


@settings(max_examples=20)
@given(st.dictionaries(NAMES, landmarks(), min_size=1, max_size=3), st.booleans())
def test_tables_of_many_cases_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, cases: dict[str, Landmarks], pixels: bool
) -> None:
    path = tmp_path_factory.mktemp("table") / "landmarks.csv"
    write_landmark_table(path, cases, pixels)
    found = read_points(path).cases
    assert set(found) == set(cases)
    for name, points in found.items():
        assert [p.label for p in points] == list(cases[name].names)
        for point, expected in zip(points, as_points(cases[name], "voxel" if pixels else "LPS")):
            assert (point.state, point.space, point.confidence) == (expected.state, expected.space, expected.confidence)
            assert point.position == (expected.position and expected.position[: len(point.position or ())])
