"""Plugin files for tests, and the state before any was loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autoseg.plan import plugins
from autoseg.plan.registries import REGISTRIES

LOSS = """
import autoseg


@autoseg.register("loss", "my_loss")
def my_loss(logits, target, ignore_index, batch_dice):
    return logits.float().square().mean() + 1
"""
BLOCK = """
import autoseg
from torch import nn

from autoseg.nets.blocks import convolution


@autoseg.register("block", "my_block")
class MyBlock(nn.Sequential):
    def __init__(self, ndim, n_in, n_out, kernel, stride):
        super().__init__(convolution(ndim, n_in, n_out, kernel, stride, bias=True), nn.GELU())
"""
AUGMENTATION = """
import autoseg


@autoseg.register("augmentation", "my_aug")
def brighter(rng, image):
    return image + rng.uniform(5, 6)
"""
RULE = """
from dataclasses import replace

import autoseg


@autoseg.register("planner_rule", "my_rule")
def long_epochs(configuration, fingerprint, budget):
    return replace(configuration, training=replace(configuration.training, steps_per_epoch=len(fingerprint.cases)))
"""


def write_plugin(folder: Path, text: str, name: str = "my_plugin.py") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@contextmanager
def no_plugins() -> Iterator[None]:
    """A process that has loaded none, before and after."""
    forget_plugins()
    yield
    forget_plugins()


def forget_plugins() -> None:
    for plugin in plugins._plugins.values():
        for word in plugin.record.registered:
            kind, name = word.split()
            REGISTRIES[kind].remove(name)
    plugins._plugins.clear()
