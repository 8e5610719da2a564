"""Phantoms with landmarks: blobs in noise, two of which mirror each other, and a ball around the third."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.dataset import Case, Dataset, open_dataset
from autoseg.imaging.geometry import AxisMap, Grid
from autoseg.imaging.image import Image, LabelMap
from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import Landmarks, State
from autoseg.io import write_image, write_label_map, write_landmarks
from autoseg.plan import (
    SCHEMA_VERSION,
    ChannelPlan,
    Configuration,
    DataPlan,
    InferencePlan,
    LandmarkPlan,
    NetworkPlan,
    Origin,
    PatchPlan,
    Plan,
    ScnPlan,
    SpacePlan,
    TrainingPlan,
)
from autoseg.preprocessing.dataset import preprocess
from autoseg.runs.job import TrainingJob

NAMES = ("left ear", "nose", "right ear")  # natural order, as a dataset has them
BALL = LabelSet(("ball",), (3,))
BLOCKS = (1, 1, 2), (1, 1), False  # of the encoder, of the decoder; no deep supervision
VOLUME, PICTURE = (12, 24, 28), (1, 32, 40)
TRAINING = TrainingPlan(4, 30, None, "adamw", 0.01, 0.01, "cosine", 0.05, 0.95, "none", (2,))
Triple = tuple[int, int, int]


def draw(seed: int, shape: Triple, grid: Grid, absent: Sequence[str] = ()) -> tuple[np.ndarray, np.ndarray, Landmarks]:
    """Image and ball (Z, Y, X) on a canonical grid, and landmarks: bright ears, the left one at high x, each with a spot on its
    outer side, and a dark nose."""
    rng = np.random.default_rng(seed)
    middle = (np.array(shape) - 1) / 2 + rng.uniform(-1, 1, 3) * [0 if n == 1 else n / 12 for n in shape]
    wide = 7 + rng.uniform(-1, 1, 3)
    points = middle + [(0, 0, wide[0]), (0, wide[1], 0), (0, 0, -wide[2])] + rng.uniform(-1, 1, (3, 3)) * (np.array(shape) > 1)
    index = np.stack(np.indices(shape), -1)
    image = rng.normal(0, 0.1, shape)
    for name, point, height, side in zip(NAMES, points, (1.0, -1.0, 1.0), (1, 0, -1)):
        if name not in absent:
            image += height * np.exp(-((index - point) ** 2).sum(-1) / (2 * 1.5**2))
            image += abs(side) * np.exp(-((index - point - [0, 0, 4 * side]) ** 2).sum(-1) / 2)
    there = np.array([name not in absent for name in NAMES])
    places = np.where(there[:, None], grid.index_to_world(points), np.nan)
    found = Landmarks(NAMES, places, np.where(there, State.PRESENT, State.ABSENT))
    return image.astype(np.float32), ((index - points[1]) ** 2).sum(-1) < 3.5**2, found


def grid_of(shape: Triple, turned: bool) -> Grid:
    """Millimetre slices of 1.5 mm around some origin; `turned` ones lie obliquely, axes in another order and reversed."""
    grid = Grid.from_spacing(shape, (1.5, 1.0, 1.0), (-20, 5, 100))
    if not turned:
        return grid
    c, s = np.cos(0.2), np.sin(0.2)
    tilt = np.array([[c, -s, 0, 3], [s, c, 0, -7], [0, 0, 1, 11], [0, 0, 0, 1]])
    return Grid(shape, tilt @ grid.affine)


def make_dataset(
    root: Path, n: int, maps: bool = False, pictures: bool = False, lacking: dict[int, Sequence[str]] | None = None
) -> Dataset:
    """A flat folder of `n` cases; the files of every other volume have their x axis reversed, and lie obliquely."""
    shape = PICTURE if pictures else VOLUME
    ending = ".png" if pictures else ".nii.gz"
    for folder in ("imagesTr", "landmarksTr", *(["labelsTr"] if maps else [])):
        (root / folder).mkdir(parents=True)
    about: dict[str, Any] = {"channel_names": {"0": "MR"}, "landmarks": list(NAMES)}
    (root / "dataset.json").write_text(json.dumps(about | ({"labels": {"background": 0, "ball": 3}} if maps else {})))
    for i in range(n):
        grid = Grid.from_spacing(shape, (1, 1, 1)) if pictures else grid_of(shape, i % 2 == 1)
        image, ball, found = draw(i, shape, grid, (lacking or {}).get(i, ()))
        if i % 2 and not pictures:
            axes = AxisMap((2, 0, 1), (True, False, True))
            grid, image, ball = grid.reoriented(axes), axes.apply(image), axes.apply(ball)
        data = (100 + 50 * image).clip(0, 255).astype(np.uint8) if pictures else image
        name = f"c{i}_0000{ending}"
        write_image(root / "imagesTr" / name, Image(np.ascontiguousarray(data)[None], grid, ("MR",)))
        if maps:
            label = LabelMap(np.ascontiguousarray(ball).astype(np.uint8), grid, BALL)
            write_label_map(root / "labelsTr" / f"c{i}{ending}", label, like=root / "imagesTr" / name)
        file = root / "landmarksTr" / f"c{i}{'.csv' if pictures else '.mrk.json'}"
        write_landmarks(file, found, f"c{i}", pictures)
    return open_dataset(root)


def make_landmark_plan(
    dataset: Dataset, pictures: bool = False, coarse: bool = False, scn: ScnPlan | None = None, **training: Any
) -> Plan:
    """Of one small network that sees a whole case. `coarse` maps have half the resolution."""
    n = 2 if pictures else 3
    configuration = Configuration(
        previous_stage=None,
        space=SpacePlan("LPS", (1.0, 1.0) if pictures else (1.5, 1.0, 1.0), 0 if pictures else None, "none", 3, 1),
        patch=PatchPlan((32, 40) if pictures else (12, 24, 28), 2, 0.5),
        network=NetworkPlan(
            "plain_unet", (8, 16, 16), ((2 if coarse else 1,) * n, (2,) * n, (1 if coarse else 2,) * n), ((3,) * n,) * 3, *BLOCKS
        ),
        landmarks=LandmarkPlan((1.5,) * n if pictures else (1.5, 1.5, 1.5), "spatial_ce", scn)
        if len(dataset.landmarks)
        else None,
        training=replace(TRAINING, **training),
        inference=InferencePlan(0.5, (2,)),
        postprocess=(),
        footprint=None,
        why={},
    )
    name = "2d" if pictures else "3d_fullres"
    channels = (ChannelPlan(dataset.channels[0], "zscore", 0.0, 1.0, -1.0, 1.0),)
    parts = [word for word, there in (("segmentation", dataset.labels.names), ("landmarks", dataset.landmarks.names)) if there]
    return Plan(
        SCHEMA_VERSION,
        dataset.name,
        " and ".join(parts),  # type: ignore[arg-type]
        DataPlan(channels, dataset.labels, dataset.landmarks),
        name,
        {name: configuration},
        (),
        Origin("", 8.0, "cpu", "0", "plain", None, None, "adamw_cosine"),
        {},
    )


@dataclass(frozen=True)
class Phantoms:
    """A dataset, its plan, and a job that learns from all cases but the last two."""

    dataset: Dataset
    plan: Plan
    job: TrainingJob

    @property
    def validation(self) -> tuple[Case, ...]:
        return self.job.validation


def preprocess_phantoms(root: Path, dataset: Dataset, plan: Plan) -> Phantoms:
    """The cases prepared below `root`, for a run there."""
    name = plan.default_configuration
    keys = {c.name: c.name for c in dataset.cases}
    report = preprocess(dataset, plan, name, root / "prepared", keys, workers=0)
    assert (report.failures, len(report.done)) == ((), len(dataset.cases))
    cases = dataset.cases
    job = TrainingJob(dataset.name, plan, name, "0", cases[:-2], cases[-2:], root / "prepared", None, root / "run")
    return Phantoms(dataset, plan, job)
