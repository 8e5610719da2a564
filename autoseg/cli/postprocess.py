"""The command `autoseg postprocess`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli import options as o


def run(
    *,
    masks: Annotated[Path, typer.Option("-i", "--masks", help="Folder of label maps.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the cleaned label maps.")],
    model: Annotated[
        Path | None, typer.Option("-m", "--model", help="The run whose rules are applied. Default: the last model.")
    ] = None,
    root: o.RootOption = o.ROOT,
    workers: o.WorkersOption = None,
    quiet: o.QuietOption = False,
) -> None:
    """Apply a model's component rules to label maps, for example to those of another tool."""
    from autoseg.pipeline.postprocess import postprocess_folder
    from autoseg.pipeline.workspace import Workspace
    from autoseg.system.progress import log, number_of

    o.be_quiet(quiet)
    report = postprocess_folder(masks, out, model=model or Workspace(root).last_model(), workers=workers)
    log.info("%s in %s", number_of(report.done, "label map"), out)
    o.finish(report.failures, out, report.done, "postprocess")
