"""A picture of a prediction: one slice of the image with the outlines of its structures, beside those of the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from autoseg.imaging.image import Image, LabelMap
from autoseg.system.files import atomic_path

WIDTH = 4.0  # inches of a panel
DPI = 150
MOST_NAMES = 10  # in the legend


def save_overlay(path: Path, image: Image, prediction: LabelMap, reference: LabelMap | None = None) -> None:
    """Write a PNG with a panel for the prediction, and one for the reference if there is one.

    The slice lies across the axis with the largest spacing, or is the whole picture; of a volume the one with most structures.

    Args:
        image: whose first channel is shown, from its 1st to its 99th percentile.
        prediction, reference: on the voxels of the image.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # half a second to import, and only needed here
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    maps = {"prediction": prediction} | ({} if reference is None else {"reference": reference})
    shape, spacing = image.grid.shape, image.grid.spacing
    axis = shape.index(1) if 1 in shape else int(np.argmax(spacing))
    index = _fullest_slice(prediction if reference is None else reference, axis)
    height, width = (s for a, s in enumerate(spacing) if a != axis)
    pixels = image.data[0].take(index, axis)
    low, high = np.percentile(pixels, (1, 99))
    panel_height = WIDTH * pixels.shape[0] * height / (pixels.shape[1] * width)
    figure = Figure(figsize=(WIDTH * len(maps), panel_height + 0.7), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, label_map) in zip(np.atleast_1d(figure.subplots(1, len(maps))), maps.items()):
        axes.imshow(pixels, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=height / width)
        labels = label_map.data.take(index, axis)
        for structure in range(1, label_map.labels.n_classes):
            if (labels == structure).any():
                axes.contour(labels == structure, levels=[0.5], colors=[f"C{(structure - 1) % 10}"], linewidths=1.2)
        axes.set_title(title, fontsize=9)
        axes.axis("off")
    names = prediction.labels.names[:MOST_NAMES]
    lines = [Line2D([], [], color=f"C{i % 10}") for i in range(len(names))]
    figure.legend(lines, names, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI, format="png")


def _fullest_slice(label_map: LabelMap, axis: int) -> int:
    """The slice across an axis with most structures and, among these, most of their voxels; the middle one if there is none."""
    structures = np.moveaxis(label_map.data, axis, 0)
    counts = [
        (len(np.unique(part[(part > 0) & (part < label_map.labels.n_classes)])), np.count_nonzero(part)) for part in structures
    ]
    best = max(range(len(counts)), key=lambda i: counts[i])
    return best if counts[best][1] else len(counts) // 2
