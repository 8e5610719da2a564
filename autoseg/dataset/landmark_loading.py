"""Loading the landmarks of a case, from its file to world millimetres."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from autoseg.dataset.case import Case, Dataset
from autoseg.dataset.landmark_files import read_case_points
from autoseg.dataset.landmark_names import point_names
from autoseg.errors import GeometryError, LabelError, first_few, nearest, repeated
from autoseg.imaging.components import keep_largest
from autoseg.imaging.geometry import Grid
from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import Landmarks, LandmarkSet, State
from autoseg.io import Point, has_geometry, landmark_ending, read_grid, read_label_values
from autoseg.system.files import sha256
from autoseg.system.progress import log

_TO_LPS = {"LPS": np.ones(3), "RAS": np.array([-1.0, -1.0, 1.0])}


def load_landmarks(case: Case, dataset: Dataset, grid: Grid) -> Landmarks:
    """Load the landmarks of a case in the dataset's order; all are unlabelled if it has no file.

    A landmark that the file does not list is absent, or unlabelled if dataset.json says so (see
    `landmark_files`). Points outside the image are kept; `outside_remark` says how far outside they
    are.

    Args:
        grid: of the case's image.

    Raises:
        DataError: the file cannot be read, or has those of other cases only.
        GeometryError: points of two coordinates in a volume; spots on another grid than a natural
            image.
        LabelError: a name or value that no landmark of the dataset has, or one that is listed
            twice.
    """
    names = dataset.landmarks.names
    points = np.full((len(names), 3), np.nan)
    state = np.full(len(names), State.UNLABELLED)
    if case.landmarks is None:
        return Landmarks(names, points, state)
    state[:] = dataset.landmark_rules.unlisted
    confidence = np.full(len(names), np.nan)
    if dataset.landmark_rules.values and not landmark_ending(case.landmarks):
        for i, centre in _spot_centres(case, case.landmarks, dataset, grid).items():
            points[i], state[i] = centre, State.PRESENT
    else:
        for i, point in _points_by_index(case, case.landmarks, names).items():
            state[i] = point.state
            confidence[i] = np.nan if point.confidence is None else point.confidence
            if point.position is not None:
                points[i] = _world_position(case, point, grid)
    return Landmarks(names, points, state, None if np.isnan(confidence).all() else confidence)


def load_predicted(case: Case, path: Path, landmarks: LandmarkSet, grid: Grid) -> Landmarks:
    """Load predicted landmarks of a case; those that the file does not list are absent.

    Args:
        landmarks: that were predicted.
        grid: of the case's image.

    Raises:
        DataError, GeometryError, LabelError: as `load_landmarks`.
    """
    predictions = Dataset("", path.parent, (), LabelSet((), ()), (), landmarks)
    return load_landmarks(replace(case, landmarks=path), predictions, grid)


def landmark_digest(case: Case, dataset: Dataset) -> str:
    """Digest of the case's landmarks, and of nothing else in a table of all cases; empty without a
    file.

    Raises:
        DataError: the file cannot be read, or has those of other cases only.
    """
    if case.landmarks is None:
        return ""
    rules = dataset.landmark_rules
    spots = rules.values and not landmark_ending(case.landmarks)
    content = sha256(case.landmarks) if spots else repr(read_case_points(case, case.landmarks))
    return hashlib.sha256(repr((rules, content)).encode()).hexdigest()


def _points_by_index(case: Case, path: Path, landmarks: tuple[str, ...]) -> dict[int, Point]:
    """Points of a file by the index of their landmark."""
    points = read_case_points(case, path)
    names = point_names(points, landmarks)
    if duplicates := repeated(names):
        raise LabelError(
            "landmark listed twice", case=case.name, file=path, found=first_few(duplicates), fix="delete or rename one"
        )
    index = {name: i for i, name in enumerate(landmarks)}
    unknown = [n for n in names if n not in index]
    if unknown:
        raise LabelError(
            f"the file names a landmark that the dataset does not have{nearest(unknown[0], landmarks)}",
            case=case.name,
            file=path,
            found=first_few(unknown),
            allowed=first_few(landmarks, 10),
            fix="correct the name, or add it to 'landmarks' in dataset.json",
        )
    return {index[name]: point for name, point in zip(names, points)}


def _world_position(case: Case, point: Point, grid: Grid) -> np.ndarray:
    """World position (3,) of a point, LPS mm."""
    position = point.position
    assert position is not None
    space = point.space or ("LPS" if has_geometry(case.images[0]) else "voxel")
    if len(position) == 2 and grid.shape[0] != 1:
        raise GeometryError(
            f"landmark '{point.label or point.description}' has two coordinates, but the image is a volume",
            case=case.name,
            file=case.landmarks,
            found=f"{position} in {grid.shape[0]} slices",
            fix="give z, too",
        )
    if space == "voxel":
        return grid.index_to_world(np.array([(*position, 0.0)[2::-1]]))[0]
    if len(position) == 3:
        return _TO_LPS[space] * np.array(position)
    plane, origin = grid.affine[:2, 1:3], grid.affine[:2, 3]
    if abs(np.linalg.det(plane)) < 1e-6 * np.prod(grid.spacing[1:]):
        raise GeometryError(
            f"x and y of landmark '{point.label or point.description}' do not say where it is in the slice, which is upright",
            case=case.name,
            file=case.landmarks,
            fix="give z, too",
        )
    row, column = np.linalg.solve(plane, _TO_LPS[space][:2] * np.array(position) - origin)
    return grid.index_to_world(np.array([[0.0, row, column]]))[0]


def _spot_centres(case: Case, path: Path, dataset: Dataset, grid: Grid) -> dict[int, np.ndarray]:
    """Centre of each spot of a label map by the index of its landmark, LPS mm."""
    labels, label_grid = read_label_values(path), read_grid(path)
    if not has_geometry(path) and label_grid.shape != grid.shape:
        raise GeometryError(
            "image and landmarks differ in size", case=case.name, file=path, found=label_grid.shape, allowed=grid.shape
        )
    values = dataset.landmark_rules.values
    boxes = {value: box for value, box in enumerate(ndimage.find_objects(labels), start=1) if box is not None}
    unknown = [str(value) for value in boxes if value not in values]
    if unknown:
        raise LabelError(
            "the label map holds values that no landmark has",
            case=case.name,
            file=path,
            found=first_few(unknown, 10),
            allowed=", ".join(map(str, values)),
            fix="correct the label map, or name these values under 'landmarks' in dataset.json",
        )
    centres, fragmented = {}, []
    for i, value in enumerate(values):
        if value in boxes:
            mask = labels[boxes[value]] == value
            largest = keep_largest(mask)
            if largest.sum() < mask.sum():
                fragmented.append(dataset.landmarks.names[i])
            index = np.argwhere(largest).mean(0) + [s.start for s in boxes[value]]
            centres[i] = label_grid.index_to_world(index[None])[0]
    if fragmented:
        log.warning("note: case %s: more than one spot, the largest counts: %s", case.name, first_few(fragmented))
    return centres


def outside_remark(case: Case, landmarks: Landmarks, grid: Grid) -> str:
    """Remark on landmarks beyond the edges of the outer voxels, and on a likely cause; empty
    without any.

    Args:
        grid: of the case's image.
    """
    present = np.flatnonzero(landmarks.present)
    points = landmarks.points_mm[present]
    distance = _distance_outside(points, grid)
    outside = distance > 0
    if not outside.any():
        return ""
    unit = "mm" if has_geometry(case.images[0]) else "px"
    names = [f"{landmarks.names[i]} ({d:.1f} {unit})" for i, d in zip(present[outside], distance[outside])]
    hint = ""
    if outside.all():
        flipped = _distance_outside(points * _TO_LPS["RAS"], grid)
        voxels = _distance_outside(grid.index_to_world(points[:, ::-1]), grid)
        if not flipped.any():
            hint = "; all would lie inside with x and y negated, as if LPS and RAS were mistaken for each other"
        elif not voxels.any():
            hint = "; all would lie inside if the numbers were voxels"
    return f"landmarks outside the image: {first_few(names)}{hint}"


def _distance_outside(points_mm: np.ndarray, grid: Grid) -> np.ndarray:
    """Distance (N,) of each point from the box of the image's voxels, mm; 0 inside."""
    index = grid.world_to_index(points_mm)
    nearest_inside = np.clip(index, -0.5, np.array(grid.shape) - 0.5)
    distance: np.ndarray = np.linalg.norm(points_mm - grid.index_to_world(nearest_inside), axis=1)
    return np.where((np.abs(index - nearest_inside) > 1e-6).any(1), distance, 0.0)
