"""Datasets on disk: finding, listing and reading cases.

Datasets are read in place, nothing is copied or renamed.

Layouts: Medical Segmentation Decathlon and nnU-Net v2 (`dataset.json`), a list of cases
(`cases.csv`), and two flat folders of images and label maps with neither; channels and structures
are then taken from the files. Landmarks lie beside or instead of label maps, see `landmark_files`.
"""

from autoseg.dataset.case import Case, Dataset, Description, LandmarkRules, case_name, names_to_learn, unit_of
from autoseg.dataset.landmark_files import LANDMARK_TABLE, case_landmarks
from autoseg.dataset.landmark_loading import landmark_digest, load_landmarks, load_predicted, outside_remark
from autoseg.dataset.layouts import open_dataset, read_description
from autoseg.dataset.outputs import (
    PROBABILITIES,
    check_output_folder,
    images_in,
    landmarks_path,
    output_path,
    probabilities_path,
    split_other_channels,
)
from autoseg.dataset.search import find_dataset, is_dataset, search_folders

__all__ = [
    "LANDMARK_TABLE",
    "PROBABILITIES",
    "Case",
    "Dataset",
    "Description",
    "LandmarkRules",
    "case_landmarks",
    "case_name",
    "check_output_folder",
    "find_dataset",
    "images_in",
    "is_dataset",
    "landmark_digest",
    "landmarks_path",
    "load_landmarks",
    "load_predicted",
    "names_to_learn",
    "open_dataset",
    "output_path",
    "outside_remark",
    "probabilities_path",
    "read_description",
    "search_folders",
    "split_other_channels",
    "unit_of",
]
