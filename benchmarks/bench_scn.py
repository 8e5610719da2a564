"""Whether landmarks should be told apart by where the others are: with and without a branch, for few cases and for many.

    python benchmarks/bench_scn.py DATASET... (--steps N | --time 3m) [--cases 5 10 20 all] [--branches off on]
        [--patch 48 64 64] [--seeds 2] [--threads 1] [--out benchmarks/results/scn.md]

For each number of cases a network learns from the first so many training cases of fold 0, in an order that is shuffled once,
with the plan of the whole dataset: without a spatial configuration branch, and with the one that the planner would give it if its
rule said so. All are judged by the validation cases of the fold. The difference is paired, over validation cases, of the means
over seeds: its interval tells how it would vary with other cases, not with other seeds. Beside it stands what the planner's rule
says of those training cases. The plan, its intensities and the shape of the branch are those of all cases, so that nothing else
differs. Patches are as planned, or so small that windows show some of the landmarks only.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from landmark_cells import (
    ALL,
    DASHES,
    HEAD,
    Cell,
    Outcome,
    Study,
    cell_of,
    cells_of,
    evaluate_cell,
    fill,
    open_study,
    options_of,
    predict_judged,
    train_cell,
    write_table,
)

from autoseg.evaluation.bootstrap import interval, resample_weights
from autoseg.fingerprint.landmarks import covisibility, measure_landmarks
from autoseg.footprint import multiply_accumulates, plan_io
from autoseg.plan import Configuration
from autoseg.planner.landmark_head import map_grid
from autoseg.planner.scn_rule import plan_scn, shape_scn

BRANCHES = ("off", "on")


class Rule:
    """The planner's rule for the study's network."""

    def __init__(self, study: Study) -> None:
        plan, c = study.planned.plan, study.chosen
        self.study = study
        self.patch, self.spacing = map_grid(c.network, c.patch.patch_size, c.space, study.planned.fingerprint.cases)
        self.macs = multiply_accumulates(c.network, c.patch.patch_size, plan_io(plan, study.name).without_landmarks)

    def branched(self, branch: str) -> Configuration:
        """With the branch or without, whatever the rule says."""
        facts, c = self.study.planned.fingerprint.landmark_statistics, self.study.chosen
        assert facts is not None
        assert c.landmarks is not None
        scn, _ = shape_scn(facts, self.patch, self.spacing, self.macs, slice_axis=c.space.slice_axis)
        return replace(c, landmarks=replace(c.landmarks, scn=scn if branch == "on" else None))

    def says(self, n_cases: int) -> tuple[str, str]:
        """Columns for rho, kappa, covisibility and the verdict on the first cases; and the verdict in full."""
        names = {case.name for case in self.study.order[:n_cases]}
        points = [case.landmarks for case in self.study.planned.fingerprint.cases if case.name in names]
        facts = measure_landmarks(self.study.planned.dataset.landmarks.names, points)
        choice = plan_scn(facts, points, self.patch, self.spacing, self.macs, slice_axis=self.study.chosen.space.slice_axis)
        seen = covisibility(points, [n * s for n, s in zip(self.patch, self.spacing)])
        values = [facts.median_rho, facts.median_kappa, seen]
        shown = ["--" if v is None else f"{v:.3g}" for v in values]
        return " | ".join((*shown, "on" if choice.scn else "off")), choice.reason


def with_patch(study: Study, patch_size: tuple[int, ...]) -> Study:
    c = study.chosen
    assert len(patch_size) == len(c.patch.patch_size), f"{study.dataset} has patches of {len(c.patch.patch_size)} axes"
    return replace(study, chosen=replace(c, patch=replace(c.patch, patch_size=patch_size)))


def train_branch(study: Study, chosen: Configuration, cell: Cell, run: Path) -> Iterator[Outcome]:
    model, record = train_cell(study, chosen, cell.n_cases, cell.seed, run)
    yield evaluate_cell(study, cell, predict_judged(study, model), record.steps, record.step_s)


def difference(off: Sequence[Outcome], on: Sequence[Outcome]) -> str:
    """MRE with the branch less that without, and the 95 % interval of a paired bootstrap over cases."""
    known = [(a, b) for a in off for b in on if a.cell.seed == b.cell.seed]
    if not known:
        return "-- | --"
    gaps = [[_errors(b, case) - _errors(a, case) for case in a.errors] for a, b in known]
    gap = np.mean(gaps, axis=0)
    there = np.isfinite(gap)  # the same landmarks in both: every reference has an error
    value = _macro(np.full((1, len(gap)), 1 / len(gap)), gap, there)[0]
    low, high = interval(_macro(resample_weights(len(gap)), gap, there))
    return f"{value:+.3g} {off[0].unit} | {low:+.3g} to {high:+.3g}"


def _errors(outcome: Outcome, case: str) -> np.ndarray:
    return np.array(outcome.errors[case], dtype=np.float64)


def _macro(weights: np.ndarray, values: np.ndarray, there: np.ndarray) -> np.ndarray:
    """(R,) for R weightings of the cases the mean over landmarks of the mean over cases; what a resample lacks does not count."""
    sums, numbers = weights @ np.where(there, values, 0.0), weights @ there
    means: np.ndarray = np.nanmean(np.divide(sums, numbers, out=np.full(sums.shape, np.nan), where=numbers > 0), axis=1)
    return means


def main() -> None:
    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--cases", nargs="+", default=["5", "10", "20", ALL])
        parser.add_argument("--branches", nargs="+", choices=BRANCHES, default=BRANCHES)
        parser.add_argument("--patch", nargs="+", type=int, help="Voxels, instead of the planned ones.")

    options = options_of(__doc__, more)
    scores = [f"| dataset | cases | branch | {HEAD} |", f"| --- | ---: | --- |{DASHES}"]
    rules = ["| dataset | cases | on − off, MRE | 95 % interval | rho | kappa | covisibility | the rule says |"]
    rules.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    verdicts = []
    for data in options.folders:
        with tempfile.TemporaryDirectory() as folder:
            study = open_study(data, Path(folder), options.limit)
            if options.patch:
                study = with_patch(study, tuple(options.patch))
            rule = Rule(study)
            numbers = list(dict.fromkeys(len(study.order) if n == ALL else int(n) for n in options.cases))
            assert max(numbers) <= len(study.order), f"{study.dataset} has {len(study.order)} cases to learn from"
            outcomes: list[Outcome] = []
            for seed in range(options.seeds):
                for n in numbers:
                    for branch in options.branches:
                        chosen = rule.branched(branch)
                        cell = cell_of(study, branch, chosen, n, seed)
                        outcomes += fill(options.ledger, [cell], partial(train_branch, study, chosen, cell))
        n_all = len(study.planned.fingerprint.cases)
        verdicts.append(f"- {study.dataset}, the plan of all {n_all} cases: {study.chosen.why['landmarks.scn']}")
        for n in numbers:
            arms = {b: [o for o in outcomes if (o.cell.arm, o.cell.n_cases) == (b, n)] for b in BRANCHES}
            scores += [f"| {study.dataset} | {n} | {branch} | {cells_of(arms[branch])} |" for branch in arms if arms[branch]]
            columns, reason = rule.says(n)
            rules.append(f"| {study.dataset} | {n} | {difference(arms['off'], arms['on'])} | {columns} |")
            verdicts.append(f"- {study.dataset}, {n} cases: {reason}")
    typed = f" --cases {' '.join(options.cases)} --branches {' '.join(options.branches)}"
    typed += f" --patch {' '.join(map(str, options.patch))}" if options.patch else ""
    write_table("bench_scn.py", "A branch for where the others are", options, typed, [*scores, "", *rules, "", *verdicts])


if __name__ == "__main__":
    main()
