"""Which axes may be mirrored. In canonical orientation left and right, up and down are known."""

from __future__ import annotations

from autoseg.labels import LabelSet


def mirror_axes(labels: LabelSet, ndim: int, device: str) -> tuple[tuple[int, ...], str]:
    """Axes of the (z, y, x) array that are mirrored, and why.

    In 3D on a CPU none: training there sees each case some dozen times, not thousands of times, and has no use for twice the
    cases; mirroring would also double the time of each prediction.

    x (left and right): bodies are nearly symmetric, and structures with a side in their name swap with their partner.
    y: only in 2D, where an image may be of anything, and only if no structure is named after a place like 'upper'. z: never.
    """
    if device == "cpu" and ndim == 3:
        return (
            (),
            "3D cases are not mirrored on a CPU: time is short there, both for learning a second side and for predicting twice",
        )
    axes, reasons = [], []
    if labels.unpaired_sides:
        reasons.append(f"x is not mirrored: the other side of '{labels.unpaired_sides[0]}' is no structure of its own")
    else:
        axes.append(2)
        pair = next((i for i, j in enumerate(labels.mirrored) if i != j), 0)
        swap = f", '{labels.names[pair - 1]}' and '{labels.names[labels.mirrored[pair] - 1]}' swap names" if pair else ""
        reasons.append(f"x is mirrored{swap}: left and right look alike")
    placed = [name for name in (labels.names_direction(0), labels.names_direction(1)) if name]
    if ndim == 2 and not placed:
        axes.insert(0, 1)
        reasons.append("y is mirrored: no structure of these 2D images is named after a place from top to bottom")
    else:
        causes = [f"'{name}' is named after its place" for name in dict.fromkeys(placed)]
        if ndim == 3:
            causes.insert(0, "in canonical orientation they are never upside down")
        reasons.append(f"{'y is' if ndim == 2 else 'y and z are'} not mirrored: " + ", ".join(causes))
    return tuple(axes), "; ".join(reasons)
