"""Connected components of a mask."""

from __future__ import annotations

from typing import Final

import cc3d
import numpy as np

from autoseg.imaging.geometry import Box

CONNECTIVITY: Final = 26  # voxels that share a face, an edge or a corner are connected, as nnU-Net counts components


def keep_largest(mask: np.ndarray) -> np.ndarray:
    """Keep the largest connected component of a (Z, Y, X) boolean mask, as a new mask; an empty
    mask stays empty.

    Of several components of the same size the one with the first voxel in array order is kept, so
    that the result does not depend on the order in which components are found.
    """
    kept = np.zeros(mask.shape, dtype=bool)
    box = Box.around(mask)
    if box is None:
        return kept
    # cc3d 4.1 reserves too few labels for isolated voxels at every other index of an axis of odd
    # length, and raises
    even = np.pad(mask[box.slices], [(0, n % 2) for n in box.shape])
    components = cc3d.connected_components(even, connectivity=CONNECTIVITY)
    sizes = cc3d.statistics(components, no_slice_conversion=True)["voxel_counts"]
    largest = sizes == sizes[1:].max()
    largest[0] = False  # background
    first = np.argmax(largest[components].ravel())
    z, y, x = box.shape
    kept[box.slices] = (components == components.flat[first])[:z, :y, :x]
    return kept
