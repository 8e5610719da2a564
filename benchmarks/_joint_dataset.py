"""A dataset with label maps and landmarks, made of one with label maps only.

The landmarks are the centre and the two ends of each structure.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from autoseg.dataset import Dataset, case_name, open_dataset
from autoseg.fingerprint.case import CaseFingerprint
from autoseg.imaging.image import LabelMap
from autoseg.imaging.landmarks import Landmarks, State
from autoseg.io import read_label_map, write_landmarks

PARTS = ("centre", "front", "back")


def make_joint_dataset(source: Path, root: Path, n_cases: int | None = None, landmarks: bool = True) -> Dataset:
    """The first cases of a Decathlon dataset in a new folder, their files linked, with landmarks beside the label maps.

    Args:
        n_cases: None for all.
        landmarks: False for the same dataset without any.
    """
    dataset = open_dataset(source)
    cases = {case.name: case for case in dataset.cases[:n_cases]}
    description = json.loads((source / "dataset.json").read_text(encoding="utf-8"))
    listed = [entry for entry in description["training"] if case_name(Path(entry["image"])) in cases]
    for file in (entry[part] for entry in listed for part in ("image", "label")):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).symlink_to((source / file).resolve())
    names = landmark_names(dataset.labels.names) if landmarks else ()
    description |= {"training": listed, "numTraining": len(listed), "landmarks": names}
    (root / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    for case in cases.values() if landmarks else ():
        assert case.label is not None
        points = structure_landmarks(read_label_map(case.label, dataset.labels))
        (root / "landmarksTr").mkdir(exist_ok=True)
        write_landmarks(root / "landmarksTr" / f"{case.name}.mrk.json", points, case.name)
    return open_dataset(root)


def landmark_names(structures: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{structure} {part}" for structure in structures for part in PARTS)


def structure_landmarks(label: LabelMap) -> Landmarks:
    """Centre of each structure, and its first and last voxel along its longest principal axis, mm.

    That axis points backwards (+y in LPS), so that front and back mean the same in every case. Absent where a structure is.
    """
    points = [_three_points(label, i) for i in range(1, len(label.labels.names) + 1)]
    points_mm = np.concatenate(points)
    state = np.where(np.isnan(points_mm).any(1), State.ABSENT, State.PRESENT)
    return Landmarks(landmark_names(label.labels.names), points_mm, state)


def mean_position_mre(cases: Sequence[CaseFingerprint], training: Collection[str], validation: Collection[str]) -> float:
    """Error (mm) in the validation cases of the mean positions in the training cases, relative to the image's centre.

    The mean over landmarks of the mean over cases.

    Args:
        training, validation: names of cases.
    """
    references, learnt = (
        np.array([case.landmarks.points_mm for case in cases if case.name in names]) for names in (validation, training)
    )
    return float(np.nanmean(np.linalg.norm(references - np.nanmean(learnt, 0), axis=2), 0).mean())


def _three_points(label: LabelMap, index: int) -> np.ndarray:
    """(3, 3) mm, NaN without a voxel of the class `index`."""
    voxels = label.grid.index_to_world(np.argwhere(label.data == index).astype(np.float64))
    if not len(voxels):
        return np.full((3, 3), np.nan)
    centre = voxels.mean(0)
    axis = np.linalg.svd(voxels - centre, full_matrices=False)[2][0]
    along = (voxels - centre) @ (axis if axis[1] > 0 else -axis)
    return np.stack([centre, voxels[along.argmin()], voxels[along.argmax()]])
