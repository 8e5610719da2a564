"""The losses of landmark maps beside each other: same plan, same cases, same length of training.

    python benchmarks/bench_landmark_losses.py DATASET... (--steps N | --time 3m) [--losses spatial_ce cone_bce] [--seeds 2]
        [--threads 1] [--out benchmarks/results/landmark_losses.md]

Fold 0, all of its training cases, no spatial configuration branch. The maps of each loss are read
as autoseg does, a Gaussian fitted around the highest voxel; nnLandmark, whose loss `cone_bce` is,
takes the highest voxel itself, so that network is read both ways. Only the loss is nnLandmark's
here, not its network, its augmentation or its length of training. Learning rate and optimizer are
those planned for `spatial_ce`. The baseline of the first row predicts in every case the mean
position in the training cases, relative to the image's centre.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args
from unittest import mock

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

from autoseg.imaging.landmarks import Landmarks, State
from autoseg.nets import landmark_maps
from autoseg.nets.heatmaps import find_peaks
from autoseg.plan import Configuration, LandmarkLossName

LOSSES = get_args(LandmarkLossName)
MEAN_POSITION = "mean position"
HIGHEST = ", highest voxel"


def mean_positions(study: Study) -> dict[str, Landmarks]:
    """Predicts in each validation case the training cases' mean positions, mm from the centre along the canonical axes."""
    names = {case.name for case in study.training}
    mean = np.nanmean([case.landmarks.points_mm for case in study.planned.fingerprint.cases if case.name in names], axis=0)
    predictions = {}
    for v in study.validation:
        grid = v.grid.reoriented(v.grid.canonical_axes())
        world = grid.index_to_world(mean / grid.spacing + (np.array(grid.shape) - 1) / 2)
        predictions[v.case.name] = Landmarks(v.reference.names, world, np.full(len(world), State.PRESENT))
    return predictions


def with_loss(study: Study, loss: LandmarkLossName) -> Configuration:
    landmarks = study.configuration.landmarks
    assert landmarks is not None
    return replace(study.configuration, landmarks=replace(landmarks, loss=loss, scn=None))


def experiments_of(study: Study, loss: LandmarkLossName, seed: int) -> list[Experiment]:
    """The readings of one training: autoseg's and, for nnLandmark's loss, nnLandmark's."""
    variants = [loss, loss + HIGHEST] if loss == "cone_bce" else [loss]
    return [study.experiment(v, with_loss(study, loss), n_cases=len(study.training), seed=seed) for v in variants]


def train_loss(study: Study, loss: LandmarkLossName, experiments: list[Experiment], run: Path) -> Iterator[Result]:
    model, record = study.train(experiments[0], with_loss(study, loss), run)
    for experiment in experiments:
        with ExitStack() as stack:
            if experiment.variant.endswith(HIGHEST):  # no neighbours, no fit
                stack.enter_context(mock.patch.object(landmark_maps, "find_peaks", partial(find_peaks, radius=0)))
            predictions = study.predict(model)
        yield study.evaluate(experiment, predictions, record)


def main() -> None:
    def add_options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--losses", nargs="+", choices=LOSSES, default=LOSSES)

    options = parse_options(__doc__, add_options)
    table = [f"| dataset | loss | {SCORES} |", f"| --- | --- |{DASHES}"]
    for data in options.folders:
        with tempfile.TemporaryDirectory() as folder:
            study = open_study(data, Path(folder), options.limit)
            baseline = study.experiment(MEAN_POSITION, study.configuration, n_cases=len(study.training), seed=0)
            results = [study.evaluate(baseline, mean_positions(study))]
            for seed in range(options.seeds):
                for loss in options.losses:
                    experiments = experiments_of(study, loss, seed)
                    results += run_experiments(options.ledger, experiments, partial(train_loss, study, loss, experiments))
        for variant in dict.fromkeys(r.experiment.variant for r in results):
            columns = score_columns([r for r in results if r.experiment.variant == variant])
            table.append(f"| {study.dataset} | {variant} | {columns} |")
    write_study("Losses of landmark maps", "bench_landmark_losses.py", options, f" --losses {' '.join(options.losses)}", table)


if __name__ == "__main__":
    main()
