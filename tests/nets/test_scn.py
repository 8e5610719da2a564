"""The spatial configuration branch: its input, the range of its output, and that it learns where landmarks should be."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch

from autoseg.footprint import scn_layers
from autoseg.nets import PointHead
from autoseg.nets.scn import SpatialConfiguration
from autoseg.plan import LandmarkLossName, ScnCombination, ScnForm, ScnPlan

GATE = ScnPlan("convolutions", (4, 4, 2), 3, 3, 8, "gate")
SUM, PRODUCT = replace(GATE, combine="logit_sum"), replace(GATE, combine="product")
FORMS = get_args(ScnForm)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ndim", [2, 3])
def test_layers_are_those_of_the_footprint(form: ScnForm, ndim: int) -> None:
    plan = replace(SUM, form=form, factor=SUM.factor[:ndim])
    branch = SpatialConfiguration(plan, 5, "spatial_ce")
    layers = list(scn_layers(plan, (16, 16, 16)[:ndim], 5))
    assert sum(p.numel() for p in branch.parameters()) == sum(c.outputs * (c.inputs * c.kernel + c.biases) for c in layers)
    work = 0

    def count(module: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal work
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        work += weight.numel() * output[0, 0].numel()

    for module in branch.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Conv3d)):
            module.register_forward_hook(count)
    branch(torch.rand(1, 5, *(4, 4, 8)[:ndim]))
    assert work == sum(c.inputs * c.outputs * c.voxels * c.taps for c in layers)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(16, 16, 12), (13, 7, 9), (1, 1, 1)])
def test_an_untrained_branch_favours_no_voxel(form: ScnForm, size: tuple[int, ...]) -> None:
    """Whatever the size; maps of one cell, too."""
    maps = torch.randn(2, 5, *size)
    for plan, less in ((SUM, 0.0), (GATE, 0.126928)):
        branch = SpatialConfiguration(replace(plan, form=form), 5, "spatial_ce")
        torch.testing.assert_close(branch.combine(maps, branch(branch.coarse_view(maps))), maps - less)


def test_a_gate_only_lowers_logits() -> None:
    torch.manual_seed(0)
    branch = SpatialConfiguration(GATE, 5, "spatial_ce")
    for p in branch.parameters():
        torch.nn.init.normal_(p)
    maps = torch.randn(2, 5, 16, 16, 12)
    final = branch.combine(maps, branch(branch.coarse_view(maps)))
    assert (final <= maps).all()
    assert (final < maps - 1).any()
    assert (final > maps - 0.01).any()


def test_the_product_of_the_first_paper_is_linear() -> None:
    """A convolution alone, without a bound (Payer et al. 2016)."""
    branch = SpatialConfiguration(replace(PRODUCT, form="per_landmark"), 5, "mse")
    coarse = torch.randn(2, 5, 4, 4, 3)
    torch.testing.assert_close(branch(3e4 * coarse), 3e4 * branch(coarse), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "per_landmark"])
def test_a_product_is_bounded(form: ScnForm) -> None:
    """What the branch says lies between -1 and 1, so it can only take away or turn the sign."""
    torch.manual_seed(0)
    branch = SpatialConfiguration(replace(PRODUCT, form=form), 5, "mse")
    for p in branch.parameters():
        torch.nn.init.normal_(p)
    maps = torch.randn(2, 5, 16, 16, 12)
    spatial = branch(branch.coarse_view(maps))
    assert spatial.abs().max() > 0.5
    final = branch.combine(maps, spatial)
    assert (final.abs() <= maps.abs() + 1e-6).all()
    assert not torch.allclose(final, maps)


def test_a_landmark_does_not_predict_itself() -> None:
    """With one convolution for each, over the maps of the others (Payer et al. 2016)."""
    torch.manual_seed(0)
    branch = SpatialConfiguration(ScnPlan("per_landmark", (2, 2), 3, 1, 1, "product"), 3, "mse")
    coarse = torch.rand(1, 3, 5, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(branch(coarse)[0, 1].sum(), coarse)
    assert (gradient[0, 1] == 0).all()
    assert (gradient[0, [0, 2]] != 0).any()


@pytest.mark.parametrize("loss", get_args(LandmarkLossName))
def test_coarse_view_of_each_loss(loss: LandmarkLossName) -> None:
    """A certain landmark is 1 in its cell, the mean over voxels where maps are values."""
    branch = SpatialConfiguration(PRODUCT if loss == "mse" else GATE, 1, loss)
    nothing = 0.0 if loss == "mse" else -40.0
    maps = torch.full((1, 1, 8, 8, 4), nothing)
    maps[0, 0, 5, 2, 3] = 1.0 if loss == "mse" else 40.0
    coarse = branch.coarse_view(maps)
    assert coarse.shape == (1, 1, 2, 2, 2)
    assert coarse[0, 0, 1, 0, 1].item() == pytest.approx(1 / 32 if loss in ("mse", "cone_bce") else 1)
    assert coarse.sum().item() == pytest.approx(coarse[0, 0, 1, 0, 1].item())


def test_cells_lie_where_their_voxels_are() -> None:
    """Linear interpolation of a map that grows along an axis gives that map again, away from the border."""
    branch = SpatialConfiguration(SUM, 1, "mse")
    ramp = torch.arange(14.0).view(1, 1, 1, 14, 1).expand(1, 1, 8, 14, 4).contiguous()
    wide = branch.combine(torch.zeros_like(ramp), branch.coarse_view(ramp))
    torch.testing.assert_close(wide[..., 2:10, :], ramp[..., 2:10, :])


def test_a_head_applies_its_branch_in_training_only() -> None:
    torch.manual_seed(0)
    head = PointHead(3, 4, 5, loss="spatial_ce", voxels=1000, scn=GATE)
    assert head.scn is not None
    for p in head.scn.parameters():
        torch.nn.init.normal_(p)
    features = torch.randn(2, 4, 8, 8, 4)
    local = head.eval()(features)
    torch.testing.assert_close(head.train()(features), head.scn.combine(local, head.scn(head.scn.coarse_view(local))))
    assert not torch.allclose(head(features), local)


@pytest.mark.parametrize(("form", "combine"), [(form, "gate") for form in FORMS] + [("convolutions", "logit_sum")])
def test_a_branch_tells_similar_landmarks_apart(form: ScnForm, combine: ScnCombination) -> None:
    """Two places look the same; only where a third landmark is tells which is which."""
    torch.manual_seed(0)
    plan = ScnPlan(form, (4, 4), 5, 2, 16, combine)
    branch = SpatialConfiguration(plan, 3, "spatial_ce")
    rng = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(branch.parameters(), 0.01)
    right = []
    for _ in range(150):
        middle = torch.randint(12, 20, (8, 2), generator=rng)
        maps = torch.full((8, 3, 32, 32), -8.0)
        for i, (y, x) in enumerate(middle.tolist()):
            maps[i, 0, y, x] = 8
            maps[i, 1:, y, x - 8] = 8
            maps[i, 1:, y, x + 8] = 8
        final = branch.combine(maps, branch(branch.coarse_view(maps))).flatten(2)
        truth = torch.stack([middle[:, 0] * 32 + middle[:, 1] + step for step in (0, -8, 8)], 1)
        loss = torch.nn.functional.cross_entropy(final.flatten(0, 1), truth.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        right.append((final.argmax(2) == truth).float().mean().item())
    assert right[0] < 0.8
    assert sum(right[-10:]) / 10 > 0.99


@pytest.mark.parametrize("n", [16, 37, 25])
def test_levels_of_a_u_net_lie_over_each_other(n: int) -> None:
    """Whether their sizes halve or not: a network that hands its input on gives a ramp back, away from the border."""
    branch = SpatialConfiguration(ScnPlan("unet", (2, 2), 1, 3, 1, "logit_sum"), 1, "spatial_ce")
    for p in branch.parameters():
        torch.nn.init.constant_(p, float(p.ndim > 1))
    ramp = torch.arange(float(n)).expand(1, 1, n, n).contiguous()
    output = branch(ramp) / 3  # the sum of three levels
    torch.testing.assert_close(output[..., 6:-9], ramp[..., 6:-9])
