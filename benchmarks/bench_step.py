"""Time of a training step on a CPU: bf16 against float32, and how long threads may spin, alone and beside a busy program.

    python benchmarks/bench_step.py [--out benchmarks/results/step.md]

The network, patch and batch are those that the planner chooses for 208 cases of 36×50×35 voxels on a CPU. Each figure is the
median of three processes, taken in turns, each with the median of nine steps: libgomp reads its settings once.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

from autoseg.cli import SPINS

BUSY = "while True: pass"
REPEATS = 3
LIMITS = ("10000", SPINS, "100")


def step_seconds(kind: str) -> float:
    """Median of nine steps after three to warm up, in this process; `kind` is float32 or bfloat16."""
    import torch

    from autoseg.losses import deep_supervision
    from autoseg.nets import build_network
    from autoseg.plan import NetworkPlan

    ones, twos, threes = (1, 1, 1), (2, 2, 2), (3, 3, 3)
    plan = NetworkPlan("plain_unet", (16, 32, 64), (ones, twos, twos), (threes,) * 3, (2, 2, 2), (1, 1), True)
    network = build_network(plan, 1, 3)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    image, label = torch.randn(4, 1, 36, 52, 36), torch.randint(0, 3, (4, 36, 52, 36))
    seconds = []
    for _ in range(12):
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == "bfloat16"):
            outputs = network(image).logits
        loss = deep_supervision(outputs, label, 255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    return sorted(seconds[3:])[4]


def measure(kind: str, spin: str | None, busy: bool) -> float:
    environment = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"} | ({"GOMP_SPINCOUNT": spin} if spin else {})
    load = subprocess.Popen([sys.executable, "-c", BUSY]) if busy else None
    try:
        command = [sys.executable, __file__, "--one", kind]
        return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    finally:
        if load:
            load.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", choices=("float32", "bfloat16"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.one:
        print(step_seconds(options.one))
        return
    names = ("libgomp's own spinning", *(f"GOMP_SPINCOUNT={limit}" for limit in LIMITS))
    lines = [
        "# A training step on a CPU",
        "",
        f"`python benchmarks/bench_step.py` on {platform.machine()}, {os.cpu_count()} cores; torch {version('torch')}.",
        f"Seconds a step, median of three processes. autoseg takes GOMP_SPINCOUNT={SPINS}.",
        "",
        f"| | {' | '.join(names)} |",
        "| --- |" + " ---: |" * len(names),
    ]
    for kind in ("float32", "bfloat16"):
        for busy in (False, True):
            rounds = [[measure(kind, limit, busy) for limit in (None, *LIMITS)] for _ in range(REPEATS)]
            medians = [sorted(side)[REPEATS // 2] for side in zip(*rounds)]
            what = f"{kind}, {'beside a busy program' if busy else 'alone'}"
            lines.append(f"| {what} | {' | '.join(f'{m:.3f}' for m in medians)} |")
            print(lines[-1], flush=True)
    table = "\n".join([*lines, ""])
    print(table)
    if options.out:
        options.out.write_text(table)


if __name__ == "__main__":
    main()
