"""A training that is killed twenty times in a row comes to the same end as one that is left alone.

    python benchmarks/bench_kill.py [--kills 20] [--epochs 20] [--seed 0] [--out benchmarks/results/kill.md]

The demo's phantoms, planned as the demo plans them, but with epochs of ten steps, so that there are
many moments to hit: `autoseg train --deterministic`, once to its end, then in a second workspace
with the same command over and over, each time killed with SIGKILL after a random time, of which the
first seconds go to imports. Then both are compared: all columns of metrics.csv that do not measure
the machine, run.json, and every tensor of last.safetensors.
"""

from __future__ import annotations

import argparse
import csv
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from _report import machine, write_report
from _training import plan_and_prepare
from safetensors.numpy import load_file

from autoseg.dataset.phantoms import make_phantoms
from autoseg.pipeline.plan import PlanOptions
from autoseg.plan import Plan
from autoseg.runs.record import load_run

STEPS = 10
START = 4.0  # seconds until the first step, about
CLOCK = ("seconds", "step_seconds", "data_wait", "peak_ram_gb")


def short_epochs(plan: Plan) -> Plan:
    name, chosen = plan.configuration(None)
    training = replace(chosen.training, steps_per_epoch=STEPS)
    return replace(plan, ladder=(), configurations={name: replace(chosen, training=training)})


def train_command(data: Path, root: Path, epochs: int) -> list[str]:
    arguments = [
        "train",
        "-d",
        str(data),
        "--root",
        str(root),
        "--epochs",
        str(epochs),
        "--deterministic",
        "--device",
        "cpu",
        "-q",
    ]
    return [sys.executable, "-m", "autoseg", *arguments]


def rows(run: Path) -> list[dict[str, str]]:
    """metrics.csv; nothing where there is no such file yet."""
    if not (run / "metrics.csv").is_file():
        return []
    with open(run / "metrics.csv", newline="", encoding="utf-8") as table:
        return list(csv.DictReader(table))


def kill_after(seconds: float, command: list[str]) -> bool:
    """Runs a command and kills it after some seconds; False if it ended before."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True
    assert code == 0, f"left with {code}"
    return False


def differences(whole: Path, parts: Path) -> list[str]:
    """Files and tensors in which two runs differ, but for the time they took."""
    files = []
    first, second = ([{k: v for k, v in row.items() if k not in CLOCK} for row in rows(run)] for run in (whole, parts))
    if first != second:
        files.append("metrics.csv")
    if replace(load_run(whole), seconds=0, step_s=0) != replace(load_run(parts), seconds=0, step_s=0):
        files.append("run.json")
    one, two = load_file(whole / "last.safetensors"), load_file(parts / "last.safetensors")
    return files + [
        name for name in one.keys() | two.keys() if name not in one or name not in two or (one[name] != two[name]).any()
    ]


def bench(work: Path, kills: int, epochs: int, seed: int) -> tuple[list[str], str]:
    """Table of the kills, and notes."""
    data = make_phantoms(work / "Dataset001_Phantom", 20, 4)
    plan_and_prepare(data, work / "whole", PlanOptions("cpu"), short_epochs)
    shutil.copytree(work / "whole", work / "parts")
    began = time.monotonic()
    subprocess.run(train_command(data, work / "whole", epochs), check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - began
    whole = next((work / "whole" / "runs").glob("*/*/fold_0"))
    parts = work / "parts" / whole.relative_to(work / "whole")
    rng = random.Random(seed)
    lines = ["| kill | after s | epochs done | steps | loss of the last one |", "| ---: | ---: | ---: | ---: | ---: |"]
    for i in range(kills):
        remaining = seconds * (1 - len(rows(parts)) / epochs)
        after = rng.uniform(0, 2 * (START + remaining / (kills - i + 2)))
        if not kill_after(after, train_command(data, work / "parts", epochs)):
            lines.append("| finished before | | | | |")
            break
        history = rows(parts)
        steps = [int(row["step"]) for row in history]
        assert steps == sorted(set(steps)), f"the curve is broken: {steps}"
        assert [int(row["epoch"]) for row in history] == list(range(1, len(history) + 1)), history
        loss = history[-1]["train_loss"] if history else ""
        lines.append(f"| {i + 1} | {after:.1f} | {len(history)} | {steps[-1] if steps else 0} | {loss} |")
        print(lines[-1], flush=True)
    subprocess.run(train_command(data, work / "parts", epochs), check=True, stdout=subprocess.DEVNULL)
    differ = differences(whole, parts)
    record, leftovers = load_run(parts), [p.name for p in parts.rglob(".*")]
    notes = [
        f"{epochs} epochs of {STEPS} steps, {seconds:.0f} s without a kill.",
        "Steps rise strictly, no epoch is missing or there twice.",
        "",
        f"Differences to the run without a kill in metrics.csv (but for {', '.join(CLOCK)}, which measure the",
        f"machine), run.json and all tensors: {', '.join(differ) or 'none'}.",
        f"Case Dice {record.case_dice:.6f}, {record.steps} steps. Files left over: {', '.join(leftovers) or 'none'}.",
    ]
    return lines, "\n".join(notes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table, notes = bench(Path(folder), options.kills, options.epochs, options.seed)
    command = f"bench_kill.py --kills {options.kills} --epochs {options.epochs} --seed {options.seed}"
    write_report("Killed again and again", command, machine("torch"), table, notes=notes, out=options.out)


if __name__ == "__main__":
    main()
