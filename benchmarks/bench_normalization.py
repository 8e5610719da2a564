"""Dice with outliers in the images, with and without the robust normalisation.

    python benchmarks/bench_normalization.py [--epochs 10] [--seeds 2] [--data FOLDER] [--out benchmarks/results/normalization.md]

First, the evidence for the planner's threshold: the spread that clipping leaves in every image
below FOLDER/*/imagesTr, and in normal noise with spikes. Then, its effect on Dice.

Phantoms (two kidneys, two stones) with one to three bright blobs in each case, as metal or a
reconstruction fault would leave them: radius 1 to 2 voxels, 5 to 100 times as bright as a stone,
anywhere in the volume. Beside them stand the same phantoms without blobs, and, since it is the
simplest remedy, those with blobs clipped to their percentiles 0.5 and 99.5. All learn, with half of
the planned features and batches of 2, from 20 cases for the same number of steps; Dice is that of
12 other cases.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from _report import machine, write_report
from _training import learn_and_test

from autoseg.dataset.phantoms import make_phantoms
from autoseg.imaging.geometry import Box
from autoseg.imaging.intensities import clip_levels
from autoseg.io import read_image, write_image
from autoseg.plan import Normalization, Plan

VARIANTS: tuple[tuple[str, Normalization], ...] = (
    ("with blobs", "zscore"),
    ("with blobs", "zscore_robust"),
    ("with blobs, all clipped", "zscore"),
    ("clean", "zscore"),
    ("clean", "zscore_robust"),
)
STONE = 820.0  # intensity
N_TRAINING, N_TEST, STEPS = 20, 12, 60
SHAPE = (16, 40, 48)


def add_blobs(file: Path, rng: np.random.Generator) -> None:
    """Bright blobs into an image file; the label map stays as it is."""
    image = read_image((file,), ("MRI",))
    volume = image.data[0].copy()
    for _ in range(rng.integers(1, 4)):
        centre, radius = rng.uniform(0, volume.shape), rng.uniform(1, 2)
        z, y, x = (axis - c for axis, c in zip(np.ogrid[: volume.shape[0], : volume.shape[1], : volume.shape[2]], centre))
        volume[(z * 2) ** 2 + y**2 + x**2 <= radius**2] = STONE * 5 * 20 ** rng.uniform()  # slices are twice as thick
    write_image(file, replace(image, data=volume[None]))


def clip(file: Path) -> None:
    """An image file to its own percentiles 0.5 and 99.5."""
    image = read_image((file,), ("MRI",))
    write_image(file, replace(image, data=image.data.clip(*clip_levels(image.data))))


def remaining_spread(voxels: np.ndarray) -> float:
    """Standard deviation after clipping to the percentiles 0.5 and 99.5, as a share of that before."""
    exact = voxels.astype(np.float64)
    return float(exact.clip(*clip_levels(voxels)).std() / exact.std())


def read(file: Path) -> np.ndarray:
    return read_image((file,), ("",)).data[0]


def real_spreads(folder: Path) -> list[str]:
    """A row a dataset: of all voxels, and of those that are not 0."""
    lines = [
        "| dataset | images | all: min | all: median | not 0: min | not 0: median |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for images in sorted(folder.glob("*/imagesTr")):
        every, nonzero = [], []
        for file in sorted(images.iterdir()):
            volume = read(file)
            box = Box.around(volume != 0)
            assert box
            inside = volume[box.slices]
            every.append(remaining_spread(inside))
            nonzero.append(remaining_spread(inside[inside != 0]))
        each = (min(every), np.median(every), min(nonzero), np.median(nonzero))
        lines.append(f"| {images.parent.name} | {len(every)} | " + " | ".join(f"{v:.3f}" for v in each) + " |")
        print(lines[-1], flush=True)
    return lines


def spike_spreads() -> list[str]:
    """Normal noise in which a share of the voxels is some standard deviations brighter."""
    noise = np.random.default_rng(0).normal(0, 1, 10**6).astype(np.float32)
    heights = (5, 10, 20, 50, 100)
    lines = ["| spikes | " + " | ".join(f"{h} std" for h in heights) + " |", "| --- |" + " ---: |" * len(heights)]
    for share in (1e-4, 3e-4, 1e-3, 3e-3):
        columns = []
        for height in heights:
            spiky = noise.copy()
            spiky[: round(share * noise.size)] += height
            columns.append(f"{remaining_spread(spiky):.2f}")
        lines.append(f"| {100 * share:g} % | " + " | ".join(columns) + " |")
    return lines


def dice(data: Path, work: Path, scheme: Normalization, epochs: int, seed: int) -> tuple[float, ...]:
    """Mean Dice of each structure in the test cases."""

    def change(plan: Plan) -> Plan:
        name, chosen = plan.configuration(None)
        channels = tuple(replace(c, normalization=scheme) for c in plan.data.channels)
        network = replace(chosen.network, features=tuple(f // 2 for f in chosen.network.features))
        training = replace(chosen.training, epochs=epochs, steps_per_epoch=STEPS)
        chosen = replace(chosen, network=network, patch=replace(chosen.patch, batch_size=2), training=training)
        return replace(plan, data=replace(plan.data, channels=channels), ladder=(), configurations={name: chosen})

    return tuple(s.dice.mean or 0.0 for s in learn_and_test(data, work, change, epochs, seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)  # more would wait for each other: the network is small, and the machine may be busy
    lines = ["| images | seed | spread left by clipping (median) | scheme | case Dice | kidneys | stones |"]
    lines.append("| --- | ---: | ---: | --- | ---: | ---: | ---: |")
    total: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            for kind, scheme in VARIANTS:
                work = Path(folder) / f"{seed}{kind}{scheme}"
                data = make_phantoms(work / "Dataset001_Phantom", N_TRAINING, N_TEST, seed, SHAPE)
                files = sorted(data.glob("images*/*.nii.gz"))
                for i, file in enumerate(files if kind != "clean" else []):
                    add_blobs(file, np.random.default_rng([seed, i]))
                    if kind.endswith("clipped"):
                        clip(file)
                spread = float(np.median([remaining_spread(read(file)) for file in files]))
                each = dice(data, work / "autoseg_work", scheme, options.epochs, seed)
                total.setdefault((kind, scheme), []).append(float(np.mean(each)))
                kidneys, stones = np.mean(each[:2]), np.mean(each[2:])
                lines.append(
                    f"| {kind} | {seed} | {spread:.2f} | {scheme} | {np.mean(each):.3f} | {kidneys:.3f} | {stones:.3f} |"
                )
                print(lines[-1], flush=True)
    command = f"bench_normalization.py --epochs {options.epochs} --seeds {options.seeds}"
    means = [
        f"- {kind}, {scheme}: mean {np.mean(v):.3f} ({min(v):.3f}–{max(v):.3f}) of {len(v)}"
        for (kind, scheme), v in total.items()
    ]
    table = [*real_spreads(options.data), ""] if options.data else []
    table += [*spike_spreads(), "", *lines, "", f"Case Dice of {N_TEST} test cases:", "", *means]
    steps = f"{options.epochs * STEPS} steps each."
    write_report("Robust normalisation", command, machine("torch"), table, notes=steps, out=options.out)


if __name__ == "__main__":
    main()
