"""The command `autoseg evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli import options as o


def run(
    *,
    predictions: Annotated[
        Path, typer.Option("-p", "--predictions", help="Folder of predicted label maps or landmarks, or both.")
    ],
    references: Annotated[
        Path | None, typer.Option("-r", "--references", help="Folder of the references. Default: the dataset's own.")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option("-i", "--images", help="Folder of the images that landmarks belong to. Default: the dataset's own."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder of the report. Default: the predictions' folder.")
    ] = None,
    tolerance: Annotated[float, typer.Option("--tolerance", min=0, help="NSD tolerance in mm.")] = 1.0,
    radius: Annotated[
        str | None,
        typer.Option("--radius", help="Radii within which landmarks count as found, such as 2,2.5,4: mm, or pixels in pictures."),
    ] = None,
    dataset: o.DatasetOption = None,
    root: o.RootOption = o.ROOT,
    workers: o.WorkersOption = None,
    quiet: o.QuietOption = False,
    json: o.JsonOption = False,
) -> None:
    """Compare predictions with references per structure and landmark: Dice, surface distances, volumes, landmark errors."""
    from autoseg.api import evaluate
    from autoseg.evaluation.label_maps import report_table
    from autoseg.evaluation.landmark_summary import parse_radii
    from autoseg.evaluation.landmarks import landmark_table
    from autoseg.system.progress import log

    o.be_quiet(quiet)
    target = out or predictions
    radii = None if radius is None else parse_radii(radius)
    scores = evaluate(
        predictions,
        references,
        dataset=dataset,
        images=images,
        out=target,
        tolerance_mm=tolerance,
        radii=radii,
        workers=workers,
        root=root,
    )
    label_maps, landmarks = scores.label_maps, scores.landmarks
    o.show(scores if label_maps and landmarks else label_maps or landmarks, json)
    if label_maps and not json:
        o.say(report_table(label_maps))
    if landmarks and not json:
        o.say(landmark_table(landmarks))
    log.info("per case: %s", target / ("per_case.csv" if label_maps else "landmarks_per_case.csv"))
    o.finish(scores.failures, target, scores.n_cases, "evaluate")
