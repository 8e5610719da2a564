from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image as png

from autoseg.dataset.phantoms import LABELS, make_phantom
from autoseg.evaluation.overlay import _fullest_slice, save_overlay
from autoseg.imaging.geometry import Grid
from autoseg.imaging.image import Image, LabelMap


@pytest.fixture
def case() -> tuple[Image, LabelMap]:
    return make_phantom(np.random.default_rng(0))


def colours(path: Path) -> int:
    """Pixels that are not grey: the outlines and their legend."""
    pixels = png.imread(path)[..., :3]
    return int(np.count_nonzero(np.ptp(pixels, axis=-1) > 0.2))


def test_outlines_are_drawn_on_the_image(tmp_path: Path, case: tuple[Image, LabelMap]) -> None:
    image, label_map = case
    empty = replace(label_map, data=np.zeros_like(label_map.data))
    save_overlay(tmp_path / "empty.png", image, empty)
    save_overlay(tmp_path / "one.png", image, label_map)
    save_overlay(tmp_path / "two.png", image, label_map, label_map)
    assert colours(tmp_path / "empty.png") < colours(tmp_path / "one.png")
    wide, narrow = (png.imread(tmp_path / name).shape for name in ("two.png", "one.png"))
    assert wide[1] > 1.5 * narrow[1]


def test_a_picture_is_drawn_whole(tmp_path: Path, case: tuple[Image, LabelMap]) -> None:
    image, label_map = case
    z = int(np.argmax((label_map.data > 0).sum((1, 2))))
    grid = Grid.from_spacing((1, *image.grid.shape[1:]), (0.1, 1.0, 1.0))
    save_overlay(
        tmp_path / "flat.png",
        Image(image.data[:, z : z + 1], grid, image.channels),
        LabelMap(label_map.data[z : z + 1], grid, LABELS),
    )
    assert colours(tmp_path / "flat.png") > 0


def test_the_slice_with_most_structures_is_shown(case: tuple[Image, LabelMap]) -> None:
    label_map = case[1]
    data = np.zeros_like(label_map.data)
    assert _fullest_slice(replace(label_map, data=data), 0) == len(data) // 2
    data[3, :20, :20] = 1
    data[7, :2, :2] = 1
    data[7, 4:6, 4:6] = 2
    assert _fullest_slice(replace(label_map, data=data), 0) == 7
