"""Made-up volumes that do not fit a patch: a large structure, a thin and a small one, and look-alikes elsewhere.

A trunk with two lobes inside; the structures are the left lobe, a sheet that wraps it, and a nodule in it. The right
lobe, its sheet and its nodules look the same and are background, so that a network has to see where in the trunk it is.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter

SHAPE = (200, 300, 300)
STRUCTURES = {"lobe": 1, "sheet": 2, "nodule": 3}
SHEET = 3.0  # voxels thick
NODULE = 7.0  # voxels of radius


def make_large_phantoms(folder: Path, n_training: int, n_test: int, seed: int = 0) -> Path:
    """Write a dataset in the layout of nnU-Net; one that is there is kept."""
    done = folder / "dataset.json"
    if done.is_file():
        return folder
    for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i in range(n_training + n_test):
        image, label = make_large_phantom(np.random.default_rng((seed, i)))
        part = "Tr" if i < n_training else "Ts"
        _write(image, folder / f"images{part}" / f"large_{i:03d}_0000.nii.gz")
        _write(label, folder / f"labels{part}" / f"large_{i:03d}.nii.gz")
    labels = {"background": 0, **STRUCTURES}
    document = {"channel_names": {"0": "MR"}, "labels": labels, "numTraining": n_training, "file_ending": ".nii.gz"}
    done.write_text(json.dumps(document), encoding="utf-8")
    return folder


def make_large_phantom(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(Z, Y, X) float32 intensities and uint8 labels."""
    z, y, x = (np.arange(n, dtype=np.float32).reshape([-1 if a == i else 1 for a in range(3)]) for i, n in enumerate(SHAPE))
    middle = np.array(SHAPE) / 2 + rng.uniform(-8, 8, 3)
    size = rng.uniform(0.9, 1.1)
    trunk = ((z - middle[0]) / (90 * size)) ** 2 + ((y - middle[1]) / (115 * size)) ** 2 + ((x - middle[2]) / (135 * size)) ** 2
    image = np.where(trunk < 1, 0.4, 0.0).astype(np.float32)
    label = np.zeros(SHAPE, dtype=np.uint8)
    for side in (-1, 1):
        centre = middle + np.array([0, 0, 62 * side]) * size + rng.uniform(-6, 6, 3)
        radii = np.array([58, 66, 44]) * size * rng.uniform(0.9, 1.1, 3)
        distance = np.sqrt(sum(((axis - c) / r) ** 2 for axis, c, r in zip((z, y, x), centre, radii)))
        lobe, sheet = distance < 1, (distance >= 1) & ((distance - 1) * radii.mean() < SHEET)
        at = centre + radii * rng.uniform(-0.5, 0.5, 3)
        nodule = ((z - at[0]) ** 2 + (y - at[1]) ** 2 + (x - at[2]) ** 2) < (NODULE * size) ** 2
        for mask, intensity, index in ((lobe, 0.7, 1), (sheet, 1.0, 2), (nodule, 1.1, 3)):
            image[mask] = intensity
            if side == 1:
                label[mask] = index
    noise = rng.standard_normal(SHAPE, dtype=np.float32)
    image += 0.25 * noise + 2.0 * gaussian_filter(rng.standard_normal(SHAPE, dtype=np.float32), 6)
    return image, label


def _write(array: np.ndarray, path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path), useCompression=True)
