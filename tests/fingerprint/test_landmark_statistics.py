"""Facts about landmarks: places in the image, counts and distances by hand, what a patch shows, and
real skulls.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.limits import HANGS
from hypothesis import given
from hypothesis import strategies as st

from autoseg.errors import LabelError
from autoseg.fingerprint.landmarks import (
    MAX_KAPPA,
    CasePoints,
    LandmarkStatistics,
    case_points,
    covisibility,
    measure_landmarks,
    patch_scale_needed,
)
from autoseg.imaging.geometry import Grid
from autoseg.imaging.landmarks import Landmarks, State
from autoseg.io import read_image
from autoseg.system.records import from_json, to_json

ABC = ("a", "b", "c")
GRID = Grid.from_spacing((10, 20, 40), (2.0, 1.0, 0.5), (100, 50, 0))  # centre (109.75, 59.5, 9) in (x, y, z)


def landmarks(*points: tuple[float, float, float] | State) -> Landmarks:
    """Named a, b, c …; points (x, y, z) or a state without one."""
    where = np.array([(np.nan,) * 3 if isinstance(p, State) else p for p in points])
    state = np.array([p if isinstance(p, State) else State.PRESENT for p in points])
    return Landmarks(tuple("abcdefghij"[: len(points)]), where, state)


def case(*points: tuple[float, float, float] | State, name: str = "c0", size: int = 100) -> CasePoints:
    """Points (z, y, x) mm from the centre of a cube of `size` mm."""
    known = tuple(None if isinstance(p, State) else p for p in points)
    state = tuple(int(p) if isinstance(p, State) else int(State.PRESENT) for p in points)
    return CasePoints(name, (1.0, 1.0, 1.0), (size,) * 3, state, known)


def test_points_are_relative_to_the_image() -> None:
    placed = case_points("c", landmarks((109.75, 59.5, 9), State.ABSENT, (110.75, 57.5, 12)), GRID)
    assert placed.points == (pytest.approx((0, 0, 0)), None, pytest.approx((3, -2, 1)))
    assert (placed.shape, placed.spacing, placed.state) == ((10, 20, 40), (2.0, 1.0, 0.5), (2, 1, 2))
    assert placed.extent.tolist() == [20, 20, 20]
    assert placed.present_points == pytest.approx(np.array([[0, 0, 0], [3, -2, 1]]))


def test_points_do_not_depend_on_the_orientation() -> None:
    expected = case_points("c", landmarks((105, 52, 3), (101, 66, 17)), GRID)
    affine = GRID.affine[:, [2, 0, 1, 3]].copy()  # array axes x, z, y
    affine[:3, 0] *= -1  # x from left to right
    affine[0, 3] += 0.5 * 39
    placed = case_points("c", landmarks((105, 52, 3), (101, 66, 17)), Grid((40, 10, 20), affine))
    assert placed.points == tuple(pytest.approx(p) for p in expected.points)
    assert (placed.shape, placed.spacing) == (expected.shape, expected.spacing)


def test_counts_distances_and_shares_by_hand() -> None:
    cases = [
        case((0, 0, 0), (0, 3, 4), (0, 30, 40), name="c0"),
        case((1, 0, 0), (1, 3, 4), State.ABSENT, name="c1"),
        case((0, 0, 5), State.UNLABELLED, (60, 0, 5), name="c2"),
        case(State.UNLABELLED, State.UNLABELLED, (0, 0, 0), name="c3"),
    ]
    statistics = measure_landmarks(ABC, cases)
    a, b, c = statistics.landmarks
    assert [(p.name, p.n_present, p.n_absent, p.n_unlabelled, p.n_outside) for p in statistics.landmarks] == [
        ("a", 3, 0, 1, 0),
        ("b", 2, 0, 2, 0),
        ("c", 3, 1, 0, 1),
    ]
    assert (statistics.n_cases, statistics.absent_share, statistics.unlabelled_share) == (4, 1 / 12, 3 / 12)
    assert (a.neighbour, a.neighbour_mm) == ("b", 5)  # 5, 5 and 60
    assert (b.neighbour, b.neighbour_mm) == ("a", 5)
    assert (c.neighbour, c.neighbour_mm) == ("a", 52.5)  # 45 to b, 60 to a: of two alike the first
    assert statistics.neighbour_mm_p10 == pytest.approx(5)
    assert (statistics.distance_mm, statistics.distance_variation) == (45, None)  # 5, 55 and 45 mm; no pair is in three cases
    # over the cases with two: 50, 5 and 60 mm apart, 95 % of the way from 50 to 60 is 59
    assert statistics.diameter_mm == pytest.approx(59)
    assert statistics.extent_mm == pytest.approx((54, 27.3, 36.4))
    # b is at (0, 3, 4) and (1, 3, 4); each is said for the other
    assert b.sd_mm == pytest.approx((1 / 3) ** 0.5)
    assert b.sd_from_others_mm is not None
    assert b.rho == pytest.approx(1 - 3 * b.sd_from_others_mm**2)
    assert b.kappa == pytest.approx(5 / b.sd_from_others_mm)
    assert from_json(LandmarkStatistics, to_json(statistics), "statistics") == statistics
    assert from_json(CasePoints, to_json(cases[2]), "case") == cases[2]


def test_distance_variation() -> None:
    """Of a pair in all three cases 8, 10 and 12 mm; of one in two, which does not count, and of two
    landmarks in one place.
    """
    third = ((0, 0, 30), (0, 0, 40), State.UNLABELLED)
    statistics = measure_landmarks(ABC, [case((0, 0, 0), (0, 0, mm), c, name=f"c{mm}") for mm, c in zip((8, 10, 12), third)])
    assert statistics.distance_variation == pytest.approx(0.2)
    same = measure_landmarks(("a", "b"), [case((i, 0, 0), (i, 0, 0), name=f"c{i}") for i in range(3)])
    assert (same.distance_mm, same.distance_variation) == (0, None)


def test_exactly_predictable_points() -> None:
    statistics = measure_landmarks(("a", "b"), [case((0, 0, x), (0, 3, x + 4)) for x in (0, 7, 9)])
    assert [(p.rho, p.kappa) for p in statistics.landmarks] == [(1, MAX_KAPPA)] * 2
    assert (statistics.median_rho, statistics.median_kappa) == (1, MAX_KAPPA)


def test_few_cases_or_landmarks() -> None:
    one = measure_landmarks(("a", "b"), [case((0, 0, 0), (0, 3, 4))])
    assert (one.diameter_mm, one.neighbour_mm_p10, one.median_rho, one.median_kappa) == (5, 5, None, None)
    assert (one.landmarks[0].sd_mm, one.landmarks[0].sd_from_others_mm, one.landmarks[0].kappa) == (None, None, None)
    single = measure_landmarks(("a",), [case((0, 0, x)) for x in (1.0, 2.0, 4.0)])
    (a,) = single.landmarks
    assert (single.diameter_mm, single.extent_mm, single.neighbour_mm_p10) == (0, (0, 0, 0), None)
    assert (a.neighbour, a.neighbour_mm, a.sd_from_others_mm, a.rho) == (None, None, None, None)
    assert a.sd_mm is not None
    lost = measure_landmarks(("a", "b"), [case(State.ABSENT, State.ABSENT), case((0, 0, 0), (0, 3, 4))])
    assert (lost.absent_share, lost.diameter_mm, lost.landmarks[1].n_present) == (0.5, 5, 1)
    none = measure_landmarks(("a",), [])
    assert (none.n_cases, none.absent_share, none.landmarks[0].sd_mm) == (0, 0, None)
    assert measure_landmarks((), [case()]).landmarks == ()


def test_single_slices_have_two_axes() -> None:
    """Spread along the two axes that there are, so that a picture and a volume can be compared."""
    rng = np.random.default_rng(0)
    places = rng.normal(0, 3, (30, 2, 3))
    places[..., 0] = 0
    flat = [CasePoints(str(i), (1.0, 1.0, 1.0), (1, 99, 99), (2, 2), tuple(map(tuple, p.tolist()))) for i, p in enumerate(places)]
    deep = [CasePoints(c.name, c.spacing, (99, 99, 99), c.state, c.points) for c in flat]
    for picture, volume in zip(measure_landmarks(("a", "b"), flat).landmarks, measure_landmarks(("a", "b"), deep).landmarks):
        assert picture.sd_mm == pytest.approx((3 / 2) ** 0.5 * volume.sd_mm, rel=1e-5)
        assert picture.sd_from_others_mm == pytest.approx((3 / 2) ** 0.5 * volume.sd_from_others_mm, rel=1e-5)


def test_wrong_number_of_landmarks() -> None:
    with pytest.raises(LabelError, match="case c0: a case has other landmarks; found: 1; allowed: 2"):
        measure_landmarks(("a", "b"), [case((0, 0, 0))])


def test_outside_begins_at_the_edge_of_the_last_voxel() -> None:
    for place, n in (((0, 0, 50), 0), ((0, 0, -50.001), 1), ((53, 0, -54), 1)):
        statistics = measure_landmarks(("a", "b"), [case(State.ABSENT, place, size=100)])
        assert [p.n_outside for p in statistics.landmarks] == [0, n]


def test_covisibility_by_hand() -> None:
    row = [case((0, 0, 0), (0, 0, 10), (0, 0, 20))]
    assert covisibility(row, (9, 9, 9)) == 0
    # around the ends one pair of three, around the middle all
    assert covisibility(row, (20, 20, 20)) == pytest.approx((1 + 3 + 1) / 9)
    assert covisibility(row, (1, 1, 40)) == 1
    assert covisibility([case((0, 0, 0)), case(State.ABSENT)], (9, 9, 9)) is None
    # the patch is moved into the image, so one that covers it shows all, and what lies outside
    # counts as on the edge
    assert covisibility([case((-12, 0, 0), (9, 0, 0), size=20)], (20, 20, 20)) == 1
    assert covisibility([case((-9, 0, 0), (1, 0, 0), size=20)], (11, 11, 11)) == 0.5
    assert covisibility([case((-9, 0, 0), (4, 0, 0), size=20)], (11, 11, 11)) == 0


def test_patch_scale_needed() -> None:
    cases = [case((0, 0, 0), (10, 0, 40)), case((0, 0, 0), State.ABSENT), case(State.ABSENT), case((-45, 0, 0), (45, 0, 0))]
    assert patch_scale_needed(cases, (20, 20, 20), 1.2) == pytest.approx([2.4, 0, 0, 5])  # 100 mm is all there is, not 108
    assert patch_scale_needed(cases, (20, 20, 40), 1.0) == pytest.approx([1, 0, 0, 4.5])
    assert patch_scale_needed([], (1, 1, 1), 1.0).tolist() == []


@given(st.integers(0, 2**31), st.floats(5, 60))
def test_larger_patches_show_more_and_shifts_change_nothing(seed: int, edge: float) -> None:
    rng = np.random.default_rng(seed)
    places = rng.normal(0, 10, (3, 5, 3))
    near = [case(*map(tuple, p.tolist()), size=1000) for p in places]
    moved = [case(*map(tuple, (p + 70).tolist()), size=1000) for p in places]
    less, more = covisibility(near, (edge,) * 3), covisibility(near, (1.5 * edge,) * 3)
    assert 0 <= less <= more <= 1
    assert covisibility(moved, (edge,) * 3) == pytest.approx(less)
    assert (patch_scale_needed(near, (edge,) * 3, 1.0) <= 1).mean() <= (
        patch_scale_needed(near, (1.5 * edge,) * 3, 1.0) <= 1
    ).mean()


@pytest.mark.real
def test_real_skulls(real_data) -> None:
    """Predicting a skull's points from its others leaves the variation of shape that is known of
    these cases.
    """
    folder: Path = real_data("mouse_skull")
    names = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["landmarks"]
    cases = []
    for path in sorted((folder / "landmarksTr").glob("*.mrk.json")):
        points = {p["label"]: p["position"] for p in json.loads(path.read_text(encoding="utf-8"))["markups"][0]["controlPoints"]}
        marks = Landmarks(tuple(names), np.array([points[n] for n in names]), np.full(len(names), State.PRESENT))
        name = path.name.removesuffix(".mrk.json")
        cases.append(case_points(name, marks, read_image([folder / "imagesTr" / f"{name}.nii.gz"], ("CT",)).grid))
    began = time.perf_counter()
    statistics = measure_landmarks(names, cases)
    assert time.perf_counter() - began < HANGS  # a tenth of a second on an idle machine
    assert (statistics.n_cases, statistics.absent_share, statistics.unlabelled_share) == (41, 0, 0)
    assert statistics.diameter_mm == pytest.approx(23.95, abs=0.01)
    assert statistics.extent_mm == pytest.approx((11.22, 23.27, 12.75), abs=0.01)
    assert np.median([p.sd_mm for p in statistics.landmarks]) * 3**0.5 == pytest.approx(1.9, abs=0.1)
    assert np.median([p.sd_from_others_mm for p in statistics.landmarks]) * 3**0.5 == pytest.approx(0.28, abs=0.02)
    assert statistics.median_rho == pytest.approx(0.98, abs=0.01)
    assert statistics.median_kappa == pytest.approx(14.7, abs=0.5)
