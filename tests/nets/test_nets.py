"""Networks: shapes, the upsampling against torch's own, parameters against the arithmetic of the footprint."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import pytest
import torch
from torch import nn

from autoseg.footprint import NetworkIO, n_parameters
from autoseg.nets import PointHead, UNet
from autoseg.nets.blocks import SLOPE, ConvBlock, InstanceNorm, ResidualBlock, Upsample, channels_last, convolution
from autoseg.plan import NetworkPlan

PLAIN_3D = NetworkPlan(
    kind="plain_unet",
    features=(4, 6, 8),
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
    kernel_sizes=((3, 3, 3),) * 3,
    encoder_blocks=(2, 2, 2),
    decoder_blocks=(2, 2),
    deep_supervision=True,
)
ANISOTROPIC = replace(
    PLAIN_3D,
    features=(4, 6, 8, 8),
    strides=((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 1)),
    kernel_sizes=((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 1)),
    encoder_blocks=(1, 2, 1, 2),
    decoder_blocks=(1, 2, 1),
)
PLAIN_2D = replace(PLAIN_3D, strides=((1, 1), (2, 2), (2, 2)), kernel_sizes=((3, 3),) * 3)
PLANS = {
    "plain 3D": PLAIN_3D,
    "plain 2D": PLAIN_2D,
    "residual 3D": replace(PLAIN_3D, kind="residual_unet", encoder_blocks=(1, 2, 3), decoder_blocks=(1, 1)),
    "residual 2D": replace(PLAIN_2D, kind="residual_unet", features=(4, 8, 8), encoder_blocks=(1, 1, 2)),
    "plain anisotropic": ANISOTROPIC,
    "residual anisotropic": replace(ANISOTROPIC, kind="residual_unet"),
    "one level": replace(
        PLAIN_3D,
        features=(3, 5),
        strides=((1, 1, 1), (2, 2, 2)),
        kernel_sizes=((3, 3, 3),) * 2,
        encoder_blocks=(1, 1),
        decoder_blocks=(1,),
    ),
}


def network_of(plan: NetworkPlan, channels: int = 2, classes: int = 3, seed: int = 0) -> UNet:
    torch.manual_seed(seed)
    return UNet(plan, channels, classes)


def size_of(plan: NetworkPlan, bottleneck: int) -> list[int]:
    """A patch that leaves `bottleneck` voxels along each axis of the coarsest stage."""
    return [bottleneck * prod(row[axis] for row in plan.strides) for axis in range(len(plan.strides[0]))]


@pytest.mark.parametrize("bottleneck", [1, 3])
@pytest.mark.parametrize("name", PLANS)
def test_every_level_has_its_size_and_every_weight_a_gradient(name: str, bottleneck: int) -> None:
    plan = PLANS[name]
    network, size = network_of(plan), size_of(plan, bottleneck)
    image = torch.randn(1, 2, *size)
    outputs = network(image).logits
    expected, level_size = [], size
    for row in plan.strides[:-1]:
        level_size = [n // s for n, s in zip(level_size, row)]
        expected.append((1, 3, *level_size))
    assert [tuple(o.shape) for o in outputs] == expected
    sum(o.square().sum() for o in outputs).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
    network.eval()
    full = network(image).logits
    assert len(full) == 1
    assert torch.equal(full[0], outputs[0])


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("supervised", [True, False])
def test_parameters_are_those_of_the_footprint(name: str, supervised: bool) -> None:
    plan = replace(PLANS[name], deep_supervision=supervised)
    for channels, classes in ((1, 2), (4, 5)):
        counted = sum(p.numel() for p in network_of(plan, channels, classes).parameters())
        assert counted == n_parameters(plan, NetworkIO(channels, classes))


def test_without_deep_supervision_there_is_one_output() -> None:
    network = network_of(replace(PLAIN_3D, deep_supervision=False))
    assert [tuple(o.shape) for o in network(torch.zeros(2, 2, 4, 8, 4)).logits] == [(2, 3, 4, 8, 4)]


def test_same_seed_same_weights() -> None:
    first, second, different = (network_of(PLAIN_2D, seed=s).state_dict() for s in (7, 7, 8))
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert not all(torch.equal(first[k], different[k]) for k in first)


def test_samples_of_a_batch_do_not_see_one_another() -> None:
    network = network_of(PLANS["residual 3D"]).eval()
    batch = torch.randn(3, 2, 4, 8, 8)
    together = network(batch).logits[0]
    alone = torch.cat([network(batch[i : i + 1]).logits[0] for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2), (2, 1, 3), (2, 2), (1, 2)])
def test_upsample_is_a_transposed_convolution(stride: tuple[int, ...]) -> None:
    ndim, n_in, n_out = len(stride), 3, 2
    ours = Upsample(ndim, n_in, n_out, stride)
    nn.init.normal_(ours.expand.weight)
    bias = torch.randn(n_out)
    theirs = (nn.ConvTranspose2d if ndim == 2 else nn.ConvTranspose3d)(n_in, n_out, stride, stride)
    with torch.no_grad():
        ours.expand.bias.copy_(bias.repeat(prod(stride)))
        theirs.bias.copy_(bias)
        theirs.weight.copy_(ours.expand.weight.reshape(*stride, n_out, n_in).permute(-1, -2, *range(ndim)))
    image = torch.randn(2, n_in, *(5, 3, 4)[:ndim])
    torch.testing.assert_close(ours(image), theirs(image))


def test_upsampling_starts_as_nnunets_transposed_convolution() -> None:
    plan = replace(PLANS["one level"], features=(32, 64))
    theirs = nn.ConvTranspose3d(64, 32, (2, 2, 2), (2, 2, 2))
    nn.init.kaiming_normal_(theirs.weight, a=SLOPE)
    up = network_of(plan).up[0]
    assert isinstance(up, Upsample)
    assert float(up.expand.weight.detach().std()) == pytest.approx(float(theirs.weight.detach().std()), rel=0.05)


def test_instance_norm_is_torchs() -> None:
    ours, theirs = InstanceNorm(5), nn.InstanceNorm3d(5, affine=True)
    with torch.no_grad():
        ours.weight.copy_(torch.randn(5))
        ours.bias.copy_(torch.randn(5))
    theirs.load_state_dict(ours.state_dict())
    image = 10 + 3 * torch.randn(2, 5, 3, 4, 6)
    torch.testing.assert_close(ours(image), theirs(image), rtol=1e-4, atol=1e-5)
    assert ours(channels_last(image)).is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 2, 4, 3)])
def test_the_gradient_of_the_norm_is_right(shape: tuple[int, ...]) -> None:
    norm = InstanceNorm(3).double()
    image = channels_last(torch.randn(shape, dtype=torch.float64)).requires_grad_()

    def of(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, (x,))

    weight, bias = (torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(of, (image, weight, bias))


@pytest.mark.parametrize("name", ["plain 3D", "plain 2D", "residual 3D", "residual 2D"])
def test_maps_stay_channels_last(name: str) -> None:
    network, size = network_of(PLANS[name], channels=1), size_of(PLANS[name], 2)
    is_channels_last: list[bool] = []

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        is_channels_last.append(
            output.is_contiguous(memory_format=torch.channels_last_3d if output.ndim == 5 else torch.channels_last)
        )

    for part, module in network.named_modules():  # torch may take another path for the tiny 1×1×1 convolution of a shortcut
        if isinstance(module, InstanceNorm | Upsample) and "shortcut" not in part:
            module.register_forward_hook(note)
    network(torch.randn(2, 1, *size))
    assert is_channels_last
    assert all(is_channels_last)


def test_norm_of_a_single_voxel_is_its_bias() -> None:
    block = ConvBlock(3, 1, 2, (3, 3, 3), (1, 1, 1))
    with torch.no_grad():
        block[1].bias.copy_(torch.tensor([2.0, -1.0]))
    assert block(torch.ones(1, 1, 1, 1, 1)).flatten().tolist() == pytest.approx([2.0, -SLOPE], rel=1e-5)


@pytest.mark.parametrize(("size", "halved"), [(6, 3), (7, 4), (1, 1)])
def test_stride_two_halves_rounding_up(size: int, halved: int) -> None:
    image = torch.zeros(1, 1, size, size)
    assert convolution(2, 1, 1, (3, 3), (2, 2), bias=False)(image).shape[2:] == (halved, halved)
    assert convolution(2, 1, 1, (5, 1), (1, 1), bias=False)(image).shape[2:] == (size, size)


def test_a_new_residual_block_passes_its_input() -> None:
    network = network_of(PLANS["residual 3D"])
    blocks = [m for m in network.modules() if isinstance(m, ResidualBlock)]
    same = next(b for b in blocks if not len(b.shortcut))
    image = torch.randn(1, len(same.norm.weight), 4, 4, 4)
    torch.testing.assert_close(same(image), nn.functional.leaky_relu(image, SLOPE))


def test_shortcut_averages_where_the_block_strides() -> None:
    block = ResidualBlock(2, 1, 1, (3, 3), (2, 2))
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert block.shortcut(image).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]


def test_initial_weights_have_the_spread_of_he() -> None:
    network = network_of(replace(PLAIN_2D, features=(16, 32, 64)))
    kernel = network.encoder[2][1][0].weight.detach()
    expected = np.sqrt(2 / (1 + SLOPE**2) / (64 * 9))
    assert float(kernel.std()) == pytest.approx(expected, rel=0.05)
    assert all(float(head.bias.detach().abs().max()) == 0 for head in network.heads)


def test_both_forms_of_the_norm_are_the_same() -> None:
    norm = InstanceNorm(3)
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    image = torch.randn(2, 3, 4, 5, 6)
    on_gpu = torch.instance_norm(image, norm.weight, norm.bias, None, None, True, 0.0, norm.eps, True)
    torch.testing.assert_close(norm(image), on_gpu)


@pytest.mark.gpu
def test_the_norm_keeps_the_type_of_autocast_on_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    norm, image = InstanceNorm(3), torch.randn(2, 3, 4, 5, 6)
    on_gpu = InstanceNorm(3).cuda()
    with torch.autocast("cuda", torch.float16):
        result = on_gpu(image.cuda().half())
    assert result.dtype == torch.float16
    torch.testing.assert_close(result.float().cpu(), norm(image), atol=1e-2, rtol=1e-2)
    assert torch.isfinite(on_gpu(torch.randn(1, 3, 1, 1, 1).cuda())).all()


def test_a_cascaded_network_sees_one_channel_a_structure() -> None:
    plan = replace(PLAIN_2D, deep_supervision=False)
    torch.manual_seed(0)
    network = UNet(plan, 2, 4, n_previous_classes=3).eval()
    assert network.encoder[0][0][0].in_channels == 5
    image, indices = torch.randn(1, 2, 32, 32), torch.randint(0, 4, (1, 1, 32, 32))
    alone = UNet(plan, 5, 4).eval()
    alone.load_state_dict(network.state_dict())
    one_hot = torch.cat([image, *((indices == k).float() for k in (1, 2, 3))], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(network(torch.cat([image, indices.float()], dim=1)).logits[0], alone(one_hot).logits[0])


@pytest.mark.parametrize("name", PLANS)
def test_heads_for_both_or_either(name: str) -> None:
    plan = PLANS[name]
    size, n = size_of(plan, 2), 5
    for classes, landmarks in ((3, n), (0, n), (3, 0)):
        torch.manual_seed(0)
        head = PointHead(len(size), plan.features[0], n, loss="spatial_ce", voxels=prod(size)) if landmarks else None
        network = UNet(plan, 2, classes, point_head=head)
        output = network(torch.randn(1, 2, *size))
        finest = tuple(a // s for a, s in zip(size, plan.strides[0]))
        assert bool(output.logits) == (classes > 0)
        assert (None if output.maps is None else tuple(output.maps.shape)) == ((1, n, *finest) if landmarks else None)
        counted = sum(p.numel() for p in network.parameters())
        assert counted == n_parameters(plan, NetworkIO(2, classes, n_landmarks=landmarks))
        parts = [*output.logits, *([] if output.maps is None else [output.maps])]
        sum(p.square().sum() for p in parts).backward()
        assert all(p.grad is not None for p in network.parameters())


def test_a_point_head_is_optional() -> None:
    names = set(network_of(PLAIN_3D).state_dict())
    assert not any(name.startswith("point_head") for name in names)
    torch.manual_seed(3)
    without = UNet(PLAIN_3D, 2, 3, point_head=None).state_dict()
    torch.manual_seed(3)
    assert all(torch.equal(value, without[name]) for name, value in UNet(PLAIN_3D, 2, 3).state_dict().items())


def test_landmarks_are_chosen_in_the_order_asked_for() -> None:
    network = UNet(PLAIN_2D, 2, 3, point_head=PointHead(2, PLAIN_2D.features[0], 5, loss="spatial_ce", voxels=64)).eval()
    image = torch.randn(1, 2, *size_of(PLAIN_2D, 2))
    with torch.no_grad():
        every = network(image).maps
        torch.testing.assert_close(network(image, (3, 0)).maps, every[:, [3, 0]])
        assert network(image, ()).maps is None
        with torch.autocast("cpu", torch.bfloat16):
            assert network(image).maps.dtype == torch.float32
            assert network.train()(image).maps.dtype == torch.bfloat16


def test_a_new_point_head_is_undecided() -> None:
    """Before training "not here" is about as likely as the whole patch, for each landmark."""
    head = PointHead(3, 32, 4, loss="spatial_ce", voxels=20**3)
    features = torch.nn.functional.leaky_relu(torch.randn(1, 32, 20, 20, 20), SLOPE)
    presence = head(features).flatten(2).logsumexp(2).sigmoid()
    assert float(presence.detach().min()) > 0.3
    assert float(presence.detach().max()) < 0.9
