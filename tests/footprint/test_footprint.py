"""Costs of networks: nnU-Net's published figures, then the networks themselves, counted layer by layer."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from autoseg.footprint import NetworkIO, conv_elements, multiply_accumulates, n_parameters
from autoseg.nets import UNet
from autoseg.plan import NetworkPlan

ISO = (2, 2, 2)


def unet(kind: str, pools: tuple[tuple[int, ...], ...], widest: int = 320, base: int = 32) -> NetworkPlan:
    """nnU-Net's network with one pooling a row of `pools`."""
    n, ndim = len(pools) + 1, len(pools[0])
    residual = kind == "residual_unet"
    return NetworkPlan(
        kind=kind,
        features=tuple(min(base * 2**i, widest) for i in range(n)),
        strides=((1,) * ndim, *pools),
        kernel_sizes=((3,) * ndim,) * n,
        encoder_blocks=(1, 3, 4, 6, 6, 6, 6, 6)[:n] if residual else (2,) * n,
        decoder_blocks=(1 if residual else 2,) * (n - 1),
        deep_supervision=True,
    )


def test_two_stages_by_hand() -> None:
    network = NetworkPlan("plain_unet", (2, 3), ((1, 1), (2, 2)), ((3, 3), (3, 3)), (1, 1), (1,), False)
    # 4×4 image: encoder 2 maps of 16 and 3 maps of 4, upsampling 2×16, decoder 2×16, head 5×16
    assert conv_elements(network, (4, 4), NetworkIO(1, 5)) == 32 + 12 + 32 + 32 + 80
    # 1→2 (9 taps, 16 voxels), 2→3 (9, 4), 3→2 (1, 16), 4→2 (9, 16), 2→5 (1, 16)
    assert multiply_accumulates(network, (4, 4), NetworkIO(1, 5)) == 2 * 9 * 16 + 6 * 9 * 4 + 6 * 16 + 8 * 9 * 16 + 10 * 16
    # weights, then scale and shift (2 per channel) or biases: one a channel in the head, four in the upsampling
    assert n_parameters(network, NetworkIO(1, 5)) == (18 + 4) + (54 + 6) + (24 + 8) + (72 + 4) + (10 + 5)


@pytest.mark.parametrize(
    ("kind", "patch", "pools", "widest", "elements", "parameters"),
    [
        ("plain_unet", (128, 128, 128), (ISO,) * 5, 320, 4.528e8, 31.20e6),
        ("plain_unet", (80, 192, 160), (ISO,) * 4 + ((1, 2, 2),), 320, 5.307e8, 30.79e6),
        ("plain_unet", (40, 56, 40), (ISO,) * 3, 320, 1.917e7, 5.60e6),
        ("plain_unet", (512, 512), ((2, 2),) * 7, 512, 8.289e7, 46.33e6),
        ("residual_unet", (128, 128, 128), (ISO,) * 5, 320, 5.574e8, 102.35e6),
        ("residual_unet", (160, 192, 160), (ISO,) * 5, 320, 1.306e9, 102.35e6),
        ("residual_unet", (192, 192, 192), (ISO,) * 5, 320, 1.881e9, 102.35e6),
        ("residual_unet", (512, 512), ((2, 2),) * 7, 512, 1.297e8, 140.0e6),
    ],
)
def test_published_figures_of_nnunet(
    kind: str,
    patch: tuple[int, ...],
    pools: tuple[tuple[int, ...], ...],
    widest: int,
    elements: float,
    parameters: float,
) -> None:
    network = unet(kind, pools, widest)
    assert conv_elements(network, patch, NetworkIO(1, 3)) == pytest.approx(elements, rel=5e-4)
    assert n_parameters(network, NetworkIO(1, 3)) == pytest.approx(parameters, rel=1e-3)


@pytest.mark.parametrize(("kind", "supervised"), list(product(("plain_unet", "residual_unet"), (True, False))))
@pytest.mark.parametrize("pools", [(ISO, (1, 2, 2), ISO), ((2, 2), (2, 2))])
def test_the_network_itself_agrees(kind: str, supervised: bool, pools: tuple[tuple[int, ...], ...]) -> None:
    plan = NetworkPlan(**{**vars(unet(kind, pools, widest=8, base=4)), "deep_supervision": supervised})
    network = UNet(plan, 2, 4)
    assert n_parameters(plan, NetworkIO(2, 4)) == sum(p.numel() for p in network.parameters())

    patch = (8, 16, 16)[-len(pools[0]) :]
    counted = []

    def count(layer: nn.Conv2d | nn.Conv3d, _: object, output: torch.Tensor) -> None:
        counted.append(output.numel() * layer.weight[0].numel())

    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            module.register_forward_hook(count)
    with torch.no_grad():
        network.train()(torch.zeros(1, 2, *patch))
    assert multiply_accumulates(plan, patch, NetworkIO(2, 4)) == sum(counted)


@settings(max_examples=25, deadline=None)
@given(st.permutations((0, 1, 2)), st.integers(1, 3), st.integers(2, 5))
def test_cost_does_not_depend_on_the_order_of_axes(order: list[int], n_channels: int, n_classes: int) -> None:
    pools, patch = (ISO, (1, 2, 2)), (8, 12, 20)
    turned = unet("plain_unet", tuple(tuple(row[a] for a in order) for row in pools))
    for cost in (conv_elements, multiply_accumulates):
        io = NetworkIO(n_channels, n_classes)
        assert cost(turned, tuple(patch[a] for a in order), io) == cost(unet("plain_unet", pools), patch, io)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_cost_grows_in_proportion_to_the_patch(z: int, y: int, x: int) -> None:
    network, io = unet("residual_unet", (ISO, ISO)), NetworkIO(1, 3)
    for cost in (conv_elements, multiply_accumulates):
        assert cost(network, (4 * z, 4 * y, 4 * x), io) == z * y * x * cost(network, (4, 4, 4), io)
