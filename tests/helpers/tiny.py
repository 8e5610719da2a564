"""The small dataset of the fixtures `tiny` and `tiny_runs`: its types, its plan, and one case more.

Nothing here imports torch, which takes seconds, before it is used: most test files do without it.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoseg.dataset import Dataset
    from autoseg.pipeline.workspace import Workspace
    from autoseg.plan import Configuration, Plan
    from autoseg.runs.job import TrainingJob
    from autoseg.runs.record import RunRecord

DATASET_NAME = "Dataset001_Phantom"


@dataclass(frozen=True)
class Tiny:
    """Five phantoms to train on and two to test on, prepared for a network of two thousand weights."""

    data: Path
    dataset: Dataset
    workspace: Workspace
    plan: Plan
    configuration: Configuration

    def job(self, run: Path, **changes: Any) -> TrainingJob:
        """Training of fold 0 into the folder `run`."""
        from autoseg.pipeline.training import training_job

        return replace(training_job(self.dataset, self.workspace, None, "0"), run=run, **changes)

    def stored(self, run: Path) -> tuple[Path, ...]:
        """Folders of the prepared cases that fold 0 learns from."""
        return tuple(self.job(run).prepared / c.name for c in self.job(run).training)


@dataclass(frozen=True)
class TinyRuns:
    """Two trained folds below `folder`, and what was recorded of them."""

    folder: Path
    records: tuple[RunRecord, RunRecord]

    @property
    def runs(self) -> tuple[Path, Path]:
        return self.folder / "fold_0", self.folder / "fold_1"


def add_case(dataset: Dataset, name: str) -> Dataset:
    """The dataset with a copy of its first case under another name."""
    from autoseg.dataset import open_dataset

    for part, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        shutil.copy(dataset.root / part / f"phantom_000{ending}", dataset.root / part / f"{name}{ending}")
    return open_dataset(dataset.root)


def shrink_plan(plan: Plan) -> Plan:
    """The plan with a network, a patch and epochs so small that training takes a second. Cases are resampled in the plane."""
    from autoseg.plan import NetworkPlan, PatchPlan

    name, whole = plan.configuration(None)
    network = NetworkPlan(
        kind="plain_unet",
        features=(4, 8, 8),
        strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)),
        kernel_sizes=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
        encoder_blocks=(1, 1, 1),
        decoder_blocks=(1, 1),
        deep_supervision=True,
    )
    small = replace(
        whole,
        space=replace(whole.space, spacing_mm=(3.0, 2.0, 2.0)),
        patch=PatchPlan((8, 16, 16), 2, 0.5),
        network=network,
        training=replace(whole.training, epochs=2, steps_per_epoch=3, learning_rate=0.01, schedule="cosine", mirror_axes=(2,)),
        inference=replace(whole.inference, mirror_axes=(2,)),
    )
    return replace(plan, ladder=(), configurations={name: small})
