"""Label maps and landmarks learnt together, beside label maps alone: the cost in Dice.

    python benchmarks/bench_joint.py DATASET [--steps 1000] [--seeds 2] [--out benchmarks/results/joint.md]

DATASET is a Decathlon folder with label maps. The landmarks are the centre and the two ends of each
structure (`_joint_dataset`). Both sides have the planner's own plan for a CPU, which must be the
same but for the landmarks, and the same cases; they are trained in turns by the command line on
fold 0, for so many steps of the plan's recipe, and validated on the images' own voxels. The
baseline of the landmarks predicts in every case the mean position in the training cases, relative
to the centre of the image.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from _joint_dataset import make_joint_dataset, mean_position_mre
from _report import machine, write_report

from autoseg.dataset import Dataset, output_path
from autoseg.evaluation.bootstrap import interval, resample_weights
from autoseg.evaluation.metrics import dice_per_structure
from autoseg.fingerprint.dataset import load_fingerprint
from autoseg.io import read_label_map
from autoseg.pipeline.workspace import Workspace
from autoseg.plan import Configuration, load_plan, save_plan
from autoseg.runs.record import RunRecord, load_run
from autoseg.splits.folds import load_folds
from autoseg.training.checkpoint import load_state

STEPS_PER_EPOCH = 250
AUTOSEG = [sys.executable, "-m", "autoseg"]


@dataclass(frozen=True)
class Side:
    """One of the two datasets, planned and prepared."""

    name: str
    dataset: Dataset
    workspace: Workspace
    configuration: Configuration


@dataclass(frozen=True)
class Trained:
    """A training: its record, peak memory in GB, and Dice of each validation case and structure, NaN where undefined."""

    side: str
    seed: int
    record: RunRecord
    peak_gb: float | None
    dice: np.ndarray


def prepare(source: Path, folder: Path, name: str, steps: int) -> Side:
    """The plan is the planner's, with as many epochs as make up the steps."""
    dataset = make_joint_dataset(source, folder / name / source.name, landmarks=name == "joint")
    workspace = Workspace(folder / name / "work")
    data = ["-d", str(dataset.root), "--root", str(workspace.root)]
    command = [*AUTOSEG, "plan_and_preprocess", *data, "-c", "3d_fullres", "--device", "cpu"]
    subprocess.run(command, check=True)
    path = workspace.dataset_folder(dataset.name) / "plan.json"
    plan = load_plan(path)
    _, chosen = plan.configuration("3d_fullres")
    per_epoch = min(steps, STEPS_PER_EPOCH)
    chosen = replace(chosen, training=replace(chosen.training, epochs=steps // per_epoch, steps_per_epoch=per_epoch))
    save_plan(replace(plan, ladder=(), default_configuration="3d_fullres", configurations={"3d_fullres": chosen}), path)
    return Side(name, dataset, workspace, chosen)


def train(side: Side, seed: int) -> Trained:
    data = ["-d", str(side.dataset.root), "--root", str(side.workspace.root)]
    command = [*AUTOSEG, "train", *data, "--seed", str(seed), "--restart", "--device", "cpu"]
    print("$", " ".join(command), flush=True)
    subprocess.run(command, check=True)
    run = side.workspace.run(side.dataset.name, "3d_fullres", "0")
    peak = load_state(run / "last.safetensors").history[-1].peak_ram_gb
    return Trained(side.name, seed, load_run(run), peak, case_dice(side, run / "validation"))


def case_dice(side: Side, predictions: Path) -> np.ndarray:
    """(cases, structures) of fold 0, NaN where neither side has the structure."""
    labels, rows = side.dataset.labels, []
    _, validation = split(side)
    for case in side.dataset.cases:
        if case.name in validation:
            assert case.label is not None
            reference = read_label_map(case.label, labels).data
            predicted = read_label_map(output_path(predictions, case), labels).data
            rows.append(dice_per_structure(reference, predicted, labels.n_classes, labels.ignore_index))
    return np.array(rows, dtype=np.float64)


def split(side: Side) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the training and of the validation cases of fold 0."""
    folds = load_folds(side.workspace.dataset_folder(side.dataset.name) / "splits.json")
    return folds.training_cases("0"), folds.validation_cases("0")


def report(joint: Side, runs: list[Trained]) -> tuple[list[str], str]:
    """Table and comparison, and notes."""
    structures = joint.dataset.labels.names
    c = joint.configuration
    n_training, n_validation = map(len, split(joint))
    facts = load_fingerprint(joint.workspace.dataset_folder(joint.dataset.name) / "fingerprint.json").cases
    baseline = mean_position_mre(facts, *split(joint))
    notes = (
        f"{n_training} training and {n_validation} validation cases. Patch {'×'.join(map(str, c.patch.patch_size))}, batch "
        f"{c.patch.batch_size}, features {', '.join(map(str, c.network.features))}; {len(joint.dataset.landmarks)} landmarks, "
        f"whose mean position is {baseline:.2f} mm off."
    )
    lines = [
        f"| | seed | Dice | {' | '.join(structures)} | MRE mm | mean position mm | s a step | peak RAM GB |",
        f"| --- |{' ---: |' * (len(structures) + 6)}",
    ]
    for r in runs:
        mre, mean_position = ("", "") if r.record.mre is None else (f"{r.record.mre:.2f}", f"{baseline:.2f}")
        peak = "" if r.peak_gb is None else f"{r.peak_gb:.2f}"
        each = " | ".join(f"{d:.4f}" for d in np.nanmean(r.dice, 0))
        lines.append(
            f"| {r.side} | {r.seed} | {r.record.case_dice:.4f} | {each} | {mre} | {mean_position} | {r.record.step_s:.3f} "
            f"| {peak} |"
        )
    return [*lines, "", *comparison(runs)], notes


def comparison(runs: list[Trained]) -> list[str]:
    """The difference in Dice between the sides case by case, the mean over seeds, beside what seeds make of it."""
    by_side = {name: np.stack([r.dice for r in runs if r.side == name]) for name in ("alone", "joint")}
    means = {name: np.nanmean(d, axis=2).mean(1) for name, d in by_side.items()}
    gap = np.nanmean(by_side["joint"].mean(0) - by_side["alone"].mean(0), axis=1)
    low, high = interval(resample_weights(len(gap)) @ gap)
    sentences = [
        f"Joint minus alone, case by case: Dice {gap.mean():+.4f} (95 % interval of a bootstrap over {len(gap)} cases "
        f"{low:+.4f} to {high:+.4f})."
    ]
    spread = {name: f"{min(values):.4f} to {max(values):.4f}" for name, values in means.items()}
    sentences.append(f"Mean Dice of the cases over seeds: alone {spread['alone']}, joint {spread['joint']}.")
    seconds = {name: statistics.median(r.record.step_s for r in runs if r.side == name) for name in means}
    sentences.append(f"A step takes {seconds['joint'] / seconds['alone']:.2f} times as long.")
    return sentences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--steps", type=int, default=1000, help=f"Above {STEPS_PER_EPOCH} a multiple of that.")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.steps % min(options.steps, STEPS_PER_EPOCH):
        parser.error(f"--steps above {STEPS_PER_EPOCH} are whole epochs of so many")
    source = options.dataset.resolve()
    with tempfile.TemporaryDirectory() as folder:
        alone, joint = (prepare(source, Path(folder), name, options.steps) for name in ("alone", "joint"))
        assert replace(joint.configuration, landmarks=None).decisions == alone.configuration.decisions, "other plans"
        assert split(alone) == split(joint), "other folds"
        runs = []
        for seed in range(options.seeds):
            for side in (alone, joint):
                runs.append(train(side, seed))
                print(runs[-1].record, flush=True)
        table, notes = report(joint, runs)
    command = f"bench_joint.py {source.name} --steps {options.steps} --seeds {options.seeds}"
    title = "Label maps and landmarks in one training"
    write_report(title, command, machine("autoseg", "torch"), table, notes=notes, out=options.out)


if __name__ == "__main__":
    main()
