"""Scores: by hand, against SimpleITK, scipy and scikit-image, and what holds for any pair of masks."""

from dataclasses import astuple
from itertools import pairwise

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from scipy.spatial.distance import cdist
from skimage.segmentation import find_boundaries

from autoseg.errors import GeometryError, LabelError
from autoseg.evaluation.metrics import dice_per_structure, score_case, score_structure, surface_distances
from autoseg.imaging.labels import LabelSet
from autoseg.io import read_label_map

TWO = LabelSet(("anterior", "posterior"), (1, 2))
ONE_MM = (1.0, 1.0, 1.0)
MAPS = arrays(np.uint8, (4, 5, 6), elements=st.sampled_from([0, 1, 2]))
SPACINGS = st.tuples(*[st.floats(0.2, 5.0)] * 3)


def cube(start: int, stop: int, size: int = 12) -> np.ndarray:
    mask = np.zeros((size,) * 3, dtype=bool)
    mask[start:stop, start:stop, start:stop] = True
    return mask


def surface(mask: np.ndarray) -> np.ndarray:
    """The same definition in other words: what a face-connected erosion takes away, the outside being background."""
    return mask & ~ndimage.binary_erosion(mask, border_value=0)


# by hand


def test_two_voxels_apart():
    reference, prediction = np.zeros((2, 1, 1, 9), dtype=bool)
    reference[0, 0, 1], prediction[0, 0, 5] = True, True
    score = score_structure("dot", reference, prediction, (3.0, 2.0, 0.5), tolerance_mm=1.0)
    assert score.state == "both"
    assert (score.dice, score.iou, score.nsd) == (0, 0, 0)
    assert score.hd95_mm == score.assd_mm == 2.0
    assert score.volume_reference_mm3 == score.volume_prediction_mm3 == 3.0
    assert score.volume_error == 0
    assert score_structure("dot", reference, prediction, (3.0, 2.0, 0.5), tolerance_mm=2.0).nsd == 1


def test_half_of_a_bar():
    reference, prediction = np.zeros((2, 3, 3, 8), dtype=bool)
    reference[1, 1, 0:4], prediction[1, 1, 2:6] = True, True
    score = score_structure("bar", reference, prediction, ONE_MM, tolerance_mm=1.0)
    assert score.dice == 0.5
    assert score.iou == pytest.approx(1 / 3)
    assert score.assd_mm == pytest.approx((2 + 1 + 0 + 0) * 2 / 8)
    assert score.nsd == 6 / 8
    assert score.hd95_mm == pytest.approx(1.85)  # between the last two of 0, 0, 1, 2, at 95 % of the way along
    assert surface_distances(reference, prediction, ONE_MM).hausdorff(100) == 2


def test_a_shell_one_voxel_wider():
    distances = surface_distances(cube(4, 8), cube(3, 9), (1.0, 1.0, 1.0))
    assert len(distances.reference_to_prediction) == 4**3 - 2**3
    assert len(distances.prediction_to_reference) == 6**3 - 4**3
    assert set(distances.reference_to_prediction) == {1.0}
    assert distances.hausdorff(100) == pytest.approx(3**0.5)


def test_a_structure_on_the_border_has_a_surface_there():
    mask = np.ones((3, 3, 3), dtype=bool)
    assert len(surface_distances(mask, mask, ONE_MM).reference_to_prediction) == 26


def test_a_slice_has_no_surface_above_and_below():
    mask = np.zeros((1, 9, 9), dtype=bool)
    mask[0, 2:7, 2:7] = True
    assert len(surface_distances(mask, mask, ONE_MM).reference_to_prediction) == 25 - 9
    two_slices = np.concatenate((mask, np.zeros_like(mask)))
    assert len(surface_distances(two_slices, two_slices, ONE_MM).reference_to_prediction) == 25


def test_one_slice_of_a_volume_is_scored_as_a_volume():
    indices = np.zeros((3, 9, 9), dtype=np.uint8)
    indices[1, 2:7, 2:7] = 1
    smaller = indices.copy()
    smaller[1, 2:7, 6] = 0
    score = score_case(indices, smaller, TWO, ONE_MM, tolerance_mm=0.0)[0]
    assert score.nsd == (20 + 20) / (25 + 20)  # every voxel is surface


def test_nsd_at_exactly_the_tolerance():
    reference, prediction = np.zeros((2, 1, 1, 9), dtype=bool)
    reference[0, 0, 0], prediction[0, 0, 3] = True, True
    assert score_structure("dot", reference, prediction, (1, 1, 0.1), tolerance_mm=0.3).nsd == 1


def test_states_and_what_is_undefined():
    reference = np.zeros((1, 2, 4), dtype=np.uint8)
    prediction = reference.copy()
    reference[0, 0, :2], reference[0, 1, 0] = 1, 2
    prediction[0, 0, 0], prediction[0, 1, 3] = 1, 3
    labels = LabelSet(("both", "missed", "extra", "absent"), (1, 2, 3, 4))
    both, missed, extra, absent = score_case(reference, prediction, labels, (2.0, 1.0, 1.0))
    assert [s.state for s in (both, missed, extra, absent)] == [s.structure for s in (both, missed, extra, absent)]
    assert astuple(missed)[2:] == (0.0, 0.0, None, None, 0.0, 2.0, 0.0)
    assert astuple(extra)[2:] == (0.0, 0.0, None, None, 0.0, 0.0, 2.0)
    assert astuple(absent)[2:] == (None, None, None, None, None, 0.0, 0.0)
    assert (both.volume_error, missed.volume_error, extra.volume_error, absent.volume_error) == (-0.5, -1.0, None, None)
    assert both.dice == pytest.approx(2 / 3)
    assert dice_per_structure(reference, prediction, 5, labels.ignore_index) == (pytest.approx(2 / 3), 0.0, 0.0, None)


def test_ignored_voxels_are_left_out():
    labels = LabelSet(("a", "b"), (1, 2), ignore=9)
    reference = labels.encode(np.array([[[1, 1, 9, 9, 2]]]))
    prediction = np.array([[[1, 1, 1, 2, 0]]], dtype=np.uint8)
    a, b = score_case(reference, prediction, labels, ONE_MM)
    assert (a.dice, a.hd95_mm, a.volume_prediction_mm3) == (1, 0, 2)
    assert (b.state, b.volume_prediction_mm3) == ("missed", 0)
    assert dice_per_structure(reference, prediction, 3, labels.ignore_index) == (1.0, 0.0)


def test_predicted_ignore_is_background():
    reference = np.array([[[1, 1, 2]]], dtype=np.uint8)
    prediction = np.array([[[1, 255, 255]]], dtype=np.uint8)
    assert [s.dice for s in score_case(reference, prediction, TWO, ONE_MM)] == [pytest.approx(2 / 3), 0]
    assert dice_per_structure(reference, prediction, 3, 255) == (pytest.approx(2 / 3), 0.0)


def test_errors():
    small, large = np.zeros((1, 2, 3), np.uint8), np.zeros((2, 2, 3), np.uint8)
    with pytest.raises(GeometryError, match=r"differ in shape; found: prediction \(2, 2, 3\)"):
        score_case(small, large, TWO, ONE_MM)
    with pytest.raises(GeometryError, match="differ in shape"):
        dice_per_structure(small, large, 3, 255)
    with pytest.raises(LabelError, match="class index out of range; found: 7; allowed: 0…2"):
        dice_per_structure(small, small + np.uint8(7), 3, 255)


# oracles


def hippocampi(real_data) -> list:
    folder = real_data("Task04_Hippocampus") / "labelsTr"
    return [read_label_map(p, TWO) for p in sorted(folder.glob("hippocampus_*.nii.gz"))[:4]]


def real_pairs(real_data) -> list[tuple[np.ndarray, np.ndarray, tuple[float, float, float]]]:
    """Two different cases on their common part, a case against itself moved, and against itself eroded; spacings of all kinds."""
    maps = hippocampi(real_data)
    pairs = []
    for first, second in pairwise(maps):
        z, y, x = (min(sizes) for sizes in zip(first.grid.shape, second.grid.shape))
        pairs.append((first.data[:z, :y, :x], second.data[:z, :y, :x], first.grid.spacing))
    whole = maps[0].data
    pairs.append((whole, np.roll(whole, (1, -2, 1), axis=(0, 1, 2)), (2.5, 0.7, 0.7)))
    pairs.append((whole, np.where(ndimage.binary_erosion(whole > 0), whole, 0), (0.6, 0.9, 3.3)))
    return pairs


def as_itk(mask: np.ndarray, spacing: tuple[float, float, float]) -> sitk.Image:
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(spacing[::-1])
    return image


@pytest.mark.real
def test_real_overlap_agrees_with_simpleitk(real_data):
    for reference, prediction, spacing in real_pairs(real_data):
        scores = score_case(reference, prediction, TWO, spacing)
        overlap = sitk.LabelOverlapMeasuresImageFilter()
        overlap.Execute(as_itk(reference, spacing), as_itk(prediction, spacing))
        fast = dice_per_structure(reference, prediction, 3, 255)
        for index, score in enumerate(scores, start=1):
            assert score.dice == pytest.approx(overlap.GetDiceCoefficient(index), abs=1e-4)
            assert score.iou == pytest.approx(overlap.GetJaccardCoefficient(index), abs=1e-4)
            assert score.dice == pytest.approx(fast[index - 1], abs=1e-12)


@pytest.mark.real
def test_real_surface_distances_agree_with_simpleitk(real_data):
    for reference, prediction, spacing in real_pairs(real_data):
        for index in (1, 2):
            a, b = reference == index, prediction == index
            distances = surface_distances(a, b, spacing)
            both = (distances.reference_to_prediction, distances.prediction_to_reference)
            hausdorff = sitk.HausdorffDistanceImageFilter()
            hausdorff.Execute(as_itk(surface(a), spacing), as_itk(surface(b), spacing))
            assert distances.hausdorff(100) == pytest.approx(hausdorff.GetHausdorffDistance(), abs=1e-4)
            assert np.mean([d.mean() for d in both]) == pytest.approx(hausdorff.GetAverageHausdorffDistance(), abs=1e-4)


@pytest.mark.real
def test_real_scores_from_the_full_table_of_distances(real_data):
    for reference, prediction, spacing in real_pairs(real_data):
        for score in score_case(reference, prediction, TWO, spacing, tolerance_mm=1.0):
            index = TWO.names.index(score.structure) + 1
            a, b = (np.argwhere(surface(m == index)) * spacing for m in (reference, prediction))
            table = cdist(a, b)
            there, back = table.min(axis=1), table.min(axis=0)
            assert score.hd95_mm == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), abs=1e-9)
            assert score.assd_mm == pytest.approx((there.sum() + back.sum()) / (len(a) + len(b)), abs=1e-9)
            assert score.nsd == pytest.approx(((there <= 1).sum() + (back <= 1).sum()) / (len(a) + len(b)), abs=1e-9)


def test_surface_agrees_with_scikit_image():
    mask = np.random.default_rng(0).random((6, 7, 8)) < 0.8
    mask = ndimage.binary_closing(mask, iterations=2)
    padded = find_boundaries(np.pad(mask, 1), connectivity=1, mode="inner")
    assert len(surface_distances(mask, mask, ONE_MM).reference_to_prediction) == np.count_nonzero(padded)


# properties


@settings(max_examples=25, deadline=None)
@given(MAPS, MAPS, SPACINGS)
def test_swapping_the_maps_swaps_only_roles(reference, prediction, spacing):
    role = {"missed": "extra", "extra": "missed", "both": "both", "absent": "absent"}
    for a, b in zip(score_case(reference, prediction, TWO, spacing), score_case(prediction, reference, TWO, spacing)):
        assert a.state == role[b.state]
        assert (a.dice, a.iou, a.hd95_mm) == (b.dice, b.iou, b.hd95_mm)
        assert (a.assd_mm, a.nsd) == (pytest.approx(b.assd_mm), b.nsd)
        assert a.volume_reference_mm3 == b.volume_prediction_mm3


@settings(max_examples=25, deadline=None)
@given(MAPS, MAPS, SPACINGS)
def test_background_around_changes_nothing_and_ranges_hold(reference, prediction, spacing):
    scores = score_case(reference, prediction, TWO, spacing)
    assert scores == score_case(np.pad(reference, 3), np.pad(prediction, 3), TWO, spacing)
    assert tuple(s.dice for s in scores) == pytest.approx(dice_per_structure(reference, prediction, 3, 255))
    for score in scores:
        if score.state == "both":
            assert 0 <= score.iou <= score.dice <= 1
            assert score.dice == pytest.approx(2 * score.iou / (1 + score.iou))
            assert 0 <= score.nsd <= 1


@settings(max_examples=25, deadline=None)
@given(MAPS, SPACINGS, st.floats(0.5, 4.0))
def test_scaling_space_scales_distances(indices, spacing, factor):
    moved = np.roll(indices, 1, axis=2)
    for a, b in zip(
        score_case(indices, moved, TWO, spacing, tolerance_mm=1.0),
        score_case(indices, moved, TWO, tuple(s * factor for s in spacing), tolerance_mm=factor),
    ):
        if a.state == "both":
            assert (b.hd95_mm, b.assd_mm) == pytest.approx((a.hd95_mm * factor, a.assd_mm * factor))


@settings(max_examples=25, deadline=None)
@given(MAPS, SPACINGS)
def test_a_map_against_itself_is_perfect(indices, spacing):
    for score in score_case(indices, indices, TWO, spacing):
        wanted = (1, 1, 0, 0, 1) if score.state == "both" else (None,) * 5
        assert (score.dice, score.iou, score.hd95_mm, score.assd_mm, score.nsd) == wanted
