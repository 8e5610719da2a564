"""Landmarks of a model: the same points whatever the memory, the view and the slices; on networks with random weights."""

from __future__ import annotations

from dataclasses import replace
from math import erf, sqrt
from typing import Any

import numpy as np
import pytest
import torch
from helpers.landmark_phantoms import NAMES, make_landmark_plan
from torch import Tensor, nn

from autoseg.dataset import Dataset
from autoseg.imaging.geometry import AxisMap, Box, Grid
from autoseg.imaging.image import Image
from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import LandmarkSet, State
from autoseg.inference import landmarks as landmarks_module
from autoseg.inference.model import Model
from autoseg.nets import Output
from autoseg.nets.build import build_network
from autoseg.nets.device import Device
from autoseg.nets.heatmaps import Peaks, find_peaks
from autoseg.plan import Plan, ScnPlan
from autoseg.preprocessing.placement import Placement

SIDES = LandmarkSet(NAMES, (("left ear", "right ear"),))
BALL, NOTHING = LabelSet(("ball",), (1,)), LabelSet((), ())


def plan_of(landmarks: LandmarkSet, labels: LabelSet = NOTHING, **options: Any) -> Plan:
    return make_landmark_plan(Dataset("x", None, ("MR",), labels, (), landmarks), **options)  # type: ignore[arg-type]


def model_of(plan: Plan, device: Device, n: int = 1, **changes: Any) -> Model:
    torch.manual_seed(0)
    configuration = plan.configuration(None)[1]
    networks = tuple(build_network(plan, configuration, device).eval() for _ in range(n))
    return Model(networks, plan, configuration, device, **changes)


def maps_of(model: Model, image: np.ndarray) -> Tensor:
    """Maps of the three landmarks of SIDES, without mirroring."""
    return model.predict_outputs(image, False, None, classes=False, landmarks=(0, 1, 2))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def plain_placement(shape: tuple[int, int, int]) -> Placement:
    grid = Grid.from_spacing(shape, (1.5, 1, 1), (4, 5, 6))
    return Placement(grid, AxisMap((0, 1, 2), (False,) * 3), Box((0, 0, 0), shape), grid)


@pytest.mark.parametrize(("coarse", "maps"), [(False, False), (True, False), (False, True)])
def test_a_mirrored_case_has_mirrored_landmarks(float32_cpu: Device, coarse: bool, maps: bool) -> None:
    """Names swap with the sides; the midline keeps its name."""
    model = model_of(plan_of(SIDES, BALL if maps else NOTHING, coarse=coarse), float32_cpu)
    image = noise(1, 12, 24, 28)
    peaks = model.predict_logits(image, True).peaks
    mirrored = model.predict_logits(np.ascontiguousarray(image[..., ::-1]), True).peaks
    plain = model.predict_logits(image, False).peaks
    assert peaks is not None
    assert mirrored is not None
    assert plain is not None
    expected = peaks.points[[2, 1, 0]]
    expected[:, 2] = 27 - expected[:, 2]
    np.testing.assert_allclose(mirrored.points, expected, atol=1e-3)
    np.testing.assert_allclose(mirrored.presence, peaks.presence[[2, 1, 0]], atol=1e-5)
    assert np.abs(plain.points - peaks.points).max() > 0.1


@pytest.mark.parametrize("n", [1, 2, 200])
@pytest.mark.parametrize("maps", [False, True])
def test_maps_beyond_memory_are_predicted_in_groups(
    float32_cpu: Device, monkeypatch: pytest.MonkeyPatch, n: int, maps: bool
) -> None:
    """With pairs that lie far apart in the list."""
    names = tuple(f"p{i}" for i in range(n))
    pairs = tuple((f"p{i}", f"p{n - 1 - i}") for i in range(n // 3))
    model = model_of(plan_of(LandmarkSet(names, pairs), BALL if maps else NOTHING), float32_cpu)
    image = noise(1, 12, 24, 60)  # more than one window
    whole = model.predict_logits(image, True)
    assert whole.peaks is not None
    assert whole.peaks.points.shape == (n, 3)
    assert len(model.landmark_reader.groups(image.shape[1:])) == 1
    sizes: list[int] = []
    predict_outputs = Model.predict_outputs

    def counted(self: Model, *arguments: Any, **options: Any) -> Tensor:
        outputs = predict_outputs(self, *arguments, **options)
        sizes.append(len(outputs))
        return outputs

    monkeypatch.setattr(Model, "predict_outputs", counted)
    monkeypatch.setattr(landmarks_module, "MAPS_AT_ONCE", 7 * 4 * (12 * 24 * 60 + 2 * 2 * 12 * 24 * 28))  # seven landmarks
    parts = model.predict_logits(image, True)
    assert parts.peaks is not None
    for part in ("points", "presence", "confidence"):
        np.testing.assert_allclose(getattr(parts.peaks, part), getattr(whole.peaks, part), atol=1e-4)
    assert max(sizes) <= 7 + 2 * maps
    assert sum(sizes) == n + 2 * maps
    assert len(sizes) >= n / 7
    if maps:
        np.testing.assert_allclose(parts.logits, whole.logits, atol=1e-5)
    else:
        assert parts.logits is None


def test_memory_for_two_hundred_landmarks_is_bounded(float32_cpu: Device) -> None:
    """On 200³ voxels whole maps would take 6.4 GB."""
    plan = plan_of(LandmarkSet(tuple(f"p{i}" for i in range(200))))
    for patch in ((64, 64, 64), (160, 168, 168)):
        configuration = plan.configuration(None)[1]
        model = replace(
            model_of(plan, float32_cpu),
            configuration=replace(configuration, patch=replace(configuration.patch, patch_size=patch)),
        )
        groups = model.landmark_reader.groups((200, 200, 200))
        assert [i for group in groups for i in group] == list(range(200))
        assert max(map(len, groups)) * 4 * 200**3 < 2.2e9


class Painted(nn.Module):
    """Stands in for a network: its maps are channels of the image."""

    point_head = None

    def forward(self, x: Tensor, landmarks: tuple[int, ...]) -> Any:
        return Output([], x[:, list(landmarks)])


def painted(points: np.ndarray, shape: tuple[int, int, int], width: float = 1.5) -> np.ndarray:
    """Logits of a Gaussian around each point, far below 0 elsewhere."""
    grid = np.stack(np.indices(shape), -1)
    squared = ((grid - points[:, None, None, None]) ** 2).sum(-1)
    return (6 - squared / (2 * width**2)).astype(np.float32)


def test_overlapping_windows_are_averaged(float32_cpu: Device) -> None:
    """Each window sees the same map, so the mean of the logits is the map itself; from there to the world."""
    plan = plan_of(LandmarkSet(("a", "b")))
    model = replace(model_of(plan, float32_cpu), networks=(Painted(),))
    shape = (12, 40, 60)
    points = np.array([[5.25, 20.5, 30.125], [8.0, 3.5, 55.25]])
    placement = plain_placement(shape)
    landmarks = model.predict_prepared(painted(points, shape), placement, False).landmarks
    assert landmarks is not None
    np.testing.assert_allclose(placement.to_voxels(landmarks.points_mm), points, atol=1e-3)
    assert landmarks.state.tolist() == [State.PRESENT] * 2
    assert landmarks.confidence is not None
    share = erf(2.5 / (1.5 * sqrt(2))) ** 3  # of the Gaussian, within two voxels along each axis
    np.testing.assert_allclose(landmarks.confidence, share, atol=0.05)


def test_presence_thresholds(float32_cpu: Device) -> None:
    plan = plan_of(LandmarkSet(("a", "b", "c")))
    image = painted(np.array([[6.0, 12, 14]] * 3), (12, 24, 28)) - np.array([0, 9, 9], dtype=np.float32)[:, None, None, None]
    model = replace(model_of(plan, float32_cpu), networks=(Painted(),), thresholds=(0.5, 0.9, 0.0))
    landmarks = model.predict_prepared(image, plain_placement((12, 24, 28)), False).landmarks
    assert landmarks is not None
    assert landmarks.state.tolist() == [State.PRESENT, State.ABSENT, State.PRESENT]
    assert np.isnan(landmarks.points_mm[1]).all()
    presence = model.predict_prepared(image, plain_placement((12, 24, 28)), False).presence
    assert presence is not None
    assert presence[1] == pytest.approx(presence[2])
    assert presence[1] < 0.9 < presence[0]
    undecided = replace(model, thresholds=()).predict_prepared(image, plain_placement((12, 24, 28)), False).landmarks
    assert undecided is not None
    assert undecided.present.all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_2d_network_finds_the_slice_of_a_landmark(float32_cpu: Device, axis: int) -> None:
    plan = plan_of(LandmarkSet(("a", "b")), pictures=True)
    configuration = plan.configuration(None)[1]
    space = replace(configuration.space, slice_axis=axis, spacing_mm=(1.0, 1.0))
    model = Model((Painted(),), plan, replace(configuration, space=space), float32_cpu)  # type: ignore[arg-type]
    shape = tuple(np.insert([32, 40], axis, 5).tolist())
    points = np.array([np.insert([10.25, 20.5], axis, 3.0), np.insert([20.75, 8.0], axis, 0.0)])
    peaks = model.predict_logits(painted(points, shape), False).peaks  # type: ignore[arg-type]
    assert peaks is not None
    np.testing.assert_allclose(peaks.points, points, atol=1e-3)


def test_folds_are_averaged_and_bfloat16_hardly_matters(float32_cpu: Device) -> None:
    plan = plan_of(SIDES)
    both = model_of(plan, float32_cpu, 2)
    image = noise(1, 12, 24, 28)
    mean, first, second = (maps_of(m, image) for m in (both, *(replace(both, networks=(n,)) for n in both.networks)))
    torch.testing.assert_close(mean, (first + second) / 2, atol=1e-5, rtol=1e-5)
    half = maps_of(replace(both, device=Device(torch.device("cpu"), torch.bfloat16)), image)
    assert half.dtype == torch.float32
    assert not torch.equal(half, half.bfloat16().float())  # the head itself has computed in float32
    assert 0 < (half - mean).abs().max() < 0.2 * mean.flatten(1).std(1).min()  # their mean is a constant


def test_an_image_is_predicted_in_the_world(float32_cpu: Device) -> None:
    """Whatever the orientation of the file, the same points of the world come out."""
    model = model_of(plan_of(SIDES, BALL), float32_cpu)
    grid = Grid.from_spacing((12, 24, 28), (1.5, 1, 1), (-3, 4, 5))
    image = noise(1, 12, 24, 28)
    plain = model.predict_image(Image(image, grid, ("MR",)), True)
    axes = AxisMap((2, 0, 1), (True, False, True))
    turned = Image(np.ascontiguousarray(axes.apply(image)), grid.reoriented(axes), ("MR",))
    prediction = model.predict_image(turned, True, probabilities=True)
    assert plain.landmarks is not None
    assert prediction.landmarks is not None
    assert plain.labels is not None
    assert prediction.labels is not None
    np.testing.assert_allclose(prediction.landmarks.points_mm, plain.landmarks.points_mm, atol=1e-4)
    assert np.array_equal(prediction.labels, axes.apply(plain.labels))
    assert plain.probabilities is None
    assert prediction.probabilities is not None
    assert prediction.probabilities.shape == (2, *turned.grid.shape)


@pytest.mark.parametrize("tilt", [0.0, 0.2])
def test_a_case_mirrored_in_the_world_is_predicted_mirrored(float32_cpu: Device, tilt: float) -> None:
    """Files of the same voxels, of which one says that left is right: with flips on, sides change names, places and classes."""
    lobes = LabelSet(("left lobe", "right lobe"), (1, 2))
    model = model_of(plan_of(SIDES, lobes), float32_cpu)
    turn, mirror = np.eye(4), np.diag([-1.0, 1, 1, 1])
    turn[:2, :2] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    grid = Grid((12, 24, 28), turn @ Grid.from_spacing((12, 24, 28), (1.5, 1, 1), (-3, 4, 5)).affine)
    plain, mirrored = (
        model.predict_image(Image(noise(1, 12, 24, 28), Grid(grid.shape, affine), ("MR",)), True)
        for affine in (grid.affine, mirror @ grid.affine)
    )
    assert plain.landmarks is not None
    assert mirrored.landmarks is not None
    assert plain.labels is not None
    assert mirrored.labels is not None
    np.testing.assert_allclose(mirrored.landmarks.points_mm, plain.landmarks.points_mm[[2, 1, 0]] * (-1, 1, 1), atol=1e-3)
    assert np.ptp(plain.landmarks.points_mm[[0, 2]], axis=0).max() > 1  # else nobody could tell them apart
    swapped = np.array([0, 2, 1])[plain.labels]
    assert (swapped != plain.labels).any()
    assert (mirrored.labels == swapped).mean() > 0.999  # two classes may be as likely but for rounding


SCN = ScnPlan("convolutions", (2, 4, 4), 3, 1, 4, "gate")


def with_branch(model: Model, factor: tuple[int, ...] = SCN.factor) -> Model:
    """The same networks, each with a branch that says something, and a plan that has it."""
    torch.manual_seed(1)
    plan = model.configuration.landmarks
    assert plan is not None
    scn = replace(SCN, factor=factor)
    configuration = replace(model.configuration, landmarks=replace(plan, scn=scn))
    networks = []
    for old in model.networks:
        network = build_network(model.plan, configuration, model.device).eval()
        network.load_state_dict(old.state_dict(), strict=False)
        assert network.point_head is not None
        assert network.point_head.scn is not None
        for p in network.point_head.scn.parameters():
            nn.init.normal_(p)
        networks.append(network)
    return replace(model, networks=tuple(networks), configuration=configuration)


def peaks_of(model: Model, image: np.ndarray, mirror: bool = False) -> Peaks:
    peaks = model.predict_logits(image, mirror).peaks
    assert peaks is not None
    return peaks


@pytest.mark.parametrize("coarse", [False, True])
def test_a_branch_is_equivariant_to_mirroring(float32_cpu: Device, coarse: bool) -> None:
    """It sees the mean over all views, and is itself applied in every view."""
    model = with_branch(model_of(plan_of(SIDES, coarse=coarse), float32_cpu))
    image = noise(1, 12, 24, 32)
    peaks = peaks_of(model, image, True)
    mirrored = peaks_of(model, np.ascontiguousarray(image[..., ::-1]), True)
    expected = peaks.points[[2, 1, 0]]
    expected[:, 2] = 31 - expected[:, 2]
    np.testing.assert_allclose(mirrored.points, expected, atol=1e-3)
    np.testing.assert_allclose(mirrored.presence, peaks.presence[[2, 1, 0]], atol=1e-5)


@pytest.mark.parametrize("maps", [False, True])
def test_a_branch_sees_the_landmarks_of_all_groups(float32_cpu: Device, monkeypatch: pytest.MonkeyPatch, maps: bool) -> None:
    names = tuple(f"p{i}" for i in range(20))
    pairs = tuple((f"p{i}", f"p{19 - i}") for i in range(6))
    model = model_of(plan_of(LandmarkSet(names, pairs), BALL if maps else NOTHING), float32_cpu)
    branched = with_branch(model)
    image = noise(1, 12, 24, 60)  # more than one window
    whole = branched.predict_logits(image, True)
    assert whole.peaks is not None
    assert np.abs(whole.peaks.points - peaks_of(model, image, True).points).max() > 1
    monkeypatch.setattr(landmarks_module, "MAPS_AT_ONCE", 7 * 4 * (12 * 24 * 60 + 2 * 2 * 12 * 24 * 28))  # seven landmarks
    assert len(branched.landmark_reader.groups(image.shape[1:])) == 3
    parts = branched.predict_logits(image, True)
    assert parts.peaks is not None
    for part in ("points", "presence", "confidence"):
        np.testing.assert_allclose(getattr(parts.peaks, part), getattr(whole.peaks, part), atol=1e-4)
    if maps:
        np.testing.assert_allclose(parts.logits, whole.logits, atol=1e-5)


def test_a_branch_is_applied_to_the_mean_of_all_windows(float32_cpu: Device) -> None:
    """As training does it for a patch that shows everything: maps, then the branch on all of them."""
    model = with_branch(model_of(plan_of(SIDES), float32_cpu))
    image = noise(1, 12, 24, 60)
    local = maps_of(model, image).unsqueeze(0)
    head = model.networks[0].point_head
    assert head is not None
    assert head.scn is not None
    with torch.inference_mode():
        final = head.scn.combine(local, head.scn(head.scn.coarse_view(local)))
    np.testing.assert_allclose(peaks_of(model, image).points, find_peaks(final[0]).points, atol=1e-4)


def test_branches_of_folds_are_averaged_on_common_maps(float32_cpu: Device) -> None:
    model = with_branch(model_of(plan_of(SIDES), float32_cpu, 2))
    image = noise(1, 12, 24, 28)
    local = maps_of(model, image).unsqueeze(0)
    branches = model.landmark_reader.branches
    assert len(branches) == 2
    with torch.inference_mode():
        spatial = sum(branch(branch.coarse_view(local)) for branch in branches) / 2
        final = branches[0].combine(local, spatial)
    np.testing.assert_allclose(peaks_of(model, image).points, find_peaks(final[0]).points, atol=1e-4)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_branch_sees_each_slice_of_a_2d_network_alone(float32_cpu: Device, axis: int) -> None:
    model = with_branch(model_of(plan_of(SIDES, pictures=True), float32_cpu), (4, 4))
    space = replace(model.configuration.space, slice_axis=axis, spacing_mm=(1.0, 1.0))
    inference = replace(model.configuration.inference, mirror_axes=(1,) if axis == 0 else (0,) if axis == 1 else (1,))
    model = replace(model, configuration=replace(model.configuration, space=space, inference=inference))
    shape = np.insert([32, 40], axis, 2).tolist()
    stack = noise(1, *shape)
    both = peaks_of(model, stack, True)
    alone = [peaks_of(model, np.take(stack, [i], axis + 1), True) for i in range(2)]
    for n in range(3):
        best = int(alone[1].presence[n] > alone[0].presence[n])
        expected = alone[best].points[n].copy()
        expected[axis] = best
        np.testing.assert_allclose(both.points[n], expected, atol=1e-3)
