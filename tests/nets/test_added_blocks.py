"""The block of a plugin: a U-Net of it, tried before it is used, and counted as the plain one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.plugins import BLOCK, no_plugins, write_plugin
from helpers.tiny import Tiny
from torch import nn

from autoseg.errors import AutosegError, PlanError, UsageError
from autoseg.footprint import plan_memory
from autoseg.nets.blocks import ConvBlock, ResidualBlock
from autoseg.nets.build import build_network
from autoseg.nets.device import Device
from autoseg.plan import Plan
from autoseg.plan.plugins import load_plugin

WITH_STEM = """
    needs_stem = True

    def initialise(self):
        nn.init.constant_(self[0].weight, 0.5)
"""


@pytest.fixture(autouse=True)
def _no_plugins() -> Iterator[None]:
    with no_plugins():
        yield


def with_block(tiny: Tiny) -> Plan:
    (name,) = tiny.plan.configurations
    network = replace(tiny.configuration.network, kind="my_block")
    return replace(tiny.plan, configurations={name: replace(tiny.configuration, network=network)})


def build(tiny: Tiny, device: Device) -> nn.Module:
    plan = with_block(tiny)
    return build_network(plan, plan.configuration(None)[1], device)


def test_the_encoder_is_made_of_it(tiny: Tiny, tmp_path: Path, float32_cpu: Device) -> None:
    load_plugin(write_plugin(tmp_path, BLOCK))
    network = build(tiny, float32_cpu)
    assert [[type(block).__name__ for block in stage] for stage in network.encoder] == [["MyBlock"]] * 3  # type: ignore[union-attr]
    assert isinstance(network.stem, nn.Identity)
    n_classes = tiny.plan.data.n_classes
    assert network.eval()(torch.zeros(1, 1, 8, 16, 16)).logits[0].shape == (1, n_classes, 8, 16, 16)


def test_it_may_ask_for_a_stem_and_initialise_itself(tiny: Tiny, tmp_path: Path, float32_cpu: Device) -> None:
    load_plugin(write_plugin(tmp_path, BLOCK + WITH_STEM))
    network = build(tiny, float32_cpu)
    assert isinstance(network.stem, ConvBlock)
    assert all((stage[0][0].weight == 0.5).all() for stage in network.encoder)  # type: ignore[index, union-attr]


def test_built_in_blocks_by_their_names() -> None:
    from autoseg.plan.registries import BLOCKS

    assert (BLOCKS["plain_unet"], BLOCKS["residual_unet"]) == (ConvBlock, ResidualBlock)


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ("stride, bias", "[1] * ndim, bias", PlanError, r"found: \(1, 3, 8, 8, 8\) of maps .*allowed: \(1, 3, 4, 4, 4\)"),
        ("n_in, n_out, kernel, stride, ", "n_out, n_out, kernel, stride, ", UsageError, r"cannot be used; .*found: RuntimeError"),
        (
            "nn.GELU()",
            "nn.GELU(1 / 0)",
            UsageError,
            r"cannot be used; file: .*found: line 11, __init__: ZeroDivisionError: division",
        ),
    ],
)
def test_a_block_that_cannot_be_used_is_named(
    tiny: Tiny, tmp_path: Path, float32_cpu: Device, old: str, new: str, error: type[AutosegError], message: str
) -> None:
    load_plugin(write_plugin(tmp_path, BLOCK.replace(old, new)))
    with pytest.raises(error, match=message):
        build(tiny, float32_cpu)


def test_it_is_counted_as_the_plain_block(tiny: Tiny) -> None:
    (name,) = tiny.plan.configurations
    assert plan_memory(with_block(tiny), name, "float32", "cpu") == plan_memory(tiny.plan, name, "float32", "cpu")
