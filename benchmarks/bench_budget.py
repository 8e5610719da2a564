"""The Dice that a limit of time buys: this autoseg beside another version of it, on the same cores.

    python benchmarks/bench_budget.py DATASET... --time 1m [3m 10m] [--seeds 1] [--before FOLDER] [--fold 0] [--float32]
        [--large FOLDER] [--out benchmarks/results/budget.md]

Every dataset is planned with the limit of time (`autoseg plan_and_preprocess --time`) and fold 0 is trained by `autoseg
train --time`, in a workspace of its own and one after another, first with the autoseg in FOLDER (a worktree of an earlier
commit), then with this one. Dice, or the error of landmarks, is that of the validation cases on their own grids.
--large makes the phantoms of 200×300×300 voxels in FOLDER and adds them to the datasets.
--float32 hides bf16 instructions from oneDNN and from the planner, as on older processors. Finished trainings are kept in
a .jsonl beside the table and not repeated; a plot of Dice against minutes lies beside it too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from statistics import fmean

from _large_phantoms import make_large_phantoms
from _report import machine, write_report

from autoseg.runs.budget import parse_duration

HERE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Experiment:
    """A training: of which version, on which dataset, how long."""

    version: str
    dataset: str
    time: str
    seed: int
    fold: str
    float32: bool


@dataclass(frozen=True)
class Outcome:
    """The result of a training; `score` is Dice, or a landmark error where there are no label maps."""

    experiment: Experiment
    configuration: str
    steps: int
    score: float | None
    is_error: bool
    worst: float | None


def run(words: Sequence[str], source: Path, float32: bool, cwd: Path) -> str:
    """Runs a command of the autoseg in `source`; what it prints."""
    environment = os.environ | {"PYTHONPATH": str(source)}
    if float32:
        environment["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE"
    code = "import sys; from autoseg.cli import main; main()"
    if float32:  # neither version has a switch for it: the name of the processor decides
        code = (
            "import sys, autoseg.footprint.speed as s; s.cpu_has_bf16 = lambda *a: False\n"
            "import autoseg.pipeline.plan as p; p.cpu_has_bf16 = s.cpu_has_bf16\n"
            "from autoseg.cli import main\n"
            "if sys.argv[1] in ('train', 'predict'):\n"
            "    import autoseg.nets.device as d; d._cpu_has_bf16 = lambda: False\n"
            "main()"
        )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 4):
        raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr[-3000:]}")
    return done.stdout


def learn(experiment: Experiment, data: Path, source: Path) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        cwd, root = Path(folder), Path(folder) / "work"
        where, rest = ("-d", str(data), "--root", str(root)), (source, experiment.float32, cwd)
        run(("plan_and_preprocess", *where, "--time", experiment.time, "--device", "cpu", "-q"), *rest)
        words = (
            "--time",
            experiment.time,
            "--seed",
            str(experiment.seed),
            "-f",
            experiment.fold,
            "--device",
            "cpu",
            "--json",
            "-q",
        )
        record = json.loads(run(("train", *where, *words), *rest))
        dice = [d for d in record["structure_dice"].values() if d is not None]
        return Outcome(
            experiment,
            configuration=record["configuration"],
            steps=record["steps"],
            score=record["case_dice"] if dice else record["mre"],
            is_error=not dice,
            worst=min(dice) if dice else None,
        )


class Ledger:
    """Outcomes in a .jsonl, so that what is finished is not trained again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        rows = [json.loads(line) for line in lines]
        self.outcomes = [Outcome(**{**row, "experiment": Experiment(**row["experiment"])}) for row in rows]

    def find(self, experiment: Experiment) -> Outcome | None:
        return next((o for o in self.outcomes if o.experiment == experiment), None)

    def add(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        with open(self.path, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(asdict(outcome)) + "\n")


def table(outcomes: Sequence[Outcome]) -> list[str]:
    lines = [
        "| dataset | time | version | configuration | steps | Dice (or error) | worst structure |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]

    def key(o: Outcome) -> tuple[str, float, str]:
        return o.experiment.dataset, parse_duration(o.experiment.time), o.experiment.version

    for (dataset, seconds, version), group in groupby(sorted(outcomes, key=key), key):
        rows = list(group)
        scores = [o.score for o in rows if o.score is not None]
        spread = f" ({min(scores):.3f} to {max(scores):.3f})" if len(scores) > 1 else ""
        score = f"{fmean(scores):.3f}{spread}" if scores else "--"
        worst = [o.worst for o in rows if o.worst is not None]
        lines.append(
            f"| {dataset} | {seconds / 60:g} min | {version} | {', '.join(sorted({o.configuration for o in rows}))} "
            f"| {fmean(o.steps for o in rows):.0f} | {score} | {f'{fmean(worst):.3f}' if worst else '--'} |"
        )
    return lines


def draw(outcomes: Sequence[Outcome], path: Path) -> None:
    """Dice against minutes, a panel a dataset."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = sorted({o.experiment.dataset for o in outcomes})
    figure = Figure(figsize=(3.2 * len(names), 3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    for panel, name in zip(axes, names):
        for version, style in (("before", "--o"), ("now", "-o")):
            points: dict[float, list[float]] = {}
            for o in outcomes:
                if (o.experiment.dataset, o.experiment.version) == (name, version) and o.score is not None:
                    points.setdefault(parse_duration(o.experiment.time) / 60, []).append(o.score)
            panel.plot(sorted(points), [fmean(points[m]) for m in sorted(points)], style, label=version)
        is_error = any(o.is_error for o in outcomes if o.experiment.dataset == name)
        panel.set(title=name, xlabel="minutes", xscale="log", ylabel="error" if is_error else "Dice")
    axes[0].legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="*", type=Path)
    parser.add_argument("--time", nargs="+", default=["1m"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--fold", default="0")
    parser.add_argument("--before", type=Path)
    parser.add_argument("--large", type=Path)
    parser.add_argument("--float32", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    datasets = [path.resolve() for path in options.datasets]
    if options.large:
        datasets.append(make_large_phantoms(options.large / "Dataset900_Large", 10, 2).resolve())
    versions = {"before": options.before.resolve()} if options.before else {}
    versions["now"] = HERE
    ledger = Ledger((options.out or Path("budget")).with_suffix(".jsonl"))
    outcomes = []
    for text in options.time:
        for data in datasets:
            for seed in range(options.seeds):
                for version, source in versions.items():
                    experiment = Experiment(version, data.name, text, seed, options.fold, options.float32)
                    outcome = ledger.find(experiment)
                    if outcome is None:
                        outcome = learn(experiment, data, source)
                        ledger.add(outcome)
                    outcomes.append(outcome)
                    print("\n".join(table([outcome])[2:]), flush=True)
    if options.out:
        draw(outcomes, options.out.with_suffix(".png"))
    command = " ".join(["bench_budget.py", *sys.argv[1:]])
    write_report("Dice against minutes", command, machine("autoseg", "torch"), table(outcomes), out=options.out)


if __name__ == "__main__":
    main()
