"""The losses of landmark maps beside each other: same plan, same cases, same length of training.

    python benchmarks/bench_landmark_losses.py DATASET... (--steps N | --time 3m) [--losses spatial_ce cone_bce] [--seeds 2]
        [--threads 1] [--out benchmarks/results/landmark_losses.md]

Fold 0, all of its training cases, no spatial configuration branch. The maps of each loss are read as autoseg does, a Gaussian
fitted around the highest voxel; nnLandmark, whose loss `cone_bce` is, takes the highest voxel itself, so that network is read
both ways. Only the loss is nnLandmark's here, not its network, its augmentation or its length of training. Learning rate and
optimizer are those planned for `spatial_ce`. The first row says of every case the mean place in the training cases, relative to
the image's centre.
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
from landmark_cells import (
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

from autoseg.imaging.landmarks import Landmarks, State
from autoseg.nets import landmark_maps
from autoseg.nets.heatmaps import find_peaks
from autoseg.plan import Configuration, LandmarkLossName

LOSSES = get_args(LandmarkLossName)
MEAN_PLACE = "mean place"
HIGHEST = ", highest voxel"


def mean_places(study: Study) -> dict[str, Landmarks]:
    """Of every validation case: where the training cases have their landmarks, mm from the centre along the canonical axes."""
    names = {case.name for case in study.order}
    mean = np.nanmean([case.landmarks.points_mm for case in study.planned.fingerprint.cases if case.name in names], axis=0)
    found = {}
    for j in study.judged:
        grid = j.grid.reoriented(j.grid.canonical_axes())
        world = grid.index_to_world(mean / grid.spacing + (np.array(grid.shape) - 1) / 2)
        found[j.case.name] = Landmarks(j.reference.names, world, np.full(len(world), State.PRESENT))
    return found


def with_loss(study: Study, loss: LandmarkLossName) -> Configuration:
    assert study.chosen.landmarks is not None
    return replace(study.chosen, landmarks=replace(study.chosen.landmarks, loss=loss, scn=None))


def cells_for(study: Study, loss: LandmarkLossName, seed: int) -> list[Cell]:
    """Of one training: read as autoseg does and, for nnLandmark's loss, as nnLandmark does."""
    arms = [loss, loss + HIGHEST] if loss == "cone_bce" else [loss]
    return [cell_of(study, arm, with_loss(study, loss), len(study.order), seed) for arm in arms]


def train_loss(study: Study, loss: LandmarkLossName, cells: list[Cell], run: Path) -> Iterator[Outcome]:
    model, record = train_cell(study, with_loss(study, loss), len(study.order), cells[0].seed, run)
    for cell in cells:
        with ExitStack() as stack:
            if cell.arm.endswith(HIGHEST):  # no neighbours, no fit
                stack.enter_context(mock.patch.object(landmark_maps, "find_peaks", partial(find_peaks, radius=0)))
            found = predict_judged(study, model)
        yield evaluate_cell(study, cell, found, record.steps, record.step_s)


def main() -> None:
    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--losses", nargs="+", choices=LOSSES, default=LOSSES)

    options = options_of(__doc__, more)
    lines = [f"| dataset | loss | {HEAD} |", f"| --- | --- |{DASHES}"]
    for data in options.folders:
        with tempfile.TemporaryDirectory() as folder:
            study = open_study(data, Path(folder), options.limit)
            guess = cell_of(study, MEAN_PLACE, study.chosen, len(study.order), 0)
            outcomes = [evaluate_cell(study, guess, mean_places(study))]
            for seed in range(options.seeds):
                for loss in options.losses:
                    cells = cells_for(study, loss, seed)
                    outcomes += fill(options.ledger, cells, partial(train_loss, study, loss, cells))
        for arm in dict.fromkeys(o.cell.arm for o in outcomes):
            lines.append(f"| {study.dataset} | {arm} | {cells_of([o for o in outcomes if o.cell.arm == arm])} |")
    typed = f" --losses {' '.join(options.losses)}"
    write_table("bench_landmark_losses.py", "Losses of landmark maps", options, typed, lines)


if __name__ == "__main__":
    main()
