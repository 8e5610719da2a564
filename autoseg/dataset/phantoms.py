"""A small made-up dataset: a body with a kidney and a stone in it on each side, as a scanner with
thick slices would see it.

It is used by the demo and by tests. Left and right look alike, so that only their position tells
them apart.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from autoseg.imaging.geometry import Grid, Triple
from autoseg.imaging.image import Image, LabelMap
from autoseg.imaging.labels import LabelSet
from autoseg.io import write_image, write_label_map
from autoseg.system.arguments import FilePath, as_path
from autoseg.system.files import write_text
from autoseg.system.records import to_json

LABELS = LabelSet(("left kidney", "right kidney", "left stone", "right stone"), (1, 2, 3, 4))
SHAPE: Triple = (24, 56, 72)
SPACING = (3.0, 1.5, 1.5)
_INTENSITY = (300.0, 520.0, 520.0, 820.0, 820.0)  # of body, kidneys and stones; air is 0


def make_phantoms(folder: FilePath, n_training: int, n_test: int, seed: int = 0, shape: Triple = SHAPE) -> Path:
    """Write a dataset in nnU-Net v2 layout: imagesTr, labelsTr, imagesTs, labelsTs, dataset.json.

    Returns:
        `folder`. Existing files are written again, with the same content for the same arguments.
    """
    folder = as_path(folder, "folder")
    for i in range(n_training + n_test):
        part = "Tr" if i < n_training else "Ts"
        image, label = make_phantom(np.random.default_rng([seed, i]), shape)
        image_path = folder / f"images{part}" / f"phantom_{i:03d}_0000.nii.gz"
        write_image(image_path, image)
        write_label_map(folder / f"labels{part}" / f"phantom_{i:03d}.nii.gz", label, like=image_path)
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, **dict(zip(LABELS.names, LABELS.values))},
        "numTraining": n_training,
        "file_ending": ".nii.gz",
    }
    write_text(folder / "dataset.json", to_json(description))
    return folder


def make_phantom(rng: np.random.Generator, shape: Triple = SHAPE) -> tuple[Image, LabelMap]:
    """Draw one case: ellipsoids of random position, size and tilt, blurred edges, a smooth bias
    field and noise.

    Array axes are (z, y, x) with x towards the patient's left, as LPS has it.
    """
    grid = Grid.from_spacing(shape, SPACING, origin=(-50.0, -40.0, 10.0))
    half = np.array(shape) / 2
    label = np.zeros(shape, dtype=np.uint8)
    body = _ellipsoid(shape, half + rng.uniform(-1, 1, 3), half * rng.uniform(0.85, 0.95, 3) * (1.3, 1, 1), 0.0)
    for side, (kidney, stone) in ((1, (1, 3)), (-1, (2, 4))):
        centre = half * (1, 1 + rng.uniform(-0.15, 0.25), 1 + side * rng.uniform(0.42, 0.52)) + rng.uniform(-2, 2, 3) * (1, 0, 0)
        radii = half * (0.5, 0.26, 0.16) * rng.uniform(0.85, 1.15, 3)
        tilt = side * rng.uniform(0.0, 0.5)
        label[_ellipsoid(shape, centre, radii, tilt)] = kidney
        inside = centre + radii * rng.uniform(-0.25, 0.25, 3)
        label[_ellipsoid(shape, inside, radii * rng.uniform(0.35, 0.5, 3), tilt)] = stone
    clean = np.where(label > 0, np.array(_INTENSITY)[label], np.where(body, _INTENSITY[0], 0.0))
    blurred = ndimage.gaussian_filter(clean, (0.4, 0.8, 0.8))
    bias = ndimage.zoom(rng.uniform(0.8, 1.2, (2, 3, 3)), np.array(shape) / (2, 3, 3), order=1)
    noisy = blurred * bias + rng.normal(0, 45, shape)
    image = Image(np.clip(noisy, 0, 4095).round().astype(np.float32)[None], grid, ("MRI",))
    return image, LabelMap(label, grid, LABELS)


def _ellipsoid(shape: Triple, centre: np.ndarray, radii: np.ndarray, tilt: float) -> np.ndarray:
    """Mask of an ellipsoid, all in voxels, turned by `tilt` (radians) in the y-x plane."""
    z, y, x = (axis - c for axis, c in zip(np.ogrid[: shape[0], : shape[1], : shape[2]], centre))
    turned_y, turned_x = np.cos(tilt) * y - np.sin(tilt) * x, np.sin(tilt) * y + np.cos(tilt) * x
    return (z / radii[0]) ** 2 + (turned_y / radii[1]) ** 2 + (turned_x / radii[2]) ** 2 <= 1
