"""Rules for landmarks: widths, stages and the spatial configuration branch, each with the number that decides beside it."""

from __future__ import annotations

from dataclasses import fields, replace
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoseg.fingerprint.landmarks import CasePoints, LandmarkStatistics, PointStatistics, measure_landmarks
from autoseg.plan import ScnPlan
from autoseg.planner.landmark_rules import plan_context, target_sigma
from autoseg.planner.scn_rule import plan_scn, scn_macs, shape_scn

ONE = (1.0, 1.0, 1.0)


def make_cases(n_landmarks: int = 10, n_cases: int = 40, spread: float = 60, noise: float = 1, ndim: int = 3) -> list[CasePoints]:
    """Cases of 128 mm with landmarks in a row from corner to corner of a cube of `spread` mm; places vary by 5 mm and `noise`."""
    rng = np.random.default_rng(0)
    row = np.linspace(-spread / 2, spread / 2, n_landmarks)[:, None] * np.ones(3)
    size = (128, 128, 128) if ndim == 3 else (1, 128, 128)
    cases = []
    for i in range(n_cases):
        points = row + rng.normal(0, 5, 3) + rng.normal(0, noise, (n_landmarks, 3))
        points[:, : 3 - ndim] = 0
        cases.append(CasePoints(f"c{i}", ONE, size, (2,) * n_landmarks, tuple(map(tuple, points.tolist()))))
    return cases


def measured(cases: list[CasePoints]) -> LandmarkStatistics:
    return measure_landmarks([f"l{i}" for i in range(len(cases[0].state))], cases)


def statistics_with_neighbours(close_mm: float | None) -> LandmarkStatistics:
    return LandmarkStatistics(1, 0, 0, (0, 0, 0), 0, close_mm, None, None, ())


def test_targets_are_a_voxel_wide() -> None:
    found = target_sigma(statistics_with_neighbours(3.6), (3.0, 0.7, 0.7))
    assert found.sigma_mm == pytest.approx((3, 0.7, 0.7))
    assert found.reason == (
        "a voxel of (3, 0.7, 0.7) mm: narrow for precision, wide enough to be read between voxels; one landmark in ten is less "
        "than 3.6 mm from the next, which has a map of its own"
    )
    assert target_sigma(statistics_with_neighbours(None), (0.1, 0.1)).sigma_mm == pytest.approx((0.1, 0.1))
    assert target_sigma(statistics_with_neighbours(None), (0.1, 0.1)).reason.endswith("to be read between voxels")


def test_context_where_a_patch_shows_all_landmarks() -> None:
    cases = make_cases(spread=60, noise=0)
    found = plan_context(measured(cases), cases, (72, 72, 80), ONE)
    assert found.fits
    assert found.reason == (
        "a patch of (72, 72, 80) mm shows all landmarks, which spread over (60, 60, 60) mm, with 20 % to spare or to the edge of "
        "the image in 100 % of the cases"
    )


def test_context_where_a_patch_shows_some_landmarks() -> None:
    cases = make_cases(spread=60, noise=0)
    found = plan_context(measured(cases), cases, (36, 80, 80), ONE)
    assert not found.fits
    assert found.reason.endswith("in 0 % of the cases: windows overlap, and each sees some of them")
    assert plan_context(measured(cases), cases, (36, 80, 80), (2.0, 2.0, 2.0)).fits
    # a voxel of the image is all there is, so that a patch as large needs no margin
    assert plan_context(measured(make_cases(spread=126, noise=0)), make_cases(spread=126, noise=0), (128, 128, 128), ONE).fits


def test_nine_of_ten_cases_must_fit() -> None:
    small, large = make_cases(n_cases=9, spread=30, noise=0), make_cases(n_cases=1, spread=90, noise=0)
    assert plan_context(measured(small + large), small + large, (40, 40, 40), ONE).fits
    assert not plan_context(measured(small + 2 * large), small + 2 * large, (40, 40, 40), ONE).fits
    assert plan_context(measured(small), [], (40, 40, 40), ONE).fits


PATCH = (64, 64, 64)
MACS = 1e12


def spread_out_cases(ndim: int = 3) -> list[CasePoints]:
    """Landmarks of which PATCH shows all in no case, a third of the pairs."""
    return make_cases(spread=80, ndim=ndim)


def test_a_branch_where_patches_show_some_and_the_others_tell_much() -> None:
    cases = spread_out_cases()
    found = plan_scn(measured(cases), cases, PATCH, ONE, MACS)
    assert found.scn == ScnPlan("convolutions", (4, 4, 4), 5, 3, 64, "gate")
    assert "a patch of (64, 64, 64) mm around a landmark shows 33 % of the pairs; the others explain 9" in found.reason
    assert "more than 80 %; the distance to neighbours is " in found.reason
    assert found.reason.endswith("more than 2; 40 cases are fewer than 150; distances between landmarks vary by 3 % (median)")
    assert list(found.reasons) == [f.name for f in fields(ScnPlan)]
    assert found.reasons["factor"] == "coarse maps of 16×16×16 voxels"
    assert found.reasons["kernel"].startswith("4 convolutions of 5 see 17 coarse voxels, landmarks spread over 1")
    assert found.reasons["features"].startswith("64 channels take ")


def test_no_branch_with_few_landmarks() -> None:
    two = make_cases(n_landmarks=2)
    assert plan_scn(measured(two), two, PATCH, ONE, MACS).reason.endswith("2 landmarks are fewer than 3 and have no arrangement")
    alone = [replace(c, state=(2, *(1,) * 9), points=(c.points[0], *(None,) * 9)) for c in make_cases()]
    assert plan_scn(measured(alone), alone, PATCH, ONE, MACS).reason.endswith("no case has two landmarks")


def test_no_branch_where_nine_of_ten_patches_show_all() -> None:
    small, large = make_cases(n_cases=9, spread=60, noise=0), make_cases(n_cases=1, spread=90, noise=0)
    found = plan_scn(measured(small + large), small + large, PATCH, ONE, MACS)
    assert found.scn is None
    assert found.reason == (
        "no spatial configuration branch: a patch of (64, 64, 64) mm shows all landmarks in 90 % of the cases: the network "
        "itself sees where the others are"
    )
    more = small[:4] + large
    assert "shows all landmarks" not in plan_scn(measured(more), more, PATCH, ONE, MACS).reason


@pytest.mark.parametrize(
    ("rho", "kappa", "n_cases", "used", "reason"),
    [
        (
            0.9,
            3.0,
            149,
            True,
            "(median), more than 80 %; the distance to neighbours is 3 times",
        ),
        (0.8, 3.0, 149, False, "(median), not more than 80 %"),
        (-3.0, 3.0, 10, False, "explain 0 % of the variance"),
        (0.9, 2.0, 149, False, "neighbours is 2 times the uncertainty that the others leave (median), not more than 2"),
        (0.9, 3.0, 150, False, "150 cases are not fewer than 150"),
        (None, None, 10, False, "too few cases to tell how much the others say about a landmark"),
    ],
)
def test_a_branch_needs_rho_kappa_and_few_cases(
    rho: float | None, kappa: float | None, n_cases: int, used: bool, reason: str
) -> None:
    cases = spread_out_cases()
    statistics = replace(measured(cases), median_rho=rho, median_kappa=kappa, n_cases=n_cases)
    found = plan_scn(statistics, cases, PATCH, ONE, MACS)
    assert (found.scn is not None) is used
    assert reason in found.reason
    assert found.reason.startswith("a spatial" if used else "no spatial")


@pytest.mark.parametrize(("ndim", "slice_axis"), [(3, None), (2, 0)])
def test_the_shape_of_a_branch_does_not_depend_on_the_rule(ndim: int, slice_axis: int | None) -> None:
    """Its shape does not depend on whether the rule wants it."""
    cases, patch = spread_out_cases(ndim), PATCH if ndim == 3 else (1, *PATCH[1:])
    statistics = measured(cases)
    wanted = plan_scn(statistics, cases, patch, ONE, MACS, slice_axis=slice_axis)
    assert wanted.scn is not None
    assert len(wanted.scn.factor) == ndim
    unwanted = replace(statistics, median_rho=0.1)
    assert plan_scn(unwanted, cases, patch, ONE, MACS, slice_axis=slice_axis).scn is None
    assert shape_scn(unwanted, patch, ONE, MACS, slice_axis=slice_axis) == (wanted.scn, wanted.reasons)


def test_coarse_voxels_are_about_as_long_along_every_axis() -> None:
    statistics = measured(make_cases(spread=90))
    assert shape_scn(statistics, (20, 96, 96), (5.0, 1.0, 1.0), MACS)[0].factor == (
        1,
        8,
        8,
    )  # 100 mm in 24 voxels or less: 5, 8 and 8
    assert shape_scn(statistics, (100, 108, 100), ONE, MACS)[0].factor == (4, 4, 4)  # 8 does not divide 100


def test_2d_branches_have_two_axes_and_wider_layers() -> None:
    found, _ = shape_scn(measured(make_cases(spread=90, ndim=2)), (1, 128, 128), ONE, MACS, slice_axis=0)
    assert found == ScnPlan("convolutions", (4, 4), 7, 3, 128, "gate")


def test_a_small_network_gets_a_small_branch() -> None:
    found, patch = [], (96, 96, 96)
    for macs in (1e12, 2e10, 1e10, 6e8, 1e6):
        scn, _ = shape_scn(measured(make_cases()), patch, ONE, macs)
        found.append((scn.factor[0], scn.features))
        assert found[-1] == (8, 16) or scn_macs(scn, 10, patch) <= 0.25 * macs
    assert found == [(4, 64), (4, 32), (4, 16), (8, 32), (8, 16)]


def test_a_u_net_where_convolutions_would_be_too_large() -> None:
    found, reasons = shape_scn(measured(make_cases(spread=120)), (126, 126, 126), ONE, MACS)  # divisible by 2 only: 63 voxels
    assert (found.form, found.factor, found.kernel) == ("unet", (2, 2, 2), 3)
    assert reasons["form"].startswith("convolutions of 7 would see 25 coarse voxels, too few for ")
    assert reasons["kernel"] == "small, since the U-Net sees far"


def test_work_of_a_branch_by_hand() -> None:
    scn = ScnPlan("convolutions", (8, 8, 8), 7, 3, 64, "gate")
    # the published branch for spines: 26 landmarks, 96 x 96 x 192 (Payer et al. 2019)
    assert scn_macs(scn, 26, (96, 96, 192)) == 343 * (2 * 26 * 64 + 2 * 64**2) * 12 * 12 * 24
    small = ScnPlan("unet", (8, 8, 8), 3, 2, 16, "gate")  # two convolutions on each of two levels, and one out
    assert scn_macs(small, 26, (64, 64, 64)) == 27 * (512 * (2 * 26 * 16 + 16**2) + 64 * 2 * 16**2)
    one = ScnPlan("per_landmark", (8, 8, 8), 3, 1, 16, "product")
    assert scn_macs(one, 26, (64, 64, 64)) == 27 * 512 * 26 * 26


def test_the_branch_of_a_flat_volume_has_three_axes() -> None:
    assert shape_scn(measured(make_cases(spread=90, ndim=2)), (1, 128, 128), ONE, MACS)[0].factor == (1, 8, 8)


@given(st.tuples(*[st.sampled_from((16, 24, 40, 64, 80, 100, 128, 192))] * 3), st.tuples(*[st.sampled_from((0.5, 1.0, 3.0))] * 3))
def test_factors_divide_the_patch(patch: tuple[int, int, int], spacing: tuple[float, float, float]) -> None:
    scn, _ = shape_scn(replace(statistics_with_neighbours(None), extent_mm=(9e9,) * 3), patch, spacing, MACS)
    assert all(n % f == 0 and (f & (f - 1)) == 0 for n, f in zip(patch, scn.factor))
    assert prod(scn.factor) >= 1


def test_one_landmark_is_enough_for_every_rule() -> None:
    point = PointStatistics("a", 1, 0, 0, 0, None, None, None, None, None, None)
    statistics = replace(statistics_with_neighbours(None), landmarks=(point,))
    cases = [CasePoints("c", ONE, (9, 9, 9), (2,), ((0, 0, 0),))]
    assert plan_context(statistics, cases, (8, 8, 8), ONE).fits
    assert plan_scn(statistics, cases, (8, 8, 8), ONE, MACS).scn is None
