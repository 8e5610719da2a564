"""The main job on Decathlon Task04, as a user's shell sees it: plan and prepare, train, predict, evaluate.

    python benchmarks/bench_main_job.py DATASET [--time 10m] [--out benchmarks/results/main_job.md]

Every figure is the wall-clock time and peak memory of a whole command, start-up included. Where nnU-Net v2 is installed in
the same environment, its planning and preprocessing of the same cases is measured beside ours. Nothing is cached between
commands but what the commands themselves write.
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
    places = {f"nnUNet_{k}": str(work / k) for k in ("raw", "preprocessed", "results")}
    for place in places.values():
        Path(place).mkdir()
    raw = work / "raw" / "Dataset004_Hippocampus"
    about = json.loads((dataset / "dataset.json").read_text())
    for part, suffix in (("imagesTr", "_0000"), ("labelsTr", "")):
        (raw / part).mkdir(parents=True)
        for file in (dataset / part).glob("*.nii.gz"):
            shutil.copy(file, raw / part / file.name.replace(".nii.gz", f"{suffix}.nii.gz"))
    labels = {name: int(value) for value, name in about["labels"].items()}
    meta = {"channel_names": about["modality"], "labels": labels, "numTraining": len(about["training"]), "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps(meta))
    return measure(["nnUNetv2_plan_and_preprocess", "-d", "4", "-c", "3d_fullres"], places)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--time", default="10m")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        table = bench(options.dataset.resolve(), options.time, Path(name))
    print(table)
    if options.out:
        options.out.write_text(table)


def bench(dataset: Path, budget: str, work: Path) -> str:
    root = ["--root", str(work / "autoseg_work")]
    about_help = best_of(5, ["autoseg", "--help"])
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
    other = nnunet_preprocessing(dataset, work)
    n_cases = len(list((dataset / "imagesTr").glob("*.nii.gz")))
    structures = ", ".join(f"{k} {v:.4f}" for k, v in record["structure_dice"].items())
    rows = [
        ("autoseg --help", about_help, ""),
        (f"plan_and_preprocess, {n_cases} cases", plan, ""),
        ("the same again, nothing changed", again, ""),
        (f"train --time {budget} -f 0", train, f"case Dice {record['case_dice']:.4f} ({structures}), {record['steps']} steps"),
        ("predict, 20 cases", predict, f"second run identical: {'yes' if same else 'NO'} ({second.seconds:.1f} s)"),
        ("evaluate, 20 cases", evaluate, ""),
    ]
    if other:
        rows.append((f"nnU-Net {version('nnunetv2')}: plan_and_preprocess", other, f"{other.seconds / plan.seconds:.1f}× ours"))
    lines = ["| command | wall s | peak RAM GB | |", "| --- | ---: | ---: | --- |"]
    lines += [f"| {what} | {run.seconds:.2f} | {run.peak_gb:.2f} | {note} |" for what, run, note in rows]
    machine = f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"
    packages = ", ".join(f"{p} {version(p)}" for p in ("autoseg", "torch", "numpy", "SimpleITK"))
    command = f"python benchmarks/bench_main_job.py {dataset.name} --time {budget}"
    return "\n".join(["# The main job", "", f"`{command}` on {machine}; {packages}.", "", *lines, ""])


if __name__ == "__main__":
    main()
