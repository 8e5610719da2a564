"""Losses of landmark maps: by hand, against their definition with whole maps, and gradients against differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from autoseg.imaging.landmarks import State
from autoseg.nets.heatmaps import find_peaks, gaussian_maps
from autoseg.training.losses import LANDMARK_LOSSES, cone_bce, dsnt, mse, spatial_ce

SIGMA = (1.0, 1.5, 0.8)
UNLABELLED, ABSENT, PRESENT = (int(s) for s in (State.UNLABELLED, State.ABSENT, State.PRESENT))
NOWHERE = [math.nan] * 3


def batch(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Two samples of four landmarks: inside and outside the patch, absent, unlabelled."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 4, 5, 6, 7, generator=generator, dtype=dtype)
    points = torch.tensor(
        [
            [[2.3, 2.6, 3.1], [-1.2, 3.0, 6.4], NOWHERE, NOWHERE],
            [[0.1, 5.4, 2.2], NOWHERE, [30.0, 2.0, 2.0], [3.9, -0.4, 5.6]],
        ],
        dtype=dtype,
    )
    state = torch.tensor([[PRESENT, PRESENT, ABSENT, UNLABELLED], [PRESENT, ABSENT, PRESENT, PRESENT]])
    return logits, points, state


def test_two_voxels_by_hand() -> None:
    """Landmark in the middle of two voxels, all of it inside: -log p of either; absent: -log p of "not here"."""
    logits = torch.tensor([[[1.0, 3.0], [1.0, 3.0]]])
    points = torch.tensor([[[0.5], [math.nan]]])
    z = 1 + math.exp(1) + math.exp(3)
    present_loss = math.log(z) - (1 + 3) / 2
    state = torch.tensor([[PRESENT, UNLABELLED]])
    assert float(spatial_ce(logits, points, state, (0.2,))) == pytest.approx(present_loss, abs=0.03)  # 1 % is outside
    state = torch.tensor([[UNLABELLED, ABSENT]])
    assert float(spatial_ce(logits, points, state, (0.2,))) == pytest.approx(math.log(z))


def naive(logits: Tensor, points: Tensor, state: Tensor) -> Tensor:
    """The definition of spatial_ce with whole maps and "not here" as a voxel more."""
    present = (state == State.PRESENT)[..., None]
    g = gaussian_maps(points.where(present, torch.zeros(())), SIGMA, logits.shape[2:]).flatten(2) * present
    g = torch.cat([g, 1 - g.sum(2, keepdim=True)], 2)
    log_p = torch.cat([logits.flatten(2), torch.zeros_like(g[..., :1])], 2).log_softmax(2)
    is_labelled = state != State.UNLABELLED
    return -(g * log_p).sum(2)[is_labelled].mean()


@pytest.mark.parametrize("at_once", [2**22, 300])
def test_the_written_out_gradient_is_that_of_the_definition(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoseg.nets.heatmaps.MAP_ELEMENTS_AT_ONCE", at_once)
    logits, points, state = batch()
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss, expected = spatial_ce(ours, points, state, SIGMA), naive(theirs, points, state)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    (2 * loss).backward()
    (2 * expected).backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", LANDMARK_LOSSES)
def test_gradients_agree_with_differences(name: str) -> None:
    logits, points, state = batch()
    assert torch.autograd.gradcheck(lambda x: LANDMARK_LOSSES[name](x, points, state, SIGMA), (logits.requires_grad_(),))


@pytest.mark.parametrize("name", LANDMARK_LOSSES)
def test_unlabelled_landmarks_count_for_nothing(name: str) -> None:
    loss = LANDMARK_LOSSES[name]
    logits, points, state = batch()
    value = float(loss(logits, points, state, SIGMA))
    logits[0, 3] *= 50
    points[0, 3] = 2
    assert float(loss(logits, points, state, SIGMA)) == value
    logits.requires_grad_()
    nothing = loss(logits, points, torch.full_like(state, UNLABELLED), SIGMA)
    nothing.backward()
    assert nothing.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


@pytest.mark.parametrize("name", LANDMARK_LOSSES)
def test_learning_from_one_patch_finds_its_points(name: str) -> None:
    """Gradient descent on the maps themselves; every loss peaks where it was told, in 2D."""
    points = torch.tensor([[[23.2, 37.6], [38.0, 22.4]]])
    maps = torch.zeros(1, 2, 64, 60, requires_grad=True)
    state = torch.full((1, 2), PRESENT)
    optimizer = torch.optim.Adam([maps], lr=0.1)
    values = []
    for _ in range(200):
        loss = LANDMARK_LOSSES[name](maps, points, state, (1.5, 1.5))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < values[0]
    assert find_peaks(maps.detach()[0]).points == pytest.approx(points[0].numpy(), abs=0.3)


@pytest.mark.parametrize("name", LANDMARK_LOSSES)
def test_half_precision_logits_give_a_float32_loss(name: str) -> None:
    logits, points, state = batch(dtype=torch.float32)
    half = logits.bfloat16().requires_grad_()
    loss = LANDMARK_LOSSES[name](half, points, state, SIGMA)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(float(LANDMARK_LOSSES[name](half.detach().float(), points, state, SIGMA)), rel=1e-5)
    loss.backward()
    assert half.grad is not None
    assert half.grad.dtype == torch.bfloat16


def test_squared_error_by_hand() -> None:
    """Empty maps: half the squared Gaussian, whose integral is (sigma·√π)², and nothing for an absent landmark."""
    maps = torch.zeros(1, 2, 40, 40)
    points = torch.tensor([[[19.7, 20.2], [math.nan, math.nan]]])
    one = mse(maps, points, torch.tensor([[PRESENT, UNLABELLED]]), (4.0, 4.0))
    assert float(one) == pytest.approx(4**2 * math.pi / 2, rel=0.01)
    both = mse(maps, points, torch.tensor([[PRESENT, ABSENT]]), (4.0, 4.0))
    assert float(both) == pytest.approx(float(one) / 2, rel=1e-5)


def test_cone_by_hand() -> None:
    """Ten voxels from the landmark on: of zero logits every voxel costs log 2, of logit 2 the two farthest cost most."""
    points, state = torch.tensor([[[0.0]]]), torch.tensor([[PRESENT]])
    assert float(cone_bce(torch.zeros(1, 1, 10), points, state, (1.0,))) == pytest.approx(math.log(2))
    cost = [math.log(1 + math.exp(2)) - 2 * (1 - x / 15) for x in (8, 9)]
    assert float(cone_bce(torch.full((1, 1, 10), 2.0), points, state, (1.0,))) == pytest.approx(sum(cost) / 2, rel=1e-5)
    absent = cone_bce(torch.full((1, 1, 10), 2.0), points * math.nan, torch.tensor([[ABSENT]]), (1.0,))
    assert float(absent) == pytest.approx(math.log(1 + math.exp(2)), rel=1e-5)


def test_dsnt_by_hand() -> None:
    """A flat map of four voxels is expected at their middle; the landmark is at the last: 1.5 of 2 voxels a unit away."""
    logits, points, state = torch.zeros(1, 1, 4, 1), torch.tensor([[[3.0, 0.0]]]), torch.tensor([[PRESENT]])
    p, g = [0.25] * 4, [0.0, 0.0, 0.0, 1.0]
    middle = [(a + b) / 2 for a, b in zip(p, g)]
    divergence = sum(a * math.log(a / m) for a, m in zip(p, middle)) / 2 + math.log(1 / middle[3]) / 2
    assert float(dsnt(logits, points, state, (0.1, 0.1))) == pytest.approx(1.5 / 2 + divergence, rel=1e-4)


@pytest.mark.parametrize("point", [-0.6, 3.6, math.nan])
def test_dsnt_ignores_landmarks_outside_the_patch(point: float) -> None:
    logits = torch.randn(1, 2, 4, 3)
    points, alone = torch.tensor([[[1.2, 0.9], [point, 1.0]]]), torch.tensor([[[1.2, 0.9]]])
    state = torch.tensor([[PRESENT, ABSENT if math.isnan(point) else PRESENT]])
    expected = dsnt(logits[:, :1], alone, state[:, :1], (1.0, 1.0))
    torch.testing.assert_close(dsnt(logits, points, state, (1.0, 1.0)), expected)


def test_a_landmark_beyond_the_patch_is_not_here() -> None:
    """As if it were absent; half of one on the border is here."""
    logits = torch.randn(1, 1, 8, 8)
    far = spatial_ce(logits, torch.tensor([[[4.0, 30.0]]]), torch.tensor([[PRESENT]]), (1.5, 1.5))
    absent = spatial_ce(logits, torch.full((1, 1, 2), math.nan), torch.tensor([[ABSENT]]), (1.5, 1.5))
    torch.testing.assert_close(far, absent)
    border = torch.tensor([[[4.0, 7.5]]])
    for_maps = gaussian_maps(border, (1.5, 1.5), (8, 8))
    assert float(for_maps.sum()) == pytest.approx(0.5, abs=0.01)
