"""The command `autoseg demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli import options as o


def run(
    *,
    folder: Annotated[Path, typer.Option("-o", "--out", help="Folder for data, work and results.")] = Path("autoseg_demo"),
    time: Annotated[str, typer.Option("--time", help="Training time, such as 90s or 5m.")] = "2m",
    device: o.DeviceOption = "auto",
    quiet: o.QuietOption = False,
    json: o.JsonOption = False,
) -> None:
    """Make a small dataset, then plan, train, predict and evaluate on it: the whole pipeline in minutes."""
    from autoseg.pipeline.demo import run_demo
    from autoseg.runs.budget import parse_duration

    o.be_quiet(quiet)
    report = run_demo(folder, parse_duration(time), device)
    o.show(report, json)
