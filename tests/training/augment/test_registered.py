"""The augmentation of a plugin: after the default one, reproducible, on the image alone, and refused where it goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.plugins import AUGMENTATION, no_plugins, write_plugin
from helpers.tiny import Tiny

from autoseg.errors import PlanError
from autoseg.plan.plugins import load_plugin
from autoseg.preprocessing.store import StoredCase
from autoseg.training.augment import apply_registered
from autoseg.training.sampling import PatchSampler


@pytest.fixture(autouse=True)
def _no_plugins() -> Iterator[None]:
    with no_plugins():
        yield


def sampler(tiny: Tiny, tmp_path: Path, name: str) -> PatchSampler:
    configuration = replace(tiny.configuration, training=replace(tiny.configuration.training, augmentation=name))
    stored = [StoredCase.open(path.parent, path.name) for path in tiny.stored(tmp_path / "run")]
    return PatchSampler(stored, configuration, tiny.plan.data.labels, seed=3)


@pytest.mark.parametrize("name", ["default", "none"])
def test_built_in_names_add_nothing(name: str) -> None:
    image = np.ones((1, 2, 3, 4), np.float32)
    assert apply_registered(name, np.random.default_rng(0), image) is image


def test_it_comes_last_and_leaves_the_label_map_alone(tiny: Tiny, tmp_path: Path) -> None:
    load_plugin(write_plugin(tmp_path, AUGMENTATION))
    plain, added = (sampler(tiny, tmp_path, name).batch(5) for name in ("default", "my_aug"))
    assert torch.equal(plain.label, added.label)
    shift = added.image - plain.image  # from 5 to 6, another one in each sample
    assert added.image.dtype == torch.float32
    assert ((shift > 4.99) & (shift < 6.01)).all()
    assert all(float(s.std()) < 1e-3 for s in shift)
    assert float(shift[0].mean()) != pytest.approx(float(shift[1].mean()), abs=1e-3)
    assert torch.equal(sampler(tiny, tmp_path, "my_aug").batch(5).image, added.image)


def test_with_a_gpu_it_runs_on_the_cpu_all_the_same(tiny: Tiny, tmp_path: Path) -> None:
    """A sampler that makes patches on a device of its own: here the CPU stands for it."""
    load_plugin(write_plugin(tmp_path, AUGMENTATION))
    on_cpu = sampler(tiny, tmp_path, "my_aug")
    on_device = replace(on_cpu, device=torch.device("cpu"))
    assert torch.equal(on_device.batch(2).image, on_cpu.batch(2).image)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "image[..., :-1]",
            r"another kind of image than it is given; file: .*; found: an array \(1, 8, 16, 15\) of float32",
        ),
        (
            "image > 0",
            r"found: an array \(1, 8, 16, 16\) of bool; allowed: an array \(1, 8, 16, 16\) of float32",
        ),
        ("None", r"another kind of image .*found: a NoneType"),
    ],
)
def test_another_kind_of_image_is_refused(tiny: Tiny, tmp_path: Path, body: str, message: str) -> None:
    load_plugin(write_plugin(tmp_path, AUGMENTATION.replace("image + rng.uniform(5, 6)", body)))
    with pytest.raises(PlanError, match=r"case phantom_\d+: the augmentation 'my_aug' returns .*" + message):
        sampler(tiny, tmp_path, "my_aug").batch(0)


def test_double_precision_is_brought_back(tmp_path: Path) -> None:
    load_plugin(
        write_plugin(tmp_path, AUGMENTATION.replace("image + rng.uniform(5, 6)", "image.astype(float) + rng.uniform(5, 6)"))
    )
    assert apply_registered("my_aug", np.random.default_rng(0), np.ones((1, 2, 2, 2), np.float32)).dtype == np.float32
