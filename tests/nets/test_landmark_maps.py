"""Landmark maps of each loss: its value before training, and points read from perfect maps."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from helpers.landmark_phantoms import NAMES, make_landmark_plan
from torch import Tensor

from autoseg.dataset import Dataset
from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import LandmarkSet, State
from autoseg.nets import PointHead
from autoseg.nets.heatmaps import gaussian_maps
from autoseg.nets.landmark_maps import read_maps
from autoseg.plan import Configuration, LandmarkLossName, LandmarkPlan
from autoseg.training.losses.landmarks import landmark_loss, map_sigma

LOSSES: tuple[LandmarkLossName, ...] = get_args(LandmarkLossName)


def configuration(tmp_path: object, coarse: bool, loss: LandmarkLossName = "spatial_ce") -> Configuration:
    dataset = Dataset("x", tmp_path, ("MR",), LabelSet((), ()), (), LandmarkSet(NAMES))  # type: ignore[arg-type]
    c = make_landmark_plan(dataset, coarse=coarse).configuration(None)[1]
    assert c.landmarks is not None
    return replace(c, landmarks=replace(c.landmarks, loss=loss))


def test_sigma_in_voxels_of_the_maps() -> None:
    c = configuration(None, coarse=True)
    assert map_sigma(c, LandmarkPlan((3.0, 1.0, 2.0), "spatial_ce", None)) == (1.0, 0.5, 1.0)  # 1.5×1×1 mm, every second voxel


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("coarse", [False, True])
def test_an_untrained_head_has_a_loss_of_about_one(loss: LandmarkLossName, coarse: bool) -> None:
    torch.manual_seed(0)
    c = configuration(None, coarse, loss)
    shape = (6, 12, 14) if coarse else (12, 24, 28)
    features = torch.nn.functional.leaky_relu(torch.randn(2, 8, *shape), 0.01)
    maps = PointHead(3, 8, 3, loss=loss, voxels=int(np.prod(shape)))(features)
    points = torch.rand(2, 3, 3) * torch.tensor([11.0, 23, 27])
    assert 0.5 < landmark_loss(maps, points, torch.full((2, 3), int(State.PRESENT)), c).item() < 2


@pytest.mark.parametrize("coarse", [False, True])
def test_points_of_the_patch_are_rescaled_to_the_maps(coarse: bool) -> None:
    """The loss is least where the maps peak at the corresponding point; half a voxel beside it is more."""
    c = configuration(None, coarse)
    shape, factor = ((6, 12, 14), 2) if coarse else ((12, 24, 28), 1)
    map_points = torch.tensor([[[3.0, 5.25, 6.5]]])
    sigma = map_sigma(c, c.landmarks)  # type: ignore[arg-type]
    maps = gaussian_maps(map_points, sigma, shape).clamp(min=1e-12).log() + 20
    state = torch.tensor([[State.PRESENT]])

    def loss(points: Tensor) -> float:
        return float(landmark_loss(maps, (points + 0.5) * factor - 0.5, state, c))

    for step in torch.eye(3) / 2:
        assert loss(map_points) < loss(map_points + step)
        assert loss(map_points) < loss(map_points - step)


def perfect(points: Tensor, loss: LandmarkLossName, shape: tuple[int, ...]) -> Tensor:
    if loss == "cone_bce":
        grid = torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in shape), indexing="ij"))
        distance = (grid - points[0].reshape(-1, len(shape), *[1] * len(shape))).square().sum(1).sqrt()
        return torch.logit((1 - distance / 15).clamp(min=1e-6, max=1 - 1e-6))
    maps = gaussian_maps(points, (1.5,) * len(shape), shape)[0]
    peak = (1.5 * np.sqrt(2 * np.pi)) ** len(shape)
    return maps * peak if loss == "mse" else maps.clamp(min=1e-12).log() + 12


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("shape", [(14, 16, 18), (20, 24), (1, 20, 24)])
def test_perfect_maps_are_read_exactly(loss: LandmarkLossName, shape: tuple[int, ...]) -> None:
    points = torch.tensor([[6.25, 7.5, 8.125], [5.0, 9.75, 10.5]])[None, :, -len(shape) :]
    if shape[0] == 1:
        points[..., 0] = 0
    peaks = read_maps(perfect(points, loss, shape).float(), loss)
    np.testing.assert_allclose(peaks.points, points[0].numpy(), atol=0.3 if loss == "cone_bce" else 0.02)
    assert (peaks.presence > 0.85).all()
    assert (peaks.confidence > 0.7).all()


@pytest.mark.parametrize("loss", ["spatial_ce", "mse", "cone_bce"])
def test_an_empty_map_means_absent(loss: LandmarkLossName) -> None:
    empty = torch.zeros(1, 8, 9) if loss == "mse" else torch.full((1, 8, 9), -12.0)
    assert read_maps(empty, loss).presence[0] < 0.01


def test_dsnt_landmarks_are_always_present() -> None:
    assert read_maps(torch.full((2, 8, 9), -12.0), "dsnt").presence.tolist() == [1, 1]
    flat = torch.randn(2, 8, 9, generator=torch.Generator().manual_seed(0))  # where its maps lie is left to chance
    shares = [read_maps(flat + height, "dsnt").confidence for height in (-30.0, 0.0, 5.0)]
    np.testing.assert_allclose(shares, [shares[0]] * 3, rtol=1e-4)
    assert (shares[0] > 0).all()
    assert (shares[0] < 1).all()
