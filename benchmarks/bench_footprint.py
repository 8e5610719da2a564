"""Memory, disk and seconds as autoseg estimates them from the plan, beside what is measured.

    python benchmarks/bench_footprint.py [--device cpu] [--data FOLDER] [--out benchmarks/results/footprint.md]

Each line is a process of its own. Training: `autoseg.training.train.train` for three epochs of one
step on a made-up prepared case a quarter larger than the patch along each axis. The peak is what
the operating system says; on a GPU, what its driver and torch's allocator say. The seconds are
those of the fastest step without waiting for data. Preparing and predicting: the first cases of
datasets in FOLDER, with the plan for a CPU with 8 GB and random weights.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import replace
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Any, get_args

from _made_up_job import TRAININGS, made_up_job
from _report import write_report

from autoseg.cli import SPINS
from autoseg.footprint import NetworkIO, predicting_memory, prepared_bytes, preparing_memory
from autoseg.footprint.speed import CORE_AVX512, CORE_BF16, cpu_throughput, gpu_throughput
from autoseg.plan import Compute, DeviceKind
from autoseg.system.machine import find_gpu, peak_ram_gb

CASES = (("brats2013", 1.0), ("brats2013", 0.7), ("brats2013", 1.6), ("mouse_brain", 1.0), ("Task04_Hippocampus", 1.0))


def measure_training(name: str, compute: Compute, kind: DeviceKind) -> dict[str, float]:
    """Peak (GB) and seconds of the fastest step, in this process."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # as the command line does
    import torch

    from autoseg.nets.device import Device
    from autoseg.runs.budget import RunBudget
    from autoseg.runs.options import TrainingOptions
    from autoseg.training.checkpoint import load_state
    from autoseg.training.train import train

    with tempfile.TemporaryDirectory() as folder:
        job = made_up_job(TRAININGS[name], Path(folder))
        train(job, TrainingOptions(RunBudget(epochs=3)), Device(torch.device(kind), getattr(torch, compute)))
        rows = load_state(job.run / "last.safetensors").history
    peak = peak_ram_gb()
    assert peak is not None
    memory = {"gb": peak}
    if kind == "cuda":
        free, total = torch.cuda.mem_get_info()
        context = total - free - torch.cuda.memory_reserved()
        memory = {"gb": (context + torch.cuda.max_memory_reserved()) / 1e9, "context": context / 1e9}
    return {**memory, "seconds": min(row.step_seconds * (1 - row.data_wait) for row in rows)}


def make_plan(dataset: Path, root: Path) -> None:
    from autoseg.dataset import open_dataset
    from autoseg.pipeline.fingerprint import fingerprint_dataset
    from autoseg.pipeline.plan import PlanOptions, plan_dataset
    from autoseg.pipeline.workspace import Workspace

    opened, workspace = open_dataset(dataset), Workspace(root)
    fingerprint_dataset(opened, workspace)
    plan_dataset(opened, workspace, PlanOptions("cpu", 8))


def measure_preparing(dataset: Path, root: Path, factor: float) -> dict[str, Any]:
    """Peak (GB) and disk (MB) of the first case, at `factor` times the planned spacing."""
    from autoseg.dataset import open_dataset
    from autoseg.io import read_image, read_label_map
    from autoseg.pipeline.workspace import Workspace
    from autoseg.plan import load_plan
    from autoseg.preprocessing.case import preprocess_case
    from autoseg.preprocessing.store import write_case

    opened = open_dataset(dataset)
    plan = load_plan(Workspace(root).dataset_folder(opened.name) / "plan.json")
    space = plan.configuration(None)[1].space
    space = replace(space, spacing_mm=tuple(s * factor for s in space.spacing_mm))
    case = opened.cases[0]
    image = read_image(case.images, tuple(c.name for c in plan.data.channels))
    assert case.label is not None
    prepared = preprocess_case(image, read_label_map(case.label, plan.data.labels), plan.data, space)
    with tempfile.TemporaryDirectory() as folder:
        write_case(Path(folder), "case", prepared, "benchmark")
        disk = sum(f.stat().st_size for f in Path(folder).iterdir())
    shape, channels = prepared.image.shape[1:], len(prepared.image)
    estimate = preparing_memory(prod(image.grid.shape), prod(shape), n_channels=channels, has_label=True, workers=1)
    expected = prepared_bytes(1, shape, n_channels=channels, n_structures=plan.data.labels.n_classes - 1)
    return {"gb": peak_ram_gb(), "estimate": estimate / 1e9, "mb": disk / 1e6, "estimate_mb": expected / 1e6, "shape": shape}


def measure_predicting(dataset: Path, root: Path, compute: Compute) -> dict[str, Any]:
    """Peak (GB) of the first two cases."""
    import torch

    from autoseg.dataset import open_dataset
    from autoseg.inference.model import Model
    from autoseg.inference.predict import predict
    from autoseg.io import read_image
    from autoseg.nets.build import build_network
    from autoseg.nets.device import Device
    from autoseg.pipeline.workspace import Workspace
    from autoseg.plan import load_plan
    from autoseg.preprocessing.case import preprocess_case

    opened = open_dataset(dataset)
    plan = load_plan(Workspace(root).dataset_folder(opened.name) / "plan.json")
    c = plan.configuration(None)[1]
    c = replace(c, inference=replace(c.inference, overlap=0.0))
    device = Device(torch.device("cpu"), getattr(torch, compute))
    model = Model((build_network(plan, c, device).eval(),), plan, c, device)
    with tempfile.TemporaryDirectory() as folder:
        predict(model, (), opened.cases[:2], Path(folder), mirror=False)
    peak = peak_ram_gb()
    image = read_image(opened.cases[0].images, tuple(channel.name for channel in plan.data.channels))
    target = preprocess_case(image, None, plan.data, c.space).image.shape[1:]
    estimate = predicting_memory(
        c.network,
        c.patch.patch_size,
        NetworkIO(len(image.data), plan.data.labels.n_classes),
        batch_size=c.patch.batch_size,
        compute=compute,
        source_voxels=prod(image.grid.shape),
        target_voxels=prod(target),
    )
    return {"gb": peak, "estimate": estimate / 1e9}


def in_own_process(*arguments: object) -> dict[str, Any]:
    """One line of the table, measured in a process of its own."""
    command = [sys.executable, __file__, "--one", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def one(what: str, *arguments: str) -> dict[str, Any]:
    if what == "training":
        return measure_training(*arguments)  # type: ignore[arg-type]
    dataset, root = Path(arguments[0]), Path(arguments[1])
    if what == "plan":
        make_plan(dataset, root)
        return {}
    if what == "preparing":
        return measure_preparing(dataset, root, float(arguments[2]))
    return measure_predicting(dataset, root, arguments[2])  # type: ignore[arg-type]


def training_lines(kind: DeviceKind) -> list[str]:
    lines = [
        "| plan | network | patch, batch, channels, classes, landmarks | type | estimated GB | measured GB | ratio "
        "| 10⁹ MAC a step | estimated s | measured s | ratio |",
        "| --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    cores = round(cpu_throughput() / cpu_throughput(1))
    speeds: dict[Compute, float] = {"bfloat16": CORE_BF16 * cores, "float32": CORE_AVX512 * cores}
    if kind == "cuda":
        gpu = find_gpu()
        speeds = {"bfloat16": gpu_throughput(gpu.name if gpu else "")}
    for name, training in TRAININGS.items():
        network = f"{training.network.kind} {training.network.features[0]}…{training.network.features[-1]}"
        counts = f"{training.batch}, {training.channels}, {training.classes}, {training.landmarks}"
        size = f"{'×'.join(map(str, training.patch))}, {counts}"
        for compute, speed in speeds.items():
            measured = in_own_process("training", name, compute, kind)
            gb, seconds = training.gigabytes(compute, kind), training.gmacs / speed
            memory = f"{gb:.2f} | {measured['gb']:.2f} | {gb / measured['gb']:.2f}"
            time = f"{training.gmacs:.0f} | {seconds:.3g} | {measured['seconds']:.3g} | {seconds / measured['seconds']:.2f}"
            lines.append(f"| {name} | {network} | {size} | {compute} | {memory} | {time} |")
            print(lines[-1], f"context {measured['context']:.2f} GB" if kind == "cuda" else "", flush=True)
    return lines


def case_lines(data: Path) -> list[str]:
    lines = [
        "| what | estimated GB | measured GB | ratio | estimated MB on disk | measured | ratio |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    with tempfile.TemporaryDirectory() as root:
        for name in dict.fromkeys(name for name, _ in CASES):
            in_own_process("plan", data / name, root)
        for name, factor in CASES:
            m = in_own_process("preparing", data / name, root, factor)
            shape = "×".join(map(str, m["shape"]))
            memory = f"{m['estimate']:.2f} | {m['gb']:.2f} | {m['estimate'] / m['gb']:.2f}"
            disk = f"{m['estimate_mb']:.2f} | {m['mb']:.2f} | {m['estimate_mb'] / m['mb']:.1f}"
            lines.append(f"| preparing {name} at {shape} | {memory} | {disk} |")
        for name in dict.fromkeys(name for name, _ in CASES):
            for compute in ("bfloat16", "float32"):
                m = in_own_process("predicting", data / name, root, compute)
                memory = f"{m['estimate']:.2f} | {m['gb']:.2f} | {m['estimate'] / m['gb']:.2f}"
                lines.append(f"| predicting {name}, {compute} | {memory} | | | |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--device", choices=get_args(DeviceKind), default="cpu")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(*options.one)))
        return
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores (load {os.getloadavg()[0]:.0f} at the start)"
    if options.device == "cuda" and (gpu := find_gpu()):
        machine = gpu.name
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "blosc2"))
    table = ["## Training", "", *training_lines(options.device)]
    if options.data:
        table += ["", "## Preparing and predicting a case", "", *case_lines(options.data)]
    command = f"bench_footprint.py --device {options.device}"
    write_report("Estimated and measured", command, f"{machine}; {versions}", table, out=options.out)


if __name__ == "__main__":
    main()
