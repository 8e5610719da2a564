"""Landmarks whose maps are undecided go where the others would have them, if their maps have a peak there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.landmark_phantoms import make_dataset, make_landmark_plan, preprocess_phantoms
from test_model_landmarks import Painted, model_of, painted, plain_placement, plan_of

from autoseg.errors import DataError
from autoseg.imaging.landmarks import LandmarkSet
from autoseg.inference.shape_prior import FILE, MOST_CASES, ShapePrior, fit_shape_prior, load_shape_prior
from autoseg.nets.device import Device
from autoseg.nets.heatmaps import PeakCandidates
from autoseg.plan import SpacePlan
from autoseg.preprocessing.store import StoredCase

ROW = np.array([[0, 0, 10.0 * i] for i in range(6)])
SURE = np.array([0.9, 0.9, 0.4, 0.9, 0.9, 0.9])


def row_of(n_cases: int) -> ShapePrior:
    """A row of six landmarks somewhere in each case, each about a mm off its place along x and y."""
    rng = np.random.default_rng(0)
    moved = ROW + rng.uniform(-50, 50, (n_cases, 1, 3)) + rng.normal(0, 1, (n_cases, 6, 3)) * (0, 1, 1)
    return ShapePrior(moved)


def places(*at: tuple[float, float, float], mass: tuple[float, ...] = (0.4, 0.1, 0.01)) -> dict[int, PeakCandidates]:
    """Of the third landmark."""
    return {2: PeakCandidates(np.array(at), np.array(mass[: len(at)]))}


def test_the_peak_that_goes_with_the_others() -> None:
    row, found = row_of(20), ROW + (3, 4, 5)
    far, near = (3, 200, 5), (3, 5, 25.5)
    assert row.choose(found, SURE, places(far, near)) == {2: 1}
    assert row.choose(found, SURE, places(far, (3, 90, 25), near)) == {2: 2}
    assert row.choose(found, SURE, places(near, far)) == {}  # it is the first already
    assert row.choose(found, SURE, places(far)) == {}
    assert row.choose(found, SURE, places((3, 6, 25), (3, 4, 25))) == {}  # both could be: the map decides
    assert row.choose(found, SURE, {}) == {}


def test_too_little_is_known() -> None:
    rivals, found = places((3, 200, 5), (3, 4, 25)), ROW + (3, 4, 5)
    assert row_of(4).choose(found, SURE, rivals) == {}
    few = row_of(20).cases.copy()
    few[4:, 2] = np.nan  # four cases have it
    assert ShapePrior(few).choose(found, SURE, rivals) == {}
    unsure = np.array([0.9, 0.9, 0.4, 0.4, 0.4, 0.4])  # two others tell no arrangement
    assert row_of(20).choose(found, unsure, rivals) == {}


def test_others_that_are_wrong_or_not_sure_do_not_count() -> None:
    found = ROW + (3, 4, 5)
    found[3] += 500
    assert row_of(20).choose(found, SURE, places((3, 200, 5), (3, 4, 25))) == {2: 1}
    assert row_of(20).choose(found, np.array([0.9, 0.9, 0.4, 0.4, 0.9, 0.9]), places((3, 200, 5), (3, 4, 25))) == {2: 1}


def test_files(tmp_path: Path) -> None:
    for name, n in (("fold_0", 3), ("fold_1", 4)):
        row_of(n).save(tmp_path / name)
    runs = [tmp_path / "fold_0", tmp_path / "fold_1"]
    both = load_shape_prior(runs)
    assert both is not None
    np.testing.assert_allclose(both.cases, np.concatenate([row_of(3).cases, row_of(4).cases]), rtol=1e-6)
    assert load_shape_prior([*runs, tmp_path / "fold_2"]) is None  # of before there was such a file
    whole = (runs[0] / FILE).read_bytes()
    (runs[0] / FILE).write_bytes(whole[:-20])
    with pytest.raises(DataError, match=r"arrangement of landmarks is damaged; file: .*fold_0.*arrangement\.npy; found: .*fix"):
        load_shape_prior(runs)


def test_of_prepared_cases(tmp_path: Path) -> None:
    """In mm of the plan's grid; what is absent or outside is not known."""
    dataset = make_dataset(tmp_path / "data", 3, lacking={1: ("nose",)})
    job = preprocess_phantoms(tmp_path, dataset, make_landmark_plan(dataset)).job
    cases = [StoredCase.open(job.prepared, case.name) for case in dataset.cases]
    outside = replace(cases[2].record, landmark_points=((999.0, 1.0, 1.0), *cases[2].record.landmark_points[1:]))
    found = fit_shape_prior([*cases[:2], replace(cases[2], record=outside)], job.plan.configurations["3d_fullres"].space).cases
    assert np.isnan(found).all(2).tolist() == [[False] * 3, [False, True, False], [True, False, False]]
    np.testing.assert_allclose(found[0], cases[0].points * (1.5, 1, 1))
    flat = SpacePlan("LPS", (0.5, 2.0), 0, "none", 3, 1)
    np.testing.assert_allclose(fit_shape_prior(cases[:1], flat).cases[0], cases[0].points * (1, 0.5, 2))
    assert len(fit_shape_prior(cases * 100, flat).cases) == MOST_CASES


@pytest.mark.parametrize("alone", [False, True])
def test_a_model_looks_for_the_place_that_goes_with_the_others(float32_cpu: Device, alone: bool) -> None:
    """The third map has a higher peak at the wrong place; if it has no other, it stays there."""
    shape, points = (12, 24, 28), np.array([[6, 12, 3.0], [6, 12, 8], [6, 12, 13], [6, 12, 18], [6, 12, 23]])
    wrong = points.copy()
    wrong[2] = (2, 3, 25)
    right, other = painted(points, shape), painted(wrong, shape)
    image = other if alone else np.logaddexp(right - 0.3, other)
    plan = plan_of(LandmarkSet(tuple("abcde")))
    cases = points * (1.5, 1, 1) + np.random.default_rng(0).normal(0, 1, (20, 5, 3))
    model = replace(model_of(plan, float32_cpu), networks=(Painted(),), shape_prior=ShapePrior(cases))
    before = replace(model, shape_prior=None).predict_prepared(image, plain_placement(shape), False).landmarks
    found = model.predict_prepared(image, plain_placement(shape), False).landmarks
    assert before is not None
    assert found is not None
    placement = plain_placement(shape)
    np.testing.assert_allclose(placement.to_voxels(before.points_mm), wrong, atol=0.05)
    np.testing.assert_allclose(placement.to_voxels(found.points_mm), wrong if alone else points, atol=0.05)
    assert found.confidence is not None
    assert before.confidence is not None
    assert bool(found.confidence[2] < before.confidence[2]) is not alone
