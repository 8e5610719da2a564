"""Time that training steps wait for their batches: one batch repeated, beside batches as drawn.

    python benchmarks/bench_feed.py [DATASET] [--device cpu] [--steps 40] [--out benchmarks/results/feed.md]

Each row is `autoseg.training.step.step` after some steps to warm up. DATASET is planned for the
device and prepared in a folder of its own. On a GPU the network and patch of nnU-Net's plan for the
Decathlon's liver come beside it, two samples of 128³ voxels drawn from a made-up case of 160³.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from autoseg.cli import SPINS

os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # as the command line does

import torch
from _made_up_job import LIVER, made_up_job
from _report import machine, write_report
from _training import plan_and_prepare

from autoseg.nets.device import Device, choose_device
from autoseg.pipeline.plan import PlanOptions
from autoseg.preprocessing.store import StoredCase
from autoseg.runs.budget import RunBudget
from autoseg.runs.job import TrainingJob
from autoseg.runs.options import TrainingOptions
from autoseg.system.allocator import keep_freed_memory
from autoseg.system.progress import number_of
from autoseg.training.loader import Loader
from autoseg.training.run import begin_or_resume
from autoseg.training.sampling import Batch, PatchSampler
from autoseg.training.step import step

WARM_UP = 8
THREADS = (1, 4)


class RepeatedBatch(Loader):
    """The same batch for each step."""

    def __init__(self, sampler: PatchSampler) -> None:
        super().__init__(sampler, 0, threads=0)
        self._batch = super().next()

    def next(self) -> Batch:
        return self._batch


def rows(name: str, job: TrainingJob, device: Device, steps: int) -> list[str]:
    run = begin_or_resume(job, TrainingOptions(RunBudget(epochs=1), compiled=False), device)
    cases = [StoredCase.open(job.prepared, case.name) for case in job.training]
    torch_device = device.torch_device if device.torch_device.type == "cuda" else None
    sampler = PatchSampler(cases, run.configuration, job.plan.data.labels, 0, torch_device)
    began = time.perf_counter()
    for i in range(5):
        sampler.draw(i)
    drawing = (time.perf_counter() - began) / 5

    def timed(loader: Loader) -> tuple[float, float]:
        for _ in range(WARM_UP):
            step(run, loader, 0.5)
        began, waited = time.perf_counter(), loader.waited
        for _ in range(steps):
            step(run, loader, 0.5)
        return (time.perf_counter() - began) / steps, (loader.waited - waited) / steps

    loaders: dict[str, Loader] = {"one batch repeated": RepeatedBatch(sampler)}
    loaders |= {f"drawn by {number_of(n, 'thread')}": Loader(sampler, 0, n) for n in THREADS}
    lines = []
    for name_of_loader, loader in loaders.items():
        with loader:
            seconds, waited = timed(loader)
        lines.append(f"| {name}, {name_of_loader} | {1e3 * seconds:.1f} | {1e3 * waited:.1f} | {1e3 * drawing:.1f} |")
        print(lines[-1], flush=True)
    return lines


def bench(dataset: Path | None, kind: str, steps: int) -> Sequence[str]:
    device = choose_device(kind)
    keep_freed_memory()
    torch.backends.cudnn.benchmark = True  # as a training does
    lines = []
    with tempfile.TemporaryDirectory() as root:
        if dataset:
            job = plan_and_prepare(dataset, Path(root), PlanOptions(kind, 8)).job("0")
            lines += rows(dataset.name, replace(job, run=Path(root) / "run"), device, steps)
        if kind == "cuda":
            folder = Path(root) / "liver"
            folder.mkdir()
            lines += rows("128³ voxels, two samples", made_up_job(LIVER, folder), device, steps)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, nargs="?")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    names = f"{options.dataset.name} " if options.dataset else ""
    command = f"bench_feed.py {names}--device {options.device}"
    table = [
        "| | ms a step | of which waited for the batch | ms to draw a batch alone |",
        "| --- | ---: | ---: | ---: |",
        *bench(options.dataset and options.dataset.resolve(), options.device, options.steps),
    ]
    machine_name = machine("torch", device=options.device)
    write_report("How batches keep up with steps", command, machine_name, table, out=options.out)


if __name__ == "__main__":
    main()
