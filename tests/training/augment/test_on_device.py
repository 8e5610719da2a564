"""Patches made with torch are those made with NumPy: on the CPU, and on a GPU where there is one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny import Tiny
from scipy import ndimage

from autoseg.imaging.geometry import AxisMap, Box, Grid
from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import NO_LANDMARKS, LandmarkSet, State
from autoseg.plan import PatchPlan
from autoseg.preprocessing.placement import Placement, Prepared
from autoseg.preprocessing.store import StoredCase, write_case
from autoseg.training import sampling
from autoseg.training.augment import (
    Intensity,
    Spatial,
    apply_intensity,
    apply_intensity_on,
    apply_spatial,
    apply_spatial_on,
    draw_intensity,
    draw_spatial,
    host_tensor,
    sampling_grid,
    source_box,
)
from autoseg.training.loader import Loader
from autoseg.training.sampling import Batch, PatchSampler

SHAPE = (14, 18, 22)
PLACES = [pytest.param("cpu"), pytest.param("cuda", marks=pytest.mark.gpu)]
PARTNER = np.array([0, 2, 1, *range(3, 300)], dtype=np.uint16)


@pytest.fixture(params=PLACES)
def device(request: pytest.FixtureRequest) -> torch.device:
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


def on_device(
    spatial: Spatial, box: Box, image: np.ndarray, labels: list[np.ndarray], device: torch.device
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    sent, *maps = (host_tensor(x, device) for x in (image, *labels, PARTNER))
    return apply_spatial_on(spatial, sampling_grid([spatial], [box], device)[0], sent, maps[:-1], maps[-1].to(device))


@pytest.mark.parametrize("window", [(8, 10, 12), (9, 7, 11), (1, 12, 9), (30, 30, 30)])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 0.7), (6.0, 1.0, 1.0)])
@pytest.mark.parametrize("augment", [True, False])
def test_spatial_transforms_agree(
    device: torch.device, window: tuple[int, int, int], spacing: tuple[float, float, float], augment: bool
) -> None:
    rng = np.random.default_rng(0)
    image = rng.standard_normal((2, *SHAPE)).astype(np.float16)
    label = rng.integers(0, 300, SHAPE).astype(np.uint16)
    different = total = 0
    for _ in range(8):
        spatial = draw_spatial(
            rng, window, rng.uniform(-2, np.array(SHAPE) + 2), spacing=spacing, mirror_axes=(0, 2), augment=augment
        )
        box = source_box(spatial)
        parts = (read(image, box), [read(label, box), read((label > 9).astype(np.uint8), box)])
        data, classes = apply_spatial(spatial, box, *parts, PARTNER)
        sent, sent_classes = on_device(spatial, box, *parts, device)
        assert (sent.device.type, sent.dtype, sent.is_contiguous()) == (device.type, torch.float32, True)
        np.testing.assert_allclose(sent.cpu().numpy(), data, atol=2e-4)
        for mine, theirs in zip(sent_classes, classes):
            different += int((mine.cpu().numpy() != theirs).sum())
            total += theirs.size
    assert different <= total * (2e-3 if augment else 0)  # where two voxels are as near, rounding decides


@pytest.mark.parametrize("depth", [1, 7, 10])
def test_slices_that_do_not_turn_stay_whole(device: torch.device, depth: int) -> None:
    """Also around a structure, whose centre is a voxel, while the middle of an even patch lies between two."""
    z = np.broadcast_to(np.arange(1.0, 31.0)[:, None, None], (30, 18, 22))
    rng, image, label = np.random.default_rng(1), z[None].astype(np.float32), z.astype(np.uint8)
    for _ in range(12):
        spatial = draw_spatial(
            rng, (depth, 6, 6), np.array([rng.integers(30), 9.0, 11.0]), spacing=(6, 1, 1), mirror_axes=(), augment=True
        )
        box = source_box(spatial)
        parts = (read(image, box), [read(label, box)])
        data, (classes,) = apply_spatial(spatial, box, *parts, PARTNER)
        sent, (sent_classes,) = on_device(spatial, box, *parts, device)
        slices = classes[:, 3, 3].astype(int)
        assert np.array_equal(np.diff(slices[slices > 0]), np.ones((slices > 0).sum() - 1))
        np.testing.assert_allclose(data[0, :, 3, 3], slices, atol=1e-4)
        assert np.array_equal(sent_classes.cpu().numpy(), classes)
        np.testing.assert_allclose(sent.cpu().numpy(), data, atol=1e-3)


KINDS = ["labels", "labels and landmarks", "landmarks", "slices", "many labels, some missing", "cascade"]
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
def test_intensity_steps_agree(device: torch.device, step: Intensity, shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
    image[1] = 0.25  # constant: gamma has nothing to spread
    sent_image = torch.from_numpy(image.copy()).to(device)
    sent = apply_intensity_on(sent_image, (step, step))
    assert torch.equal(sent_image.cpu(), torch.from_numpy(image))
    np.testing.assert_allclose(sent.cpu().numpy(), apply_intensity(image.copy(), (step, step)), atol=1e-4)


def test_noise_follows_from_its_seed(device: torch.device) -> None:
    image = torch.zeros(2, 20, 20, 20, device=device)
    steps = (Intensity(noise=(0.3, 7)), Intensity(noise=(0.3, 8)))
    first, second = apply_intensity_on(image, steps)
    assert abs(float(first.std()) - 0.3) < 0.02
    assert abs(float(first.mean())) < 0.02
    assert not torch.equal(first, second)
    assert torch.equal(apply_intensity_on(image, steps)[0], first)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_agree(device: torch.device, kind: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same cases, places, transforms and landmarks, whichever makes them."""

    def without_noise(rng: np.random.Generator, channels: int) -> tuple[Intensity, ...]:
        return tuple(replace(step, noise=None) for step in draw_intensity(rng, channels))

    monkeypatch.setattr(sampling, "draw_intensity", without_noise)
    many = kind.startswith("many")
    labels = LabelSet(tuple(f"s{i}" for i in range(300)), tuple(range(1, 301))) if many else LabelSet(("left", "right"), (1, 2))
    points = LandmarkSet(("a_left", "a_right", "b"), (("a_left", "a_right"),)) if "landmarks" in kind or many else NO_LANDMARKS
    if kind == "landmarks":
        labels = LabelSet((), ())
    cases = [smooth_case(tmp_path, i, labels, points, missing=many and i == 1, cascade=kind == "cascade") for i in range(3)]
    patch = PatchPlan((10, 12), 3, 0.5) if kind == "slices" else PatchPlan((6, 10, 12), 3, 0.5)
    space = replace(tiny.configuration.space, slice_axis=0 if kind == "slices" else None)
    training = replace(tiny.configuration.training, augmentation="default", mirror_axes=(0, 2))
    usual = PatchSampler(
        cases, replace(tiny.configuration, patch=patch, space=space, training=training), labels, 0, landmarks=points
    )
    with Loader(replace(usual, device=device), 0, threads=2) as loader:
        for step in range(6):
            a, b = usual.batch(step), loader.next()
            assert a.cases == b.cases
            assert {x.device.type for x in (b.image, b.label, b.points, b.state)} == {device.type}
            assert [(x.dtype, x.shape) for x in tensors(b)] == [(x.dtype, x.shape) for x in tensors(a)]
            torch.testing.assert_close(b.image.cpu(), a.image, atol=2e-3, rtol=2e-3)
            assert int((b.label.cpu() != a.label).sum()) <= a.label.numel() * 2e-3
            assert torch.equal(b.state.cpu(), a.state)
            torch.testing.assert_close(b.points.cpu(), a.points, equal_nan=True)


def tensors(batch: Batch) -> tuple[torch.Tensor, ...]:
    return batch.image, batch.label, batch.points, batch.state


def smooth_case(folder: Path, i: int, labels: LabelSet, points: LandmarkSet, *, missing: bool, cascade: bool) -> StoredCase:
    rng, shape = np.random.default_rng(i), (14, 18, 22)
    image = ndimage.gaussian_filter(rng.standard_normal(shape), 1)[None].astype(np.float16)
    classes = rng.integers(0, labels.n_classes, tuple(n // 2 for n in shape)).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    label = classes.astype(labels.index_dtype) if labels.names and not missing else None
    grid = Grid.from_spacing(shape, (1, 1, 1))
    placement = Placement(grid, AxisMap((0, 1, 2), (False,) * 3), Box((0, 0, 0), shape), grid)
    landmarks = (rng.uniform(0, shape, (len(points), 3)), np.full(len(points), State.PRESENT)) if len(points) else ()
    write_case(folder, f"c{i}", Prepared(image, label, placement, *landmarks), "key")
    if cascade:
        write_case(folder / "before", f"c{i}", Prepared(classes[None].astype(np.uint8), None, placement), "key")
    return StoredCase.open(folder, f"c{i}", folder / "before" if cascade else None)
