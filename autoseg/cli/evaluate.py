"""autoseg evaluate"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli import options as o


def run(
    predictions: Annotated[Path, typer.Option("-p", "--predictions", help="Folder of predicted label maps.")],
    references: Annotated[
        Path | None, typer.Option("-r", "--references", help="Folder of reference label maps. Default: the dataset's own.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder of the report. Default: the predictions' folder.")
    ] = None,
    tolerance: Annotated[float, typer.Option("--tolerance", min=0, help="NSD tolerance in mm.")] = 1.0,
    dataset: o.DatasetOption = None,
    root: o.RootOption = o.ROOT,
    workers: o.WorkersOption = None,
    quiet: o.QuietOption = False,
    json: o.JsonOption = False,
) -> None:
    """Compare predictions with references: Dice, IoU, HD95, ASSD, NSD and volumes, per structure and case."""
    from autoseg.batch import Failure
    from autoseg.evaluate import evaluate, report_table
    from autoseg.progress import log
    from autoseg.workspace import Workspace

    o.be_quiet(quiet)
    about = o.open_named(dataset, Workspace(root))
    failures: list[Failure] = []
    target = out or predictions
    only_predicted = references is None
    known = references or {c.name: c.label for c in about.cases if c.label is not None}
    report = evaluate(known, predictions, about.labels, target, tolerance, failures, workers, only_predicted)
    o.show(report, json)
    if not json:
        typer.echo(report_table(report))
    log.info("per case: %s", target / "per_case.csv")
    o.finish(failures, target, report.n_cases, "evaluate")
