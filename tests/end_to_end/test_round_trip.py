"""Landmarks from a file to the maps that a network should make of them, and back to a file.

The images show where they are: their three channels hold x, y and z of the world. A network that is no network reads them in its
window and paints what training asks for, so that all that moves or scales voxels on the way is put to the test.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.landmark_phantoms import make_landmark_plan, preprocess_phantoms
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from autoseg.dataset import Dataset, images_in, load_landmarks, load_predicted, open_dataset
from autoseg.imaging.geometry import AxisMap, Grid
from autoseg.imaging.image import Image
from autoseg.imaging.landmarks import Landmarks, State
from autoseg.inference.model import Model
from autoseg.inference.predict import predict
from autoseg.io import write_image, write_landmarks
from autoseg.nets import Output
from autoseg.nets.device import Device
from autoseg.nets.heatmaps import gaussian_maps, rescale_points
from autoseg.plan import ChannelPlan, Configuration, LandmarkPlan, Plan
from autoseg.preprocessing.store import StoredCase
from autoseg.training.losses.landmarks import landmark_loss, map_sigma
from autoseg.training.sampling import PatchSampler

SHAPE = (14, 36, 60)
NAMES = ("a", "b", "c", "d")


class Reader(nn.Module):
    """Finds points of the world (N, 3) in its window, and paints the maps that training wants for them."""

    point_head = None

    def __init__(self, points_mm: np.ndarray, configuration: Configuration) -> None:
        super().__init__()
        assert configuration.landmarks is not None
        self.points_mm, self.strides = points_mm, configuration.network.strides[0]
        self.sigma = map_sigma(configuration, configuration.landmarks)

    def forward(self, x: Tensor, landmarks: Sequence[int]) -> Any:
        size = [n // s for n, s in zip(x.shape[2:], self.strides)]
        points = torch.stack([torch.from_numpy(_where(sample.double().numpy(), self.points_mm)) for sample in x])
        mass = gaussian_maps(rescale_points(points, x.shape[2:], size), self.sigma, size)
        nowhere = (1 - mass.flatten(2).sum(2)).clamp(min=1e-6).reshape(*mass.shape[:2], *(1 for _ in size))
        maps = mass.clamp(min=1e-9).log() - nowhere.log()  # so that the softmax over voxels and "not here" is the Gaussian
        return Output([], maps.float()[:, list(landmarks)])


def _where(world: np.ndarray, points_mm: np.ndarray) -> np.ndarray:
    """(N, d) voxels at which the (3, *window) coordinates are those of the points; the window's rim, and padding, left aside."""
    shape = world.shape[1:]
    index = np.stack(np.indices(shape), -1).reshape(-1, len(shape))
    inside = ((index > 1) & (index < np.array(shape) - 2)).all(1) & (world.reshape(3, -1) != 0).any(0)
    known = np.column_stack([world.reshape(3, -1).T[inside], np.ones(inside.sum())])
    fitted = np.linalg.lstsq(known, index[inside], rcond=None)[0]
    return np.column_stack([points_mm, np.ones(len(points_mm))]) @ fitted


def grid_of(kind: str) -> Grid:
    """Slices of 3 mm, `thin` ones of 1.2 mm, and pixels of 1 × 0.5 mm; the world's origin lies in the middle."""
    spacing = (1.2 if kind == "thin" else 3, 1, 0.5)
    grid = Grid.from_spacing(SHAPE, spacing, -0.5 * (np.array(SHAPE) * spacing)[::-1])
    if kind == "oblique":
        turn = np.eye(4)
        turn[:3, :3] = Rotation.from_euler("xyz", (0.3, -0.2, 0.25)).as_matrix()
        return Grid(SHAPE, turn @ grid.affine)
    return grid.reoriented(AxisMap((2, 0, 1), (True, False, True))) if kind == "flipped" else grid


def make_case(root: Path, grid: Grid, rim: int) -> np.ndarray:
    """An image that shows x, y and z but for a rim of zeros, and a file of landmarks, whose places (mm) are returned."""
    world = grid.index_to_world(np.indices(grid.shape).reshape(3, -1).T).T.reshape(3, *grid.shape)
    edges = [min(rim, n // 4) for n in grid.shape]
    core = tuple(slice(e, n - e) for e, n in zip(edges, grid.shape))
    data = np.zeros_like(world, dtype=np.float32)
    data[(slice(None), *core)] = world[(slice(None), *core)]
    (root / "imagesTr").mkdir(parents=True)
    for channel in range(3):
        write_image(root / "imagesTr" / f"c_{channel:04d}.nii.gz", Image(data[[channel]], grid, (f"c{channel}",)))
    rng = np.random.default_rng(0)
    shares = rng.uniform(0.2, 0.8, (len(NAMES), 3))
    index = np.array(edges) + shares * (np.array(grid.shape) - 1 - 2 * np.array(edges))
    points = grid.index_to_world(index)
    found = Landmarks(NAMES, points, np.full(len(NAMES), State.PRESENT))
    write_landmarks(root / "landmarksTr" / "c.mrk.json", found)
    about = {"channel_names": {str(i): f"c{i}" for i in range(3)}, "landmarks": list(NAMES)}
    (root / "dataset.json").write_text(json.dumps(about))
    return points


def plan_of(dataset: Dataset, stride: int, spacing: tuple[float, ...], patch: tuple[int, ...]) -> Plan:
    flat = len(patch) == 2
    plan = make_landmark_plan(dataset, pictures=flat, coarse=stride == 2)
    (configuration,) = plan.configurations.values()
    space = replace(configuration.space, spacing_mm=spacing, crop="nonzero", image_order=1)  # exact for what is linear
    sigma = LandmarkPlan(tuple(stride * mm for mm in spacing), "spatial_ce", None)
    made = replace(configuration, space=space, patch=replace(configuration.patch, patch_size=patch), landmarks=sigma)
    channels = tuple(ChannelPlan(f"c{i}", "none", 0, 1, -1, 1) for i in range(3))
    return replace(plan, ladder=(), data=replace(plan.data, channels=channels), configurations={plan.default_configuration: made})


def there_and_back(
    root: Path, device: Device, grid: Grid, stride: int, patch: tuple[int, ...], spacing: tuple[float, ...], rim: int = 0
) -> np.ndarray:
    """(N, 3) how far the landmarks of the written file are from those of the file that was read, in voxels of the plan's grid."""
    points = make_case(root / "data", grid, rim)
    dataset = open_dataset(root / "data")
    plan = plan_of(dataset, stride, spacing, patch)
    (configuration,) = plan.configurations.values()
    truth = load_landmarks(dataset.cases[0], dataset, grid).points_mm  # as training has them
    np.testing.assert_allclose(truth, points, atol=1e-5)
    model = Model((Reader(truth, configuration),), plan, configuration, device)  # type: ignore[arg-type]
    predict(model, (), images_in(root / "data" / "imagesTr", 3), root / "out", workers=0).raise_if_failed()
    back = load_predicted(dataset.cases[0], root / "out" / "c.mrk.json", dataset.landmarks, grid)
    canonical = grid.reoriented(grid.canonical_axes())
    away = canonical.world_to_index(back.points_mm) - canonical.world_to_index(points)
    whole = configuration.space.in_volume(spacing, canonical.spacing[0])
    return away * np.array(canonical.spacing) / np.array(whole)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", ["thick", "thin", "oblique", "flipped"])
def test_volumes(float32_cpu: Device, tmp_path: Path, kind: str, stride: int) -> None:
    """In a window that covers the case. Across thick slices nothing is interpolated, and so nothing resampled here."""
    spacing = (1.0 if kind == "thin" else 3.0, 0.8, 0.7)
    away = there_and_back(tmp_path, float32_cpu, grid_of(kind), stride, (20, 48, 44), spacing)
    assert np.abs(away).max() < 0.02


@pytest.mark.parametrize("stride", [1, 2])
def test_windows_and_a_crop(float32_cpu: Device, tmp_path: Path, stride: int) -> None:
    """Four windows, each of which shows a part of the landmarks whole, some in part and some not."""
    away = there_and_back(tmp_path, float32_cpu, grid_of("oblique"), stride, (16, 48, 64), (3.0, 0.5, 0.3), rim=3)
    assert np.abs(away).max() < 0.02


@pytest.mark.parametrize("stride", [1, 2])
def test_slices(float32_cpu: Device, tmp_path: Path, stride: int) -> None:
    grid = Grid.from_spacing((1, 36, 60), (1, 1, 0.5), (-15, -18, 0))
    away = there_and_back(tmp_path, float32_cpu, grid, stride, (44, 40), (0.8, 0.7))
    assert np.abs(away).max() < 0.02


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", ["thick", "oblique", "flipped", "slices"])
def test_training_asks_for_what_is_painted_here(tmp_path: Path, kind: str, stride: int) -> None:
    """Of patches of the prepared case: the loss hardly pulls at these maps; 0.04 voxels away it pulls twice as much."""
    flat = kind == "slices"
    grid = Grid.from_spacing((1, 36, 60), (1, 1, 0.5), (-15, -18, 0)) if flat else grid_of(kind)
    points = make_case(tmp_path / "data", grid, 3)
    dataset = open_dataset(tmp_path / "data")
    plan = plan_of(dataset, stride, (0.8, 0.7) if flat else (3.0, 0.8, 0.7), (28, 32) if flat else (12, 32, 40))
    (configuration,) = plan.configurations.values()
    stored = StoredCase.open(preprocess_phantoms(tmp_path, dataset, plan).job.prepared, "c")
    batch = PatchSampler([stored], configuration, dataset.labels, 0, landmarks=dataset.landmarks).batch(0)
    maps = Reader(points, configuration)(batch.image, range(len(NAMES))).maps.requires_grad_()

    def pull(away: np.ndarray) -> float:
        loss = landmark_loss(maps, batch.points + torch.from_numpy(away).float(), batch.state, configuration)
        return float(torch.autograd.grad(loss, maps)[0].abs().sum())

    for step in 0.04 * np.eye(configuration.ndim):
        assert pull(0 * step) < min(pull(step), pull(-step)) / 2
