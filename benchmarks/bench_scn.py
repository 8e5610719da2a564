"""The spatial configuration branch of landmark networks: with and without it, on few and many cases.

    python benchmarks/bench_scn.py DATASET... (--steps N | --time 3m) [--cases 5 10 20 all] [--branches off on]
        [--patch 48 64 64] [--seeds 2] [--threads 1] [--out benchmarks/results/scn.md]

For each number of cases a network learns from the first so many training cases of fold 0, in an
order that is shuffled once, with the plan of the whole dataset: without a spatial configuration
branch, and with the one that the planner would give it if its rule said so. All are evaluated on
the validation cases of the fold. The difference is paired, over validation cases, of the means over
seeds: its interval tells how it would vary with other cases, not with other seeds. Beside it stands
what the planner's rule says of those training cases. The plan, its intensities and the shape of the
branch are those of all cases, so that nothing else differs. Patches are as planned, or so small
that windows show some of the landmarks only.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from _landmark_study import (
    DASHES,
    SCORES,
    Experiment,
    Result,
    Study,
    open_study,
    parse_options,
    run_experiments,
    score_columns,
    write_study,
)

from autoseg.evaluation.bootstrap import interval, resample_weights
from autoseg.fingerprint.landmarks import covisibility, measure_landmarks
from autoseg.footprint import multiply_accumulates, plan_io
from autoseg.plan import Configuration
from autoseg.planner.landmark_head import map_grid
from autoseg.planner.scn_rule import plan_scn, shape_scn

ALL = "all"
BRANCHES = ("off", "on")


class Rule:
    """The planner's rule for the study's network."""

    def __init__(self, study: Study) -> None:
        plan, c = study.planned.plan, study.configuration
        self.study = study
        self.patch, self.spacing = map_grid(c.network, c.patch.patch_size, c.space, study.planned.fingerprint.cases)
        self.macs = multiply_accumulates(c.network, c.patch.patch_size, plan_io(plan, c).without_landmarks)

    def with_branch(self, branch: str) -> Configuration:
        """The configuration with the branch 'on' or 'off', whatever the rule decides."""
        statistics, c = self.study.planned.fingerprint.landmark_statistics, self.study.configuration
        assert statistics is not None
        assert c.landmarks is not None
        scn, _ = shape_scn(statistics, self.patch, self.spacing, self.macs, slice_axis=c.space.slice_axis)
        return replace(c, landmarks=replace(c.landmarks, scn=scn if branch == "on" else None))

    def decide(self, n_cases: int) -> tuple[str, str]:
        """Columns for rho, kappa, covisibility and the decision on the first cases; and the reason."""
        names = {case.name for case in self.study.training[:n_cases]}
        points = [case.landmarks for case in self.study.planned.fingerprint.cases if case.name in names]
        statistics = measure_landmarks(self.study.planned.dataset.landmarks.names, points)
        slice_axis = self.study.configuration.space.slice_axis
        choice = plan_scn(statistics, points, self.patch, self.spacing, self.macs, slice_axis=slice_axis)
        visible = covisibility(points, [n * s for n, s in zip(self.patch, self.spacing)])
        values = [statistics.median_rho, statistics.median_kappa, visible]
        columns = ["--" if v is None else f"{v:.3g}" for v in values]
        return " | ".join((*columns, "on" if choice.scn else "off")), choice.reason


def with_patch(study: Study, patch_size: tuple[int, ...]) -> Study:
    c = study.configuration
    assert len(patch_size) == len(c.patch.patch_size), f"{study.dataset} has patches of {len(c.patch.patch_size)} axes"
    return replace(study, configuration=replace(c, patch=replace(c.patch, patch_size=patch_size)))


def train_branch(study: Study, configuration: Configuration, experiment: Experiment, run: Path) -> Iterator[Result]:
    model, record = study.train(experiment, configuration, run)
    yield study.evaluate(experiment, study.predict(model), record)


def difference(off: Sequence[Result], on: Sequence[Result]) -> str:
    """MRE with the branch less that without, and the 95 % interval of a paired bootstrap over cases."""
    pairs = [(a, b) for a in off for b in on if a.experiment.seed == b.experiment.seed]
    if not pairs:
        return "-- | --"
    gap = np.mean([[_errors(b, case) - _errors(a, case) for case in a.errors] for a, b in pairs], axis=0)
    is_defined = np.isfinite(gap)  # the same landmarks in both: every reference has an error
    value = _macro(np.full((1, len(gap)), 1 / len(gap)), gap, is_defined)[0]
    low, high = interval(_macro(resample_weights(len(gap)), gap, is_defined))
    return f"{value:+.3g} {off[0].unit} | {low:+.3g} to {high:+.3g}"


def _errors(result: Result, case: str) -> np.ndarray:
    return np.array(result.errors[case], dtype=np.float64)


def _macro(weights: np.ndarray, values: np.ndarray, is_defined: np.ndarray) -> np.ndarray:
    """(R,) for R weightings of the cases the mean over landmarks of the mean over cases; what a resample lacks does not count."""
    sums, numbers = weights @ np.where(is_defined, values, 0.0), weights @ is_defined
    means: np.ndarray = np.nanmean(np.divide(sums, numbers, out=np.full(sums.shape, np.nan), where=numbers > 0), axis=1)
    return means


def main() -> None:
    def add_options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--cases", nargs="+", default=["5", "10", "20", ALL])
        parser.add_argument("--branches", nargs="+", choices=BRANCHES, default=BRANCHES)
        parser.add_argument("--patch", nargs="+", type=int, help="Voxels, instead of the planned ones.")

    options = parse_options(__doc__, add_options)
    scores = [f"| dataset | cases | branch | {SCORES} |", f"| --- | ---: | --- |{DASHES}"]
    rules = ["| dataset | cases | on − off, MRE | 95 % interval | rho | kappa | covisibility | planner's rule |"]
    rules.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    reasons = []
    for data in options.folders:
        with tempfile.TemporaryDirectory() as folder:
            study = open_study(data, Path(folder), options.limit)
            if options.patch:
                study = with_patch(study, tuple(options.patch))
            rule = Rule(study)
            numbers = list(dict.fromkeys(len(study.training) if n == ALL else int(n) for n in options.cases))
            assert max(numbers) <= len(study.training), f"{study.dataset} has {len(study.training)} training cases"
            results: list[Result] = []
            for seed in range(options.seeds):
                for n in numbers:
                    for branch in options.branches:
                        configuration = rule.with_branch(branch)
                        experiment = study.experiment(branch, configuration, n_cases=n, seed=seed)
                        train = partial(train_branch, study, configuration, experiment)
                        results += run_experiments(options.ledger, [experiment], train)
        n_all = len(study.planned.fingerprint.cases)
        reasons.append(f"- {study.dataset}, the plan of all {n_all} cases: {study.configuration.why['landmarks.scn']}")
        for n in numbers:
            variants = {b: [r for r in results if (r.experiment.variant, r.experiment.n_cases) == (b, n)] for b in BRANCHES}
            scores += [f"| {study.dataset} | {n} | {b} | {score_columns(of_b)} |" for b, of_b in variants.items() if of_b]
            columns, reason = rule.decide(n)
            rules.append(f"| {study.dataset} | {n} | {difference(variants['off'], variants['on'])} | {columns} |")
            reasons.append(f"- {study.dataset}, {n} cases: {reason}")
    more = f" --cases {' '.join(options.cases)} --branches {' '.join(options.branches)}"
    more += f" --patch {' '.join(map(str, options.patch))}" if options.patch else ""
    write_study("Spatial configuration branch", "bench_scn.py", options, more, [*scores, "", *rules, "", *reasons])


if __name__ == "__main__":
    main()
