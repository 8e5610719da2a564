"""Patches made with torch are those made with NumPy: on the CPU, and on a GPU where there is one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Tiny

from autoseg import sampling
from autoseg.augment import (
    Intensity,
    apply_intensity,
    apply_intensity_on,
    apply_spatial,
    apply_spatial_on,
    draw_intensity,
    draw_spatial,
    source_box,
)
from autoseg.geometry import Box
from autoseg.sampling import PatchSampler
from autoseg.store import StoredCase

SHAPE = (14, 18, 22)
PLACES = [pytest.param("cpu"), pytest.param("cuda", marks=pytest.mark.gpu)]
PARTNER = np.array([0, 2, 1, *range(3, 300)], dtype=np.uint16)


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(request.param)


def read(volume: np.ndarray, box: Box) -> np.ndarray:
    """The box of an array of which only the last three axes are spatial, zeros outside; read-only, as the store's may be."""
    wide = 60
    padded = np.pad(volume, [(0, 0)] * (volume.ndim - 3) + [(wide, wide)] * 3)
    part = padded[(..., *(slice(a + wide, b + wide) for a, b in zip(box.start, box.stop)))]
    part.flags.writeable = False
    return part


@pytest.mark.parametrize("window", [(8, 10, 12), (9, 7, 11), (1, 12, 9), (30, 30, 30)])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 0.7), (6.0, 1.0, 1.0)])
@pytest.mark.parametrize("augment", [True, False])
def test_turned_scaled_and_mirrored_alike(
    place: torch.device, window: tuple[int, int, int], spacing: tuple[float, float, float], augment: bool
) -> None:
    rng = np.random.default_rng(0)
    image = rng.standard_normal((2, *SHAPE)).astype(np.float16)
    label = rng.integers(0, 300, SHAPE).astype(np.uint16)
    different = total = 0
    for _ in range(8):
        spatial = draw_spatial(rng, window, rng.uniform(-2, np.array(SHAPE) + 2), spacing, (0, 2), augment)
        box = source_box(spatial)
        parts = (read(image, box), [read(label, box), read((label > 9).astype(np.uint8), box)])
        data, classes = apply_spatial(spatial, box, *parts, PARTNER)
        sent, sent_classes = apply_spatial_on(place, spatial, box, *parts, PARTNER)
        assert (sent.device.type, sent.dtype, sent.is_contiguous()) == (place.type, torch.float32, True)
        np.testing.assert_allclose(sent.cpu().numpy(), data, atol=2e-4)
        for mine, theirs in zip(sent_classes, classes):
            different += int((mine.cpu().numpy() != theirs).sum())
            total += theirs.size
    assert different <= total * (2e-3 if augment else 0)  # where two voxels are as near, rounding decides


STEPS = [
    Intensity(),
    Intensity(blur=0.5),
    Intensity(blur=1.0),
    Intensity(brightness=1.2),
    Intensity(contrast=0.75),
    Intensity(contrast=1.25),
    Intensity(zoom=0.5),
    Intensity(zoom=0.73),
    Intensity(gamma=0.7),
    Intensity(inverted_gamma=1.5),
    Intensity(blur=0.8, brightness=0.8, contrast=1.2, zoom=0.6, inverted_gamma=0.8, gamma=1.4),
]


@pytest.mark.parametrize("step", STEPS, ids=str)
@pytest.mark.parametrize("shape", [(8, 10, 13), (1, 12, 9), (3, 2, 40)])
def test_intensities_change_alike(place: torch.device, step: Intensity, shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
    image[1] = 0.25  # constant: gamma has nothing to spread
    before = torch.from_numpy(image.copy()).to(place)
    sent = apply_intensity_on(before, (step, step))
    assert torch.equal(before.cpu(), torch.from_numpy(image))
    np.testing.assert_allclose(sent.cpu().numpy(), apply_intensity(image.copy(), (step, step)), atol=1e-4)


def test_noise_follows_from_its_seed(place: torch.device) -> None:
    image = torch.zeros(2, 20, 20, 20, device=place)
    steps = (Intensity(noise=(0.3, 7)), Intensity(noise=(0.3, 8)))
    first, second = apply_intensity_on(image, steps)
    assert abs(float(first.std()) - 0.3) < 0.02
    assert abs(float(first.mean())) < 0.02
    assert not torch.equal(first, second)
    assert torch.equal(apply_intensity_on(image, steps)[0], first)


def test_batches_are_the_same(place: torch.device, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same cases, places, transforms and landmarks, whichever makes them."""

    def without_noise(rng: np.random.Generator, channels: int) -> tuple[Intensity, ...]:
        return tuple(replace(step, noise=None) for step in draw_intensity(rng, channels))

    monkeypatch.setattr(sampling, "draw_intensity", without_noise)
    task = tiny.task(tmp_path)
    cases = [StoredCase.open(task.prepared, case.name) for case in task.training]
    _, chosen = task.plan.configuration(None)
    chosen = replace(chosen, training=replace(chosen.training, augmentation="default", mirror_axes=(0, 2)))
    usual = PatchSampler(cases, chosen, task.plan.data.labels, 0)
    sent = replace(usual, place=place)
    for step in range(6):
        a, b = usual.batch(step), sent.batch(step)
        assert a.cases == b.cases
        assert {x.device.type for x in (b.image, b.label, b.points, b.state)} == {place.type}
        assert (b.label.dtype, b.points.dtype, b.state.dtype) == (a.label.dtype, a.points.dtype, a.state.dtype)
        torch.testing.assert_close(b.image.cpu(), a.image, atol=1e-3, rtol=1e-3)
        assert float((b.label.cpu() != a.label).float().mean()) < 5e-3
        assert torch.equal(b.state.cpu(), a.state)
