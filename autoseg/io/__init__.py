"""The only place that knows file formats."""

from autoseg.io.images import (
    IMAGE_ENDINGS,
    image_ending,
    read_grid,
    read_image,
    read_label_map,
    write_image,
    write_label_map,
    write_probabilities,
)

__all__ = [
    "IMAGE_ENDINGS",
    "image_ending",
    "read_grid",
    "read_image",
    "read_label_map",
    "write_image",
    "write_label_map",
    "write_probabilities",
]
