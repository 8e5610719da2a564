"""The Dice that a limit of time buys: this autoseg beside another version of it, on the same cores.

    python benchmarks/bench_budget.py DATASET... --time 1m [3m 10m] [--seeds 1] [--before FOLDER] [--folds 0] [--parts 3]
        [--float32] [--large FOLDER] [--out benchmarks/results/budget.md]

Every dataset is planned with the limit of time (`autoseg plan_and_preprocess --time`) and its folds are trained by `autoseg
train --time`, in a workspace of their own and one after another, first with the autoseg in FOLDER (a worktree of an earlier
commit), then with this one. Dice, or the error of landmarks, is that of the validation cases on their own grids; `together` is
the Dice of all structures taken as one. Then `autoseg predict` is timed on the validation cases: seconds of the whole command
by their number.
--parts deals the cases into so many folds instead of five, in the order of their names.
--large makes the phantoms of 200×300×300 voxels in FOLDER and adds them to the datasets.
--float32 hides bf16 instructions from oneDNN and from the planner, as on older processors.
Finished trainings are kept in a .jsonl beside the table and not repeated; the table shows all that were ever kept there, and so
does a plot of Dice against minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, product
from pathlib import Path
from statistics import fmean

import numpy as np
import SimpleITK as sitk
from _large_phantoms import make_large_phantoms
from _report import machine, write_report

from autoseg.dataset import Case, open_dataset
from autoseg.runs.budget import parse_duration

HERE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Experiment:
    """A training: of which version, on which dataset, how long; `parts` is the number of folds, 0 for the planner's."""

    version: str
    dataset: str
    time: str
    seed: int
    fold: str
    float32: bool
    parts: int = 0


@dataclass(frozen=True)
class Outcome:
    """The result of a training; `score` is Dice, or a landmark error where there are no label maps.

    Args:
        together: Dice of all structures taken as one, the mean over cases.
        case_s: seconds that `autoseg predict` takes for the validation cases, start included, by their number.
    """

    experiment: Experiment
    configuration: str
    steps: int
    score: float | None
    is_error: bool
    worst: float | None
    together: float | None
    case_s: float


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
        if experiment.parts:
            data = deal(data, Path(folder) / data.name, experiment.parts)
        rest = (source, experiment.float32, cwd)
        plan = ("plan_and_preprocess", "-d", str(data), "--root", str(root), "--time", experiment.time, "--device", "cpu", "-q")
        run(plan, *rest)
        train = ("train", "--root", str(root), "--time", experiment.time, "--seed", str(experiment.seed), "-f", experiment.fold)
        record = json.loads(run((*train, "--device", "cpu", "--json", "-q"), *rest))
        cases = validation_cases(data, root, int(experiment.fold))
        images, predicted = Path(folder) / "images", Path(folder) / "predicted"
        images.mkdir()
        for path in (path for case in cases for path in case.images):
            (images / path.name).symlink_to(path)
        start = time.perf_counter()
        predict = (
            "predict",
            "--root",
            str(root),
            "-i",
            str(images),
            "-o",
            str(predicted),
            "--device",
            "cpu",
            "-q",
        )
        run(predict, *rest)
        case_s = (time.perf_counter() - start) / len(cases)
        dice = [d for d in record["structure_dice"].values() if d is not None]
        return Outcome(
            experiment,
            configuration=record["configuration"],
            steps=record["steps"],
            score=record["case_dice"] if dice else record["mre"],
            is_error=not dice,
            worst=min(dice) if dice else None,
            together=dice_together(cases, predicted) if dice else None,
            case_s=case_s,
        )


def deal(data: Path, folder: Path, parts: int) -> Path:
    """The dataset by links, with every `parts`-th case in the same fold."""
    folder.mkdir()
    for path in data.iterdir():
        (folder / path.name).symlink_to(path)
    names = sorted(case.name for case in open_dataset(data).cases)
    folds = [{"train": [n for n in names if n not in names[i::parts]], "val": names[i::parts]} for i in range(parts)]
    (folder / "splits_final.json").write_text(json.dumps(folds), encoding="utf-8")
    return folder


def validation_cases(data: Path, root: Path, fold: int) -> list[Case]:
    (splits,) = root.glob("datasets/*/splits.json")
    names = json.loads(splits.read_text(encoding="utf-8"))["validation"][fold]
    return [case for case in open_dataset(data).cases if case.name in names]


def dice_together(cases: Sequence[Case], predicted: Path) -> float:
    """Mean over cases of the Dice of all structures taken as one."""

    def of(case: Case) -> float:
        assert case.label is not None
        path = next(p for p in predicted.iterdir() if p.name.split(".")[0] == case.name)
        a, b = (np.round(sitk.GetArrayFromImage(sitk.ReadImage(str(p)))).astype(bool) for p in (path, case.label))
        return 2 * int((a & b).sum()) / max(1, int(a.sum()) + int(b.sum()))

    return fmean(of(case) for case in cases)


class Ledger:
    """Outcomes in a .jsonl, so that what is finished is not trained again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        rows = [json.loads(line) for line in lines]
        self.outcomes = [Outcome(**{**row, "experiment": Experiment(**row["experiment"])}) for row in rows]

    def has(self, experiment: Experiment) -> bool:
        return any(o.experiment == experiment for o in self.outcomes)

    def add(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        with open(self.path, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(asdict(outcome)) + "\n")


def table(outcomes: Sequence[Outcome]) -> list[str]:
    lines = [
        "| dataset | time | version | runs | configuration | steps | Dice (or error) | worst structure | together | s/case |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]

    def key(o: Outcome) -> tuple[str, int, float, bool, str]:
        e = o.experiment
        return e.dataset, e.parts, parse_duration(e.time), e.float32, e.version

    for (dataset, parts, seconds, float32, version), group in groupby(sorted(outcomes, key=key), key):
        rows = list(group)
        scores = [o.score for o in rows if o.score is not None]
        spread = f" ({min(scores):.3f} to {max(scores):.3f})" if len(scores) > 1 else ""
        score = f"{fmean(scores):.3f}{spread}" if scores else "--"
        case_s = fmean(o.case_s for o in rows)
        name = f"{dataset}, {parts} folds" if parts else dataset
        lines.append(
            f"| {name} | {seconds / 60:.2g} min{', float32' if float32 else ''} | {version} | {len(rows)} "
            f"| {', '.join(sorted({o.configuration for o in rows}))} | {fmean(o.steps for o in rows):.0f} | {score} "
            f"| {mean_text(o.worst for o in rows)} | {mean_text(o.together for o in rows)} | {case_s:.2f} |"
        )
    return lines


def mean_text(values: Iterable[float | None]) -> str:
    """Mean of those that are there, as text."""
    present = [v for v in values if v is not None]
    return f"{fmean(present):.3f}" if present else "--"


def draw(outcomes: Sequence[Outcome], path: Path) -> None:
    """Dice against minutes, a panel a dataset."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = sorted({o.experiment.dataset for o in outcomes if not o.experiment.parts})
    figure = Figure(figsize=(3.2 * len(names), 3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    for panel, name in zip(axes, names):
        for version, style in (("before", "--o"), ("now", "-o")):
            points: dict[float, list[float]] = {}
            for o in outcomes:
                e = o.experiment
                if (e.dataset, e.version, e.float32, e.parts) == (name, version, False, 0) and o.score is not None:
                    points.setdefault(parse_duration(e.time) / 60, []).append(o.score)
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
    parser.add_argument("--folds", nargs="+", default=["0"])
    parser.add_argument("--parts", type=int, default=0)
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
    for text, data, fold, seed in product(options.time, datasets, options.folds, range(options.seeds)):
        for version, source in versions.items():
            experiment = Experiment(version, data.name, text, seed, fold, options.float32, options.parts)
            if not ledger.has(experiment):
                ledger.add(learn(experiment, data, source))
                print("\n".join(table(ledger.outcomes[-1:])[2:]), flush=True)
    if options.out:
        draw(ledger.outcomes, options.out.with_suffix(".png"))
    command = " ".join(["bench_budget.py", *sys.argv[1:]])
    write_report("Dice against minutes", command, machine("autoseg", "torch"), table(ledger.outcomes), out=options.out)


if __name__ == "__main__":
    main()
