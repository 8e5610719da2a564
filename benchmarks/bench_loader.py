"""Batches a second: threads against processes.

    python benchmarks/bench_loader.py DATASET... [--seconds 10] [--out benchmarks/results/loader.md]

For each dataset, prepared as planned for a CPU: how many training batches (patches read, deformed,
their intensities changed) come out while nothing else is done. Threads are autoseg's own loader.
Processes make the same batches with the same code, started with spawn, and hand them over in shared
memory (torch's DataLoader); batchgenerators' MultiThreadedAugmenter, which forks, is there for
reference. The time to start is not counted. Kinds take turns, each in a process of its own, since a
fork copies no threads that were started before; a figure is the median of three rounds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import torch
from _report import machine, write_report
from _training import plan_and_prepare
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from autoseg.pipeline.plan import PlanOptions
from autoseg.preprocessing.store import StoredCase
from autoseg.training.loader import Loader
from autoseg.training.sampling import PatchSampler

ROUNDS, WARM_UP = 3, 4
KINDS = (
    "no thread",
    "1 thread",
    "2 threads",
    "1 process",
    "2 processes",
    "batchgenerators, 1 process",
    "batchgenerators, 2 processes",
)


@dataclass
class Steps(IterableDataset):
    """Batches as torch's DataLoader wants them, until told to stop: a worker that is ended while it sends, aborts."""

    sampler: PatchSampler
    stop: Event

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        worker = get_worker_info()
        assert worker is not None
        for step in count(worker.id, worker.num_workers):
            if self.stop.is_set():
                return
            batch = self.sampler.batch(step)
            yield batch.image, batch.label


@dataclass
class Endless:
    """The batches of a sampler as batchgenerators wants them."""

    sampler: PatchSampler
    thread_id: int = 0
    step: int = field(default=0)

    def set_thread_id(self, thread_id: int) -> None:
        self.thread_id = thread_id

    def __iter__(self) -> Endless:
        return self

    def __next__(self) -> dict[str, Any]:
        self.step += 1
        batch = self.sampler.batch(1000 * self.thread_id + self.step)
        return {"data": batch.image.numpy(), "seg": batch.label.numpy()}


def sampler_of(data: Path, root: Path) -> PatchSampler:
    planned = plan_and_prepare(data, root, PlanOptions("cpu"))
    job = planned.job("0")
    cases = [StoredCase.open(job.prepared, c.name) for c in job.training]
    return PatchSampler(cases, planned.plan.configuration(None)[1], planned.plan.data.labels, 0)


def rate(kind: str, sampler: PatchSampler, seconds: float) -> float:
    """Batches a second, one thread of torch's in each process."""
    torch.set_num_threads(1)
    n = int(kind.split(", ")[-1].split()[0].replace("no", "0"))
    if "thread" in kind:
        with Loader(sampler, 0, n) as loader:
            return _rate(loader.next, seconds)
    if kind.startswith("batchgenerators"):
        augmenter = MultiThreadedAugmenter(Endless(sampler), None, n, 2)
        try:
            return _rate(augmenter.__next__, seconds)
        finally:
            augmenter._finish()
    spawn = get_context("spawn")
    stop = spawn.Event()
    batches = iter(
        DataLoader(Steps(sampler, stop), batch_size=None, num_workers=n, multiprocessing_context=spawn, prefetch_factor=4)
    )
    batches_per_second = _rate(batches.__next__, seconds)
    stop.set()
    for _ in batches:
        pass
    return batches_per_second


def _rate(following: Callable[[], object], seconds: float) -> float:
    for _ in range(WARM_UP):
        following()
    began, n = time.perf_counter(), 0
    while (now := time.perf_counter()) - began < seconds:
        following()
        n += 1
    return n / (now - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", type=Path, nargs="+")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    lines = ["| dataset | patches | " + " | ".join(KINDS) + " |", "| --- | --- |" + " ---: |" * len(KINDS)]
    with tempfile.TemporaryDirectory() as folder:
        for data in options.datasets:
            sampler = sampler_of(data.resolve(), Path(folder))
            patch = sampler.configuration.patch
            rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
            for _ in range(ROUNDS):
                for kind in KINDS:
                    with ProcessPoolExecutor(1, get_context("spawn")) as process:
                        rates[kind].append(process.submit(rate, kind, sampler, options.seconds).result())
            patches = f"{patch.batch_size} of {'×'.join(map(str, patch.patch_size))}"
            lines.append(
                f"| {data.name} | {patches} | " + " | ".join(f"{statistics.median(r):.1f}" for r in rates.values()) + " |"
            )
            print(lines[-1], flush=True)
    names = " ".join(d.name for d in options.datasets)
    command = f"bench_loader.py {names} --seconds {options.seconds:g}"
    write_report("Batches a second", command, machine("torch", "numpy", "batchgenerators"), lines, out=options.out)


if __name__ == "__main__":
    main()
