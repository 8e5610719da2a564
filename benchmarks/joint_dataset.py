"""A dataset with label maps and landmarks, made of one with label maps: the centre and the two ends of each structure."""

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
    given = open_dataset(source)
    cases = {case.name: case for case in given.cases[:n_cases]}
    about = json.loads((source / "dataset.json").read_text(encoding="utf-8"))
    listed = [entry for entry in about["training"] if case_name(Path(entry["image"])) in cases]
    for file in (entry[part] for entry in listed for part in ("image", "label")):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).symlink_to((source / file).resolve())
    names = landmark_names(given.labels.names) if landmarks else ()
    about |= {"training": listed, "numTraining": len(listed), "landmarks": names}
    (root / "dataset.json").write_text(json.dumps(about), encoding="utf-8")
    for case in cases.values() if landmarks else ():
        assert case.label is not None
        found = structure_landmarks(read_label_map(case.label, given.labels))
        (root / "landmarksTr").mkdir(exist_ok=True)
        write_landmarks(root / "landmarksTr" / f"{case.name}.mrk.json", found, case.name)
    return open_dataset(root)


def landmark_names(structures: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{structure} {part}" for structure in structures for part in PARTS)


def structure_landmarks(label: LabelMap) -> Landmarks:
    """Of each structure the mean of its voxels, and the first and the last voxel along its longest principal axis, mm.

    That axis points backwards (+y in LPS), so that front and back mean the same in every case. Absent where a structure is.
    """
    points = [_three_points(label, i) for i in range(1, len(label.labels.names) + 1)]
    places = np.concatenate(points)
    state = np.where(np.isnan(places).any(1), State.ABSENT, State.PRESENT)
    return Landmarks(landmark_names(label.labels.names), places, state)


def mean_place_mre(cases: Sequence[CaseFingerprint], learnt: Collection[str], judged: Collection[str]) -> float:
    """Error, mm, of the mean place in the cases named `learnt`, relative to the centre of the image, in those named `judged`.

    The mean over landmarks of the mean over cases.
    """
    of, by = (np.array([case.landmarks.points_mm for case in cases if case.name in names]) for names in (learnt, judged))
    return float(np.nanmean(np.linalg.norm(by - np.nanmean(of, 0), axis=2), 0).mean())


def _three_points(label: LabelMap, index: int) -> np.ndarray:
    """(3, 3) mm, NaN without a voxel of the class `index`."""
    voxels = label.grid.index_to_world(np.argwhere(label.data == index).astype(np.float64))
    if not len(voxels):
        return np.full((3, 3), np.nan)
    centre = voxels.mean(0)
    axis = np.linalg.svd(voxels - centre, full_matrices=False)[2][0]
    along = (voxels - centre) @ (axis if axis[1] > 0 else -axis)
    return np.stack([centre, voxels[along.argmin()], voxels[along.argmax()]])
