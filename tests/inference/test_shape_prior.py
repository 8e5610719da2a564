"""The shape prior: an undecided landmark goes where its neighbours expect it, if its map has a peak there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.landmark_phantoms import make_dataset, make_landmark_plan, preprocess_phantoms
from test_model_landmarks import Painted, model_of, painted, plain_placement, plan_of

from autoseg.errors import DataError
from autoseg.imaging.landmarks import LandmarkSet
from autoseg.inference.shape_prior import FILE, MOST_CASES, OLD_FILE, ShapePrior, fit_shape_prior, load_shape_prior
from autoseg.nets.device import Device
from autoseg.nets.heatmaps import PeakCandidates
from autoseg.plan import SpacePlan
from autoseg.preprocessing.store import StoredCase

ROW = np.array([[0, 0, 10.0 * i] for i in range(6)])
SURE = np.array([0.9, 0.9, 0.4, 0.9, 0.9, 0.9])


def row_of(n_cases: int) -> ShapePrior:
    """A row of six landmarks somewhere in each case, each about a mm off its mean position along x and y."""
    rng = np.random.default_rng(0)
    moved = ROW + rng.uniform(-50, 50, (n_cases, 1, 3)) + rng.normal(0, 1, (n_cases, 6, 3)) * (0, 1, 1)
    return ShapePrior(moved)


def candidates(*points: tuple[float, float, float], mass: tuple[float, ...] = (0.4, 0.1, 0.01)) -> dict[int, PeakCandidates]:
    """Of the third landmark."""
    return {2: PeakCandidates(np.array(points), np.array(mass[: len(points)]))}


def test_the_peak_where_neighbours_expect_the_landmark_is_chosen() -> None:
    row, peaks = row_of(20), ROW + (3, 4, 5)
    far, near = (3, 200, 5), (3, 5, 25.5)
    assert row.choose(peaks, SURE, candidates(far, near)) == {2: 1}
    assert row.choose(peaks, SURE, candidates(far, (3, 90, 25), near)) == {2: 2}
    assert row.choose(peaks, SURE, candidates(near, far)) == {}  # it is the first already
    assert row.choose(peaks, SURE, candidates(far)) == {}
    assert row.choose(peaks, SURE, candidates((3, 6, 25), (3, 4, 25))) == {}  # both fit: the map decides
    assert row.choose(peaks, SURE, {}) == {}


def test_too_few_cases_or_neighbours_choose_nothing() -> None:
    two, peaks = candidates((3, 200, 5), (3, 4, 25)), ROW + (3, 4, 5)
    assert row_of(4).choose(peaks, SURE, two) == {}
    few = row_of(20).cases.copy()
    few[4:, 2] = np.nan  # four cases have it
    assert ShapePrior(few).choose(peaks, SURE, two) == {}
    unsure = np.array([0.9, 0.9, 0.4, 0.4, 0.4, 0.4])  # two neighbours are too few
    assert row_of(20).choose(peaks, unsure, two) == {}


def test_a_wrong_or_untrusted_neighbour_does_not_count() -> None:
    peaks = ROW + (3, 4, 5)
    peaks[3] += 500
    assert row_of(20).choose(peaks, SURE, candidates((3, 200, 5), (3, 4, 25))) == {2: 1}
    assert row_of(20).choose(peaks, np.array([0.9, 0.9, 0.4, 0.4, 0.9, 0.9]), candidates((3, 200, 5), (3, 4, 25))) == {2: 1}


def test_saved_shape_priors_of_folds_are_joined(tmp_path: Path) -> None:
    for name, n in (("fold_0", 3), ("fold_1", 4)):
        row_of(n).save(tmp_path / name)
    runs = [tmp_path / "fold_0", tmp_path / "fold_1"]
    both = load_shape_prior(runs)
    assert both is not None
    np.testing.assert_allclose(both.cases, np.concatenate([row_of(3).cases, row_of(4).cases]), rtol=1e-6)
    assert load_shape_prior([*runs, tmp_path / "fold_2"]) is None  # as runs of before there was such a file
    whole = (runs[0] / FILE).read_bytes()
    (runs[0] / FILE).write_bytes(whole[:-20])
    with pytest.raises(
        DataError, match=r"shape prior of the landmarks is damaged; file: .*fold_0.*shape_prior\.npy; found: .*fix"
    ):
        load_shape_prior(runs)


def test_older_runs_are_read_and_the_new_name_goes_first(tmp_path: Path) -> None:
    row_of(3).save(tmp_path)
    (tmp_path / FILE).rename(tmp_path / OLD_FILE)
    old = load_shape_prior([tmp_path])
    assert old is not None
    assert old.cases.shape == (3, 6, 3)
    row_of(4).save(tmp_path)  # an old run that was continued
    new = load_shape_prior([tmp_path])
    assert new is not None
    assert new.cases.shape == (4, 6, 3)


def test_fitting_to_prepared_cases(tmp_path: Path) -> None:
    """In mm of the plan's grid; what is absent or outside the image is NaN."""
    dataset = make_dataset(tmp_path / "data", 3, lacking={1: ("nose",)})
    job = preprocess_phantoms(tmp_path, dataset, make_landmark_plan(dataset)).job
    cases = [StoredCase.open(job.prepared, case.name) for case in dataset.cases]
    outside = replace(cases[2].record, landmark_points=((999.0, 1.0, 1.0), *cases[2].record.landmark_points[1:]))
    fitted = fit_shape_prior([*cases[:2], replace(cases[2], record=outside)], job.plan.configurations["3d_fullres"].space).cases
    assert np.isnan(fitted).all(2).tolist() == [[False] * 3, [False, True, False], [True, False, False]]
    np.testing.assert_allclose(fitted[0], cases[0].points * (1.5, 1, 1))
    flat = SpacePlan("LPS", (0.5, 2.0), 0, "none", 3, 1)
    np.testing.assert_allclose(fit_shape_prior(cases[:1], flat).cases[0], cases[0].points * (1, 0.5, 2))
    assert len(fit_shape_prior(cases * 100, flat).cases) == MOST_CASES


@pytest.mark.parametrize("alone", [False, True])
def test_a_model_takes_the_peak_that_the_shape_prior_chooses(float32_cpu: Device, alone: bool) -> None:
    """The third map has a higher peak at a wrong point; if it has no other, it stays there."""
    shape, points = (12, 24, 28), np.array([[6, 12, 3.0], [6, 12, 8], [6, 12, 13], [6, 12, 18], [6, 12, 23]])
    wrong = points.copy()
    wrong[2] = (2, 3, 25)
    right_maps, wrong_maps = painted(points, shape), painted(wrong, shape)
    image = wrong_maps if alone else np.logaddexp(right_maps - 0.3, wrong_maps)
    plan = plan_of(LandmarkSet(tuple("abcde")))
    cases = points * (1.5, 1, 1) + np.random.default_rng(0).normal(0, 1, (20, 5, 3))
    model = replace(model_of(plan, float32_cpu), networks=(Painted(),), shape_prior=ShapePrior(cases))
    without = replace(model, shape_prior=None).predict_prepared(image, plain_placement(shape), False).landmarks
    landmarks = model.predict_prepared(image, plain_placement(shape), False).landmarks
    assert without is not None
    assert landmarks is not None
    placement = plain_placement(shape)
    np.testing.assert_allclose(placement.to_voxels(without.points_mm), wrong, atol=0.05)
    np.testing.assert_allclose(placement.to_voxels(landmarks.points_mm), wrong if alone else points, atol=0.05)
    assert landmarks.confidence is not None
    assert without.confidence is not None
    assert bool(landmarks.confidence[2] < without.confidence[2]) is not alone
