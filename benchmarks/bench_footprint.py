"""What training takes, as autoseg estimates it from the plan, beside what it takes.

    python benchmarks/bench_footprint.py [--device cpu] [--data FOLDER] [--out benchmarks/results/footprint.md]

Each line is a process of its own. Training: `autoseg.train.train` for three epochs of one step on a made-up prepared case a
quarter larger than the patch along each axis. The peak is what the operating system says; on a GPU, what its driver and torch's
allocator say. The seconds are those of the fastest step without waiting for data. Preparing and predicting: the first cases of
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
from dataclasses import dataclass, replace
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Any, get_args

import numpy as np

from autoseg.cli import SPINS
from autoseg.footprint import (
    STEP_PASSES,
    NetworkIO,
    multiply_accumulates,
    predicting_memory,
    prepared_bytes,
    preparing_memory,
    training_memory,
)
from autoseg.footprint.speed import CORE_AVX512, CORE_BF16, cpu_throughput, gpu_throughput
from autoseg.plan import Compute, DeviceKind, NetworkPlan, ScnPlan
from autoseg.system.machine import find_gpu, peak_ram_gb


@dataclass(frozen=True)
class Training:
    """What is trained; one class is no label map."""

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
    """As the planner makes them: 'plain' or 'residual', features doubled up to `most`, all axes halved.

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
    "small": Training(unet("plain", 3, 16, 3, 160, 1), (36, 52, 36), 4, 1, 3),
    "wide": Training(unet("plain", 3, 32, 4, 320, 2), (40, 56, 40), 9, 1, 3),
    "large": Training(unet("plain", 3, 16, 5, 160, 1), (128, 128, 128), 2, 1, 3),
    "residual": Training(unet("residual", 3, 16, 4, 160, 1), (64, 64, 64), 2, 1, 3),
    "heavy": Training(unet("plain", 3, 32, 5, 512, 2), (32, 32, 32), 2, 1, 2),
    "flat": Training(unet("plain", 2, 32, 6, 512, 2), (256, 256), 12, 1, 3),
    "flat, large": Training(unet("plain", 2, 16, 7, 256, 1), (512, 512), 8, 1, 3),
    "flat, residual": Training(unet("residual", 2, 16, 5, 256, 1), (256, 256), 8, 3, 3),
    "many classes": Training(unet("plain", 3, 16, 4, 160, 1), (64, 64, 64), 2, 1, 40),
    "more classes": Training(unet("plain", 3, 16, 4, 160, 1), (64, 64, 64), 2, 1, 120),
    "four channels": Training(unet("plain", 3, 16, 4, 160, 1), (64, 96, 96), 2, 4, 4),
    "45 landmarks": Training(*SKULL, 45),
    "45 landmarks, branch": Training(*SKULL, 45, BRANCH),
    "300 landmarks": Training(*SKULL, 300),
    "landmarks, flat": Training(unet("plain", 2, 32, 7, 512, 2, points=True), (768, 640), 4, 1, 1, 19),
    "joint": Training(unet("plain", 3, 32, 4, 320, 1), (40, 56, 40), 4, 1, 3, 6),
}
LIVER = Training(unet("plain", 3, 32, 6, 320, 2), (128, 128, 128), 2, 1, 3)  # as nnU-Net's plan for the Decathlon's liver
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
        what = TRAININGS[name]
        job = made_up_job(what, Path(folder))
        train(job, TrainingOptions(RunBudget(epochs=3)), Device(torch.device(kind), getattr(torch, compute)))
        rows = load_state(job.run / "last.safetensors").history
    found = {"gb": peak_ram_gb()}
    if kind == "cuda":
        free, total = torch.cuda.mem_get_info()
        context = total - free - torch.cuda.memory_reserved()
        found = {"gb": (context + torch.cuda.max_memory_reserved()) / 1e9, "context": context / 1e9}
    return {**found, "seconds": min(row.step_seconds * (1 - row.data_wait) for row in rows)}


def made_up_job(what: Training, folder: Path) -> Any:
    """With its one case prepared in the folder."""
    from autoseg.dataset import Case
    from autoseg.runs.job import TrainingJob

    write_made_up_case(what, folder)
    return TrainingJob(
        dataset="made_up",
        plan=made_up_plan(what),
        configuration="made_up",
        fold="0",
        training=(Case("case", (Path("case.nii.gz"),), None),),
        validation=(),
        prepared=folder,
        previous_stage=None,
        run=folder / "run",
    )


def made_up_plan(what: Training) -> Any:
    from autoseg import plan as p
    from autoseg.imaging.labels import LabelSet
    from autoseg.imaging.landmarks import LandmarkSet

    structures = tuple(range(1, what.classes))
    ndim = len(what.patch)
    configuration = p.Configuration(
        previous_stage=None,
        space=p.SpacePlan("LPS", (1.0,) * ndim, 0 if ndim == 2 else None, "none", 3, 1),
        patch=p.PatchPlan(what.patch, what.batch, 1 / 3),
        network=what.network,
        landmarks=p.LandmarkPlan((1.0,) * ndim, "spatial_ce", what.scn) if what.landmarks else None,
        training=p.TrainingPlan(3, 1, None, "adamw", 1e-3, 1e-2, "cosine", 0.0, 0.99, "default", ()),
        inference=p.InferencePlan(0.5, ()),
        postprocess=(),
        footprint=None,
        why={},
    )
    channels = tuple(p.ChannelPlan(f"channel {i}", "zscore", 0.0, 1.0, 0.0, 1.0) for i in range(what.channels))
    labels = LabelSet(tuple(f"structure {i}" for i in structures), structures)
    data = p.DataPlan(channels, labels, LandmarkSet(tuple(f"landmark {i}" for i in range(what.landmarks))))
    origin = p.Origin("made up", 8.0, "cpu", "0", "plain", None, None, "adamw_cosine")
    configurations = {"made_up": configuration}
    return p.Plan(p.SCHEMA_VERSION, "made_up", "segmentation", data, "made_up", configurations, origin, {})


def write_made_up_case(what: Training, folder: Path) -> None:
    """Noise, all classes as slices across x, and landmarks anywhere."""
    from autoseg.imaging.geometry import AxisMap, Box, Grid
    from autoseg.imaging.landmarks import State
    from autoseg.preprocessing.placement import Placement, Prepared
    from autoseg.preprocessing.store import write_case

    shape = (1,) * (3 - len(what.patch)) + tuple(n * 5 // 4 for n in what.patch)
    rng = np.random.default_rng(0)
    image = rng.standard_normal((what.channels, *shape), dtype=np.float32).astype(np.float16)
    label = np.broadcast_to(np.arange(shape[2]) % what.classes, shape).astype(np.uint8) if what.classes > 1 else None
    points = rng.uniform(0, np.array(shape) - 1, (what.landmarks, 3))
    grid = Grid.from_spacing(shape, (1.0, 1.0, 1.0))
    placement = Placement(grid, AxisMap((0, 1, 2), (False,) * 3), Box((0, 0, 0), shape), grid)
    state = np.full(what.landmarks, State.PRESENT)
    write_case(folder, "case", Prepared(image, label, placement, points, state), "made up")


def make_plan(dataset: Path, root: Path) -> None:
    from autoseg.dataset import open_dataset
    from autoseg.pipeline.fingerprint import fingerprint_dataset
    from autoseg.pipeline.plan import PlanOptions, plan_dataset
    from autoseg.pipeline.workspace import Workspace

    about, workspace = open_dataset(dataset), Workspace(root)
    fingerprint_dataset(about, workspace)
    plan_dataset(about, workspace, PlanOptions("cpu", 8))


def measure_preparing(dataset: Path, root: Path, factor: float) -> dict[str, Any]:
    """Peak (GB) and disk (MB) of the first case, at `factor` times the planned spacing."""
    from autoseg.dataset import open_dataset
    from autoseg.io import read_image, read_label_map
    from autoseg.pipeline.workspace import Workspace
    from autoseg.plan import load_plan
    from autoseg.preprocessing.case import preprocess_case
    from autoseg.preprocessing.store import write_case

    about = open_dataset(dataset)
    plan = load_plan(Workspace(root).dataset_folder(about.name) / "plan.json")
    space = plan.configuration(None)[1].space
    space = replace(space, spacing_mm=tuple(s * factor for s in space.spacing_mm))
    case = about.cases[0]
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

    about = open_dataset(dataset)
    plan = load_plan(Workspace(root).dataset_folder(about.name) / "plan.json")
    c = plan.configuration(None)[1]
    c = replace(c, inference=replace(c.inference, overlap=0.0))
    device = Device(torch.device("cpu"), getattr(torch, compute))
    model = Model((build_network(plan, c, device).eval(),), plan, c, device)
    with tempfile.TemporaryDirectory() as folder:
        predict(model, (), about.cases[:2], Path(folder), mirror=False)
    peak = peak_ram_gb()
    image = read_image(about.cases[0].images, tuple(channel.name for channel in plan.data.channels))
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


def alone(*arguments: object) -> dict[str, Any]:
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
    for name, what in TRAININGS.items():
        network = f"{what.network.kind} {what.network.features[0]}…{what.network.features[-1]}"
        size = f"{'×'.join(map(str, what.patch))}, {what.batch}, {what.channels}, {what.classes}, {what.landmarks}"
        for compute, speed in speeds.items():
            found = alone("training", name, compute, kind)
            gb, seconds = what.gigabytes(compute, kind), what.gmacs / speed
            memory = f"{gb:.2f} | {found['gb']:.2f} | {gb / found['gb']:.2f}"
            time = f"{what.gmacs:.0f} | {seconds:.3g} | {found['seconds']:.3g} | {seconds / found['seconds']:.2f}"
            lines.append(f"| {name} | {network} | {size} | {compute} | {memory} | {time} |")
            print(lines[-1], f"context {found['context']:.2f} GB" if kind == "cuda" else "", flush=True)
    return lines


def case_lines(data: Path) -> list[str]:
    lines = [
        "| what | estimated GB | measured GB | ratio | estimated MB on disk | measured | ratio |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    with tempfile.TemporaryDirectory() as root:
        for name in dict.fromkeys(name for name, _ in CASES):
            alone("plan", data / name, root)
        for name, factor in CASES:
            m = alone("preparing", data / name, root, factor)
            shape = "×".join(map(str, m["shape"]))
            memory = f"{m['estimate']:.2f} | {m['gb']:.2f} | {m['estimate'] / m['gb']:.2f}"
            disk = f"{m['estimate_mb']:.2f} | {m['mb']:.2f} | {m['estimate_mb'] / m['mb']:.1f}"
            lines.append(f"| preparing {name} at {shape} | {memory} | {disk} |")
        for name in dict.fromkeys(name for name, _ in CASES):
            for compute in ("bfloat16", "float32"):
                m = alone("predicting", data / name, root, compute)
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
    load = os.getloadavg()[0]
    about = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores (load {load:.0f} when begun)"
    if options.device == "cuda" and (gpu := find_gpu()):
        about = gpu.name
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "blosc2"))
    lines = [
        "# Estimated and measured",
        "",
        f"`python benchmarks/bench_footprint.py --device {options.device}` on {about}; {versions}.",
        "",
    ]
    lines += ["## Training", "", *training_lines(options.device)]
    if options.data:
        lines += ["", "## Preparing and predicting a case", "", *case_lines(options.data)]
    table = "\n".join([*lines, ""])
    print(table)
    if options.out:
        options.out.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
