"""Resampling a CT-sized volume: autoseg.imaging.resample beside scikit-image.

    python benchmarks/bench_resample.py

100×512×512 to 250×400×400 voxels, one channel. Each function runs once; autoseg a second time too,
since the first run also builds the matrices and touches fresh memory.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable

import numpy as np
from _report import machine, write_report
from skimage.transform import resize

from autoseg.imaging.resample import resample_argmax, resample_image, resample_labels
from autoseg.system.machine import cpu_count

SOURCE, TARGET = (100, 512, 512), (250, 400, 400)
N_CLASSES = 4


def smooth_volume() -> np.ndarray:
    """Waves of several lengths and noise: about mean 0, standard deviation 1, as a normalised image."""
    z, y, x = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in SOURCE), indexing="ij", sparse=True)
    waves = np.sin(z / 5) + np.sin(y / 13) * np.cos(x / 7) + np.sin((x + y + z) / 31)
    return (waves + 0.3 * np.random.default_rng(0).standard_normal(SOURCE, dtype=np.float32)).astype(np.float32)


def label_volume(volume: np.ndarray) -> np.ndarray:
    """Four classes as level sets of a smooth volume."""
    return np.digitize(volume, [-1, 0.5, 1.5]).astype(np.uint8)


def timed(function: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def skimage_image(volume: np.ndarray, order: int) -> np.ndarray:
    return resize(volume, TARGET, order, mode="edge", anti_aliasing=False, preserve_range=True).astype(np.float32)


def skimage_labels(labels: np.ndarray) -> np.ndarray:
    shares = [skimage_image((labels == k).astype(np.float32), 1) for k in range(N_CLASSES)]
    return np.argmax(shares, axis=0).astype(np.uint8)


def main() -> None:
    volume = smooth_volume()
    labels = label_volume(volume)
    logits = np.stack([volume, -volume, np.roll(volume, 5, 1), np.roll(volume, 9, 2)]).astype(np.float16)

    rows: list[tuple[str, Callable[[], np.ndarray], Callable[[], np.ndarray]]] = [
        ("image, cubic", lambda: resample_image(volume[None], TARGET, (3, 3, 3))[0], lambda: skimage_image(volume, 3)),
        ("image, linear", lambda: resample_image(volume[None], TARGET, (1, 1, 1))[0], lambda: skimage_image(volume, 1)),
        ("labels, linear, 4 classes", lambda: resample_labels(labels, TARGET, (1, 1, 1)), lambda: skimage_labels(labels)),
        (
            "logits to labels, linear, 4 classes",
            lambda: resample_argmax(logits, TARGET, threads=cpu_count()),
            lambda: np.argmax([skimage_image(c.astype(np.float32), 1) for c in logits], axis=0).astype(np.uint8),
        ),
    ]
    table = [
        "| what | autoseg first, s | again, s | scikit-image, s | ratio | largest difference | voxels that differ |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for what, ours, theirs in rows:
        first, _ = timed(ours)
        again, a = timed(ours)
        reference, b = timed(theirs)
        if a.dtype == np.float32:
            gap, share = f"{np.abs(a - b).max():.1e}", "-"
        else:
            gap, share = "-", f"{np.mean(a != b):.1e}"
        times = f"{first:.2f} | {again:.2f} | {reference:.1f} | {reference / again:.0f}×"
        table.append(f"| {what} | {times} | {gap} | {share} |")
        print(table[-1], flush=True)
    versions = f"{machine('numpy', 'scipy', 'scikit-image')}, Python {platform.python_version()}"
    sizes = f"{'×'.join(map(str, SOURCE))} to {'×'.join(map(str, TARGET))} voxels."
    write_report("Resampling beside scikit-image", "bench_resample.py", versions, table, notes=sizes)


if __name__ == "__main__":
    main()
