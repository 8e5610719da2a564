"""Time and memory of the main job on Decathlon Task04: plan, prepare, train, predict, evaluate.

    python benchmarks/bench_main_job.py DATASET [--time 10m] [--out benchmarks/results/main_job.md]

Every figure is the wall-clock time and peak memory of a whole command, start-up included. Where
nnU-Net v2 is installed in the same environment, its planning and preprocessing of the same cases is
measured beside ours. Nothing is cached between commands but what the commands themselves write.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from _report import machine, write_report


@dataclass(frozen=True)
class Run:
    """A finished command: seconds, peak memory in GB of the largest process, and what it printed."""

    seconds: float
    peak_gb: float
    stdout: str


def measure(command: list[str], environment: dict[str, str] | None = None) -> Run:
    """Runs a command; stops the benchmark where it fails."""
    print("$", " ".join(command), flush=True)
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})})
    assert process.stdout is not None
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"failed with status {status}: {' '.join(command)}")
    return Run(time.perf_counter() - began, usage.ru_maxrss / 1e6, out)


def best_of(n: int, command: list[str]) -> Run:
    return min((measure(command) for _ in range(n)), key=lambda r: r.seconds)


def nnunet_preprocessing(dataset: Path, work: Path) -> Run | None:
    """nnU-Net's conversion is left out of the time; fingerprint, plans and preprocessing of 3d_fullres are in it."""
    if shutil.which("nnUNetv2_plan_and_preprocess") is None:
        return None
    folders = {f"nnUNet_{k}": str(work / k) for k in ("raw", "preprocessed", "results")}
    for folder in folders.values():
        Path(folder).mkdir()
    raw = work / "raw" / "Dataset004_Hippocampus"
    description = json.loads((dataset / "dataset.json").read_text())
    for part, suffix in (("imagesTr", "_0000"), ("labelsTr", "")):
        (raw / part).mkdir(parents=True)
        for file in (dataset / part).glob("*.nii.gz"):
            shutil.copy(file, raw / part / file.name.replace(".nii.gz", f"{suffix}.nii.gz"))
    labels = {name: int(value) for value, name in description["labels"].items()}
    meta = {
        "channel_names": description["modality"],
        "labels": labels,
        "numTraining": len(description["training"]),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(meta))
    return measure(["nnUNetv2_plan_and_preprocess", "-d", "4", "-c", "3d_fullres"], folders)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--time", default="10m")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = bench(options.dataset.resolve(), options.time, Path(folder))
    command = f"bench_main_job.py {options.dataset.resolve().name} --time {options.time}"
    versions = f"{machine('autoseg', 'torch', 'numpy', 'SimpleITK')}, Python {platform.python_version()}"
    write_report("The main job", command, versions, table, out=options.out)


def bench(dataset: Path, budget: str, work: Path) -> list[str]:
    """Table of the commands."""
    root = ["--root", str(work / "autoseg_work")]
    help_page = best_of(5, ["autoseg", "--help"])
    plan = measure(["autoseg", "plan_and_preprocess", "-d", str(dataset), *root])
    again = measure(["autoseg", "plan_and_preprocess", "-d", str(dataset), *root])
    train = measure(["autoseg", "train", "--time", budget, "-f", "0", "--json", *root])
    record = json.loads(train.stdout)
    twenty = work / "twenty"
    twenty.mkdir()
    validated = sorted((work / "autoseg_work" / "runs").glob("*/*/fold_0/validation/*.nii.gz"))[:20]
    for file in validated:
        shutil.copy(dataset / "imagesTr" / file.name, twenty)
    predict = measure(["autoseg", "predict", "-i", str(twenty), "-o", str(work / "masks"), *root])
    second = measure(["autoseg", "predict", "-i", str(twenty), "-o", str(work / "masks2"), *root])
    same = all((work / "masks" / f.name).read_bytes() == (work / "masks2" / f.name).read_bytes() for f in validated)
    evaluate = measure(["autoseg", "evaluate", "-p", str(work / "masks"), "--json", *root])
    nnunet = nnunet_preprocessing(dataset, work)
    n_cases = len(list((dataset / "imagesTr").glob("*.nii.gz")))
    structures = ", ".join(f"{k} {v:.4f}" for k, v in record["structure_dice"].items())
    rows = [
        ("autoseg --help", help_page, ""),
        (f"plan_and_preprocess, {n_cases} cases", plan, ""),
        ("the same again, nothing changed", again, ""),
        (f"train --time {budget} -f 0", train, f"case Dice {record['case_dice']:.4f} ({structures}), {record['steps']} steps"),
        ("predict, 20 cases", predict, f"second run identical: {'yes' if same else 'NO'} ({second.seconds:.1f} s)"),
        ("evaluate, 20 cases", evaluate, ""),
    ]
    if nnunet:
        rows.append((f"nnU-Net {version('nnunetv2')}: plan_and_preprocess", nnunet, f"{nnunet.seconds / plan.seconds:.1f}× ours"))
    lines = ["| command | wall s | peak RAM GB | |", "| --- | ---: | ---: | --- |"]
    lines += [f"| {name} | {run.seconds:.2f} | {run.peak_gb:.2f} | {note} |" for name, run, note in rows]
    return lines


if __name__ == "__main__":
    main()
