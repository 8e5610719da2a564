"""The only place that knows file formats."""

from autoseg.io.colour import RGB_8_BIT, is_rgb, names_in_words
from autoseg.io.formats import Header
from autoseg.io.image_formats import (
    IMAGE_ENDINGS,
    data_files,
    geometry_remarks,
    has_geometry,
    image_ending,
    label_ending,
    probabilities_ending,
)
from autoseg.io.images import (
    read_grid,
    read_header,
    read_image,
    read_label_map,
    read_label_values,
    write_image,
    write_label_map,
    write_probabilities,
)
from autoseg.io.landmark_files import LANDMARK_ENDINGS, landmark_ending, read_points, write_landmark_table, write_landmarks
from autoseg.io.points import Point, PointFile

__all__ = [
    "IMAGE_ENDINGS",
    "LANDMARK_ENDINGS",
    "RGB_8_BIT",
    "Header",
    "Point",
    "PointFile",
    "data_files",
    "geometry_remarks",
    "has_geometry",
    "image_ending",
    "is_rgb",
    "label_ending",
    "landmark_ending",
    "names_in_words",
    "probabilities_ending",
    "read_grid",
    "read_header",
    "read_image",
    "read_label_map",
    "read_label_values",
    "read_points",
    "write_image",
    "write_label_map",
    "write_landmark_table",
    "write_landmarks",
    "write_probabilities",
]
