"""The command `autoseg preprocess`."""

from __future__ import annotations

from autoseg.cli import options as o


def run(
    *,
    dataset: o.DatasetOption = None,
    configuration: o.ConfigurationOption = None,
    root: o.RootOption = o.ROOT,
    workers: o.WorkersOption = None,
    quiet: o.QuietOption = False,
    json: o.JsonOption = False,
) -> None:
    """Bring the cases to the plan's grid. Unchanged cases are kept; interrupted work continues."""
    from autoseg.pipeline.datasets import open_named_dataset
    from autoseg.pipeline.preprocess import preprocess_dataset
    from autoseg.pipeline.workspace import Workspace
    from autoseg.system.progress import log, number_of

    o.be_quiet(quiet)
    workspace = Workspace(root)
    opened = open_named_dataset(dataset, workspace)
    report = preprocess_dataset(opened, workspace, configuration=configuration, workers=workers)
    log.info("%s prepared, %d kept, %d removed", number_of(len(report.done), "case"), len(report.reused), len(report.removed))
    o.show(report, json)
    o.finish(report.failures, workspace.dataset_folder(opened.name), len(report.done) + len(report.reused), "preprocess")
