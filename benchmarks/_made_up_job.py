"""Trainings on made-up cases of chosen sizes, for the memory and time of a step.

Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.dataset import Case
from autoseg.footprint import STEP_PASSES, NetworkIO, multiply_accumulates, training_memory
from autoseg.imaging.geometry import AxisMap, Box, Grid
from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import LandmarkSet, State
from autoseg.plan import (
    SCHEMA_VERSION,
    ChannelPlan,
    Compute,
    Configuration,
    DataPlan,
    DeviceKind,
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
from autoseg.preprocessing.placement import Placement, Prepared
from autoseg.preprocessing.store import write_case
from autoseg.runs.job import TrainingJob


@dataclass(frozen=True)
class MadeUpTraining:
    """Network, patch and data of a training; one class is no label map."""

    network: NetworkPlan
    patch: tuple[int, ...]
    batch: int
    channels: int
    classes: int
    landmarks: int = 0
    scn: ScnPlan | None = None

    @property
    def io(self) -> NetworkIO:
        return NetworkIO(self.channels, self.classes, n_landmarks=self.landmarks, scn=self.scn)

    def gigabytes(self, compute: Compute, kind: DeviceKind) -> float:
        memory = training_memory(self.network, self.patch, self.io, batch_size=self.batch, compute=compute, device=kind)
        return memory.total / 1e9

    @property
    def gmacs(self) -> float:
        return STEP_PASSES * self.batch * multiply_accumulates(self.network, self.patch, self.io) / 1e9


def unet(kind: str, ndim: int, base: int, stages: int, most: int, decoder: int, points: bool = False) -> NetworkPlan:
    """Network as the planner makes them: 'plain' or 'residual', features doubled up to `most`, all axes halved.

    Args:
        points: for landmarks only, so that the first stage is halved too.
    """
    residual = kind == "residual"
    return NetworkPlan(
        kind=f"{kind}_unet",
        features=tuple(min(base * 2**i, most) for i in range(stages)),
        strides=((1 + points,) * ndim, *((2,) * ndim,) * (stages - 1)),
        kernel_sizes=((3,) * ndim,) * stages,
        encoder_blocks=(1, 3, 4, 6, 6, 6)[:stages] if residual else (2,) * stages,
        decoder_blocks=(decoder,) * (stages - 1),
        deep_supervision=not points,
    )


SKULL = (unet("plain", 3, 16, 4, 160, 1, points=True), (80, 144, 96), 2, 1, 1)
BRANCH = ScnPlan("convolutions", (4, 4, 4), 5, 3, 32, "gate")
TRAININGS = {
    "small": MadeUpTraining(unet("plain", 3, 16, 3, 160, 1), (36, 52, 36), 4, 1, 3),
    "wide": MadeUpTraining(unet("plain", 3, 32, 4, 320, 2), (40, 56, 40), 9, 1, 3),
    "large": MadeUpTraining(unet("plain", 3, 16, 5, 160, 1), (128, 128, 128), 2, 1, 3),
    "residual": MadeUpTraining(unet("residual", 3, 16, 4, 160, 1), (64, 64, 64), 2, 1, 3),
    "heavy": MadeUpTraining(unet("plain", 3, 32, 5, 512, 2), (32, 32, 32), 2, 1, 2),
    "flat": MadeUpTraining(unet("plain", 2, 32, 6, 512, 2), (256, 256), 12, 1, 3),
    "flat, large": MadeUpTraining(unet("plain", 2, 16, 7, 256, 1), (512, 512), 8, 1, 3),
    "flat, residual": MadeUpTraining(unet("residual", 2, 16, 5, 256, 1), (256, 256), 8, 3, 3),
    "many classes": MadeUpTraining(unet("plain", 3, 16, 4, 160, 1), (64, 64, 64), 2, 1, 40),
    "more classes": MadeUpTraining(unet("plain", 3, 16, 4, 160, 1), (64, 64, 64), 2, 1, 120),
    "four channels": MadeUpTraining(unet("plain", 3, 16, 4, 160, 1), (64, 96, 96), 2, 4, 4),
    "45 landmarks": MadeUpTraining(*SKULL, 45),
    "45 landmarks, branch": MadeUpTraining(*SKULL, 45, BRANCH),
    "300 landmarks": MadeUpTraining(*SKULL, 300),
    "landmarks, flat": MadeUpTraining(unet("plain", 2, 32, 7, 512, 2, points=True), (768, 640), 4, 1, 1, 19),
    "joint": MadeUpTraining(unet("plain", 3, 32, 4, 320, 1), (40, 56, 40), 4, 1, 3, 6),
}
LIVER = MadeUpTraining(unet("plain", 3, 32, 6, 320, 2), (128, 128, 128), 2, 1, 3)  # as nnU-Net's plan for the Decathlon's liver


def made_up_job(training: MadeUpTraining, folder: Path) -> TrainingJob:
    """A training job whose one case is prepared in the folder."""
    write_made_up_case(training, folder)
    return TrainingJob(
        dataset="made_up",
        plan=made_up_plan(training),
        configuration="made_up",
        fold="0",
        training=(Case("case", (Path("case.nii.gz"),), None),),
        validation=(),
        prepared=folder,
        previous_stage=None,
        run=folder / "run",
    )


def made_up_plan(training: MadeUpTraining) -> Plan:
    structures = tuple(range(1, training.classes))
    ndim = len(training.patch)
    configuration = Configuration(
        previous_stage=None,
        space=SpacePlan("LPS", (1.0,) * ndim, 0 if ndim == 2 else None, "none", 3, 1),
        patch=PatchPlan(training.patch, training.batch, 1 / 3),
        network=training.network,
        landmarks=LandmarkPlan((1.0,) * ndim, "spatial_ce", training.scn) if training.landmarks else None,
        training=TrainingPlan(3, 1, None, "adamw", 1e-3, 1e-2, "cosine", 0.0, 0.99, "default", ()),
        inference=InferencePlan(0.5, ()),
        postprocess=(),
        footprint=None,
        why={},
    )
    channels = tuple(ChannelPlan(f"channel {i}", "zscore", 0.0, 1.0, 0.0, 1.0) for i in range(training.channels))
    labels = LabelSet(tuple(f"structure {i}" for i in structures), structures)
    data = DataPlan(channels, labels, LandmarkSet(tuple(f"landmark {i}" for i in range(training.landmarks))))
    origin = Origin("made up", 8.0, "cpu", "0", "plain", None, None, "adamw_cosine")
    configurations = {"made_up": configuration}
    return Plan(SCHEMA_VERSION, "made_up", "segmentation", data, "made_up", configurations, (), origin, {})


def write_made_up_case(training: MadeUpTraining, folder: Path) -> None:
    """Noise, all classes as slices across x, and landmarks anywhere."""
    z, y, x = (1,) * (3 - len(training.patch)) + tuple(n * 5 // 4 for n in training.patch)
    shape = (z, y, x)
    rng = np.random.default_rng(0)
    image = rng.standard_normal((training.channels, *shape), dtype=np.float32).astype(np.float16)
    label = np.broadcast_to(np.arange(shape[2]) % training.classes, shape).astype(np.uint8) if training.classes > 1 else None
    points = rng.uniform(0, np.array(shape) - 1, (training.landmarks, 3))
    grid = Grid.from_spacing(shape, (1.0, 1.0, 1.0))
    placement = Placement(grid, AxisMap((0, 1, 2), (False,) * 3), Box((0, 0, 0), shape), grid)
    state = np.full(training.landmarks, State.PRESENT)
    write_case(folder, "case", Prepared(image, label, placement, points, state), "made up")
