"""A model trained by autoseg beside one trained by nnU-Net: same cases, same cores, same time.

    python benchmarks/bench_versus_nnunet.py DATASET [--time 10m] [--steps-of-nnunet N] [--out benchmarks/results/versus_NAME.md]

nnU-Net 2 must be installed in the same environment. autoseg runs its commands as a user would.
nnU-Net runs its own fingerprint, planner (for a GPU with 8 GB, its default), preprocessing,
network, loss, augmentation and inference with mirroring; only its training loop is replaced by one
that ends with the time: steps without validation in between, the learning rate falling over the
time as its own falls over its epochs. The time is that of training; autoseg's includes its
validation, nnU-Net's does not. Both are evaluated on the validation cases of autoseg's fold 0, by
the mean Dice over structures and cases, on the images' own voxels.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from _report import machine, require_nnunet, write_report

from autoseg.dataset import Case, Dataset, open_dataset, output_path
from autoseg.evaluation.metrics import dice_per_structure
from autoseg.io import has_geometry, read_image, read_label_map
from autoseg.pipeline.workspace import Workspace
from autoseg.runs.budget import budget_from_options
from autoseg.runs.record import load_run
from autoseg.splits.folds import load_folds

NUMBER = 1  # of the dataset, for nnU-Net


@dataclass(frozen=True)
class Side:
    """Result of one of the two; seconds of planning and preprocessing, training, and predicting the validation cases."""

    name: str
    prepare_s: float
    train_s: float
    predict_s: float
    steps: int
    network: str
    dice: dict[str, float | None]

    @property
    def mean(self) -> float:
        return statistics.mean(value for value in self.dice.values() if value is not None)


def run_autoseg(dataset: Dataset, folder: Path, limit: str) -> Side:
    command = [sys.executable, "-m", "autoseg"]
    data = ["-d", str(dataset.root), "--root", str(folder)]
    began = time.perf_counter()
    subprocess.run([*command, "plan_and_preprocess", *data, "--time", limit], check=True)
    prepared = time.perf_counter() - began
    began = time.perf_counter()
    subprocess.run([*command, "train", *data, "--time", limit], check=True)
    trained = time.perf_counter() - began
    workspace = Workspace(folder)
    plan = json.loads((workspace.dataset_folder(dataset.name) / "plan.json").read_text())
    chosen = plan["configurations"][plan["default_configuration"]]
    run = workspace.run(dataset.name, plan["default_configuration"], "0")
    network = (
        f"{plan['default_configuration']}, patch {chosen['patch']['patch_size']}, batch {chosen['patch']['batch_size']}, "
        f"features {chosen['network']['features']}"
    )
    cases = validation_cases(dataset, folder)
    images = folder / "validation_images"
    images.mkdir()
    for path in (path for case in cases for path in case.images):
        (images / path.name).symlink_to(path.resolve())
    began = time.perf_counter()
    subprocess.run([*command, "predict", "-m", str(run), "-i", str(images), "-o", str(folder / "masks")], check=True)
    predicting = time.perf_counter() - began
    predicted = {c.name: read_label_map(output_path(folder / "masks", c), dataset.labels).data for c in cases}
    return Side("autoseg", prepared, trained, predicting, load_run(run).steps, network, score(dataset, folder, predicted))


def validation_cases(dataset: Dataset, folder: Path) -> list[Case]:
    names = load_folds(Workspace(folder).dataset_folder(dataset.name) / "splits.json").validation_cases("0")
    return [c for c in dataset.cases if c.name in names]


def score(dataset: Dataset, folder: Path, predicted: dict[str, np.ndarray]) -> dict[str, float | None]:
    """Mean Dice of each structure over the validation cases that have it in either label map."""
    rows = []
    for case in validation_cases(dataset, folder):
        assert case.label is not None
        reference = read_label_map(case.label, dataset.labels).data
        rows.append(dice_per_structure(reference, predicted[case.name], dataset.labels.n_classes, dataset.labels.ignore_index))
    means = {}
    for i, name in enumerate(dataset.labels.names):
        values = [value for row in rows if (value := row[i]) is not None]
        means[name] = statistics.mean(values) if values else None
    return means


def convert(dataset: Dataset, raw: Path) -> None:
    """Writes a dataset in nnU-Net's layout: files numbered by channel, class indices without gaps, natural images in one form."""
    folder = raw / f"Dataset{NUMBER:03d}_Bench"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for case in dataset.cases:
        image = read_image(case.images, dataset.channels)
        assert case.label is not None
        label = read_label_map(case.label, dataset.labels)
        spacing = [float(s) for s in image.grid.spacing[::-1]]
        for i, channel in enumerate(image.data):
            write(channel, spacing, folder / "imagesTr" / f"{case.name}_{i:04d}.nii.gz")
        write(label.data.astype(np.uint8), spacing, folder / "labelsTr" / f"{case.name}.nii.gz")
    description = {
        "channel_names": {str(i): name for i, name in enumerate(dataset.channels)},
        "labels": {"background": 0} | {name: i for i, name in enumerate(dataset.labels.names, start=1)},
        "numTraining": len(dataset.cases),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))


def write(array: np.ndarray, spacing: list[float], path: Path) -> None:
    picture = sitk.GetImageFromArray(array)
    picture.SetSpacing(spacing)
    sitk.WriteImage(picture, str(path))


def run_nnunet(dataset: Dataset, folder: Path, workspace: Path, seconds: float, steps: int | None) -> Side:
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(folder / name)
        (folder / name).mkdir(parents=True)
    os.environ["nnUNet_compile"] = "f"
    os.environ["nnUNet_n_proc_DA"] = "2"
    convert(dataset, folder / "raw")
    import torch
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess

    configuration = "3d_fullres" if all(has_geometry(c.images[0]) for c in dataset.cases) else "2d"
    began = time.perf_counter()
    extract_fingerprints([NUMBER], num_processes=2)
    plan_experiments([NUMBER])
    preprocess([NUMBER], configurations=(configuration,), num_processes=(2,))
    prepared = time.perf_counter() - began
    preprocessed = folder / "preprocessed" / f"Dataset{NUMBER:03d}_Bench"
    plans, description = (json.loads((preprocessed / name).read_text()) for name in ("nnUNetPlans.json", "dataset.json"))
    validation = [c.name for c in validation_cases(dataset, workspace)]
    splits = [{"train": [c.name for c in dataset.cases if c.name not in validation], "val": validation}]
    (preprocessed / "splits_final.json").write_text(json.dumps(splits))
    plans["continue_training"] = False
    trainer: Any = timed_trainer()(plans, configuration, 0, description, device=torch.device("cpu"))
    trainer.seconds, trainer.max_steps = seconds, steps
    began = time.perf_counter()
    trainer.run_training()
    trained = time.perf_counter() - began
    began = time.perf_counter()
    trainer.perform_actual_validation(False)
    validated = time.perf_counter() - began
    predicted = {
        name: sitk.GetArrayFromImage(sitk.ReadImage(str(Path(trainer.output_folder) / "validation" / f"{name}.nii.gz")))
        for name in validation
    }
    predicted = {name: array.reshape((1, *array.shape) if array.ndim == 2 else array.shape) for name, array in predicted.items()}
    chosen = plans["configurations"][configuration]
    features = chosen["architecture"]["arch_kwargs"]["features_per_stage"]
    network = f"{configuration}, patch {chosen['patch_size']}, batch {chosen['batch_size']}, features {features}"
    return Side("nnU-Net", prepared, trained, validated, trainer.steps, network, score(dataset, workspace, predicted))


def timed_trainer() -> type:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    class Timed(nnUNetTrainer):
        seconds: float
        max_steps: int | None
        steps = 0

        def run_training(self) -> None:
            self.on_train_start()
            self.network.train()
            began = time.monotonic()
            while (progress := self._progress(time.monotonic() - began)) < 1:
                for group in self.optimizer.param_groups:
                    group["lr"] = self.initial_lr * (1 - progress) ** 0.9
                loss = self.train_step(next(self.dataloader_train))["loss"]
                self.steps += 1
                if self.steps % 20 == 0:
                    print(f"nnU-Net step {self.steps}, loss {float(loss):.3f}, {time.monotonic() - began:.0f} s", flush=True)
            self.on_train_end()

        def _progress(self, elapsed: float) -> float:
            return elapsed / self.seconds if self.max_steps is None else self.steps / self.max_steps

    return Timed


def table(ours: Side, theirs: Side) -> list[str]:
    lines = [
        "| | plan and preprocess s | train s | predict s | steps | mean Dice | network |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for side in (theirs, ours):
        lines.append(
            f"| {side.name} | {side.prepare_s:.1f} | {side.train_s:.0f} | {side.predict_s:.0f} | {side.steps} | {side.mean:.4f} "
            f"| {side.network} |"
        )
    better = sum((ours.dice[n] or 0) > (theirs.dice[n] or 0) for n in ours.dice)
    comparison = f"autoseg's Dice is higher by {ours.mean - theirs.mean:.4f}; in {better} of {len(ours.dice)} structures."
    return [*lines, "", comparison]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--time", default="10m")
    parser.add_argument("--steps-of-nnunet", type=int, help="So many steps in place of the time.")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    require_nnunet()
    dataset = open_dataset(options.dataset.resolve())
    budget = budget_from_options(options.time, None, None, False)
    assert budget is not None
    assert budget.seconds is not None
    with tempfile.TemporaryDirectory() as folder:
        ours = run_autoseg(dataset, Path(folder) / "autoseg", options.time)
        print(ours, flush=True)
        theirs = run_nnunet(dataset, Path(folder) / "nnunet", Path(folder) / "autoseg", budget.seconds, options.steps_of_nnunet)
    title, command = (
        f"{dataset.name}: the same time beside nnU-Net",
        f"bench_versus_nnunet.py {dataset.name} --time {options.time}",
    )
    write_report(title, command, machine("autoseg", "nnunetv2", "torch"), table(ours, theirs), out=options.out)


if __name__ == "__main__":
    main()
