"""The command `autoseg fingerprint`."""

from __future__ import annotations

from autoseg.cli import options as o


def run(
    *,
    dataset: o.DatasetOption = None,
    root: o.RootOption = o.ROOT,
    workers: o.WorkersOption = None,
    quiet: o.QuietOption = False,
    json: o.JsonOption = False,
) -> None:
    """Inspect a dataset: check every case; measure sizes, spacings, intensities, structures and landmarks."""
    from autoseg.pipeline.datasets import open_named_dataset
    from autoseg.pipeline.fingerprint import fingerprint_dataset
    from autoseg.pipeline.workspace import Workspace
    from autoseg.system.progress import log, number_of

    o.be_quiet(quiet)
    workspace = Workspace(root)
    opened = open_named_dataset(dataset, workspace)
    report = fingerprint_dataset(opened, workspace, workers=workers)
    fingerprint = report.fingerprint
    log.info("%s: %s", number_of(len(fingerprint.cases), "case"), workspace.dataset_folder(opened.name) / "fingerprint.json")
    o.show(fingerprint, json)
    o.finish(report.failures, workspace.dataset_folder(opened.name), len(fingerprint.cases), "fingerprint")
