"""autoseg fingerprint"""

from __future__ import annotations

from autoseg.cli import options as o


def run(
    dataset: o.DatasetOption = None,
    root: o.RootOption = o.ROOT,
    workers: o.WorkersOption = None,
    quiet: o.QuietOption = False,
    json: o.JsonOption = False,
) -> None:
    """Look at a dataset: check every case and gather sizes, spacings, intensities and structures."""
    from autoseg.pipeline.fingerprint import fingerprint_dataset
    from autoseg.pipeline.workspace import Workspace
    from autoseg.system.progress import log
    from autoseg.system.workers import Failure

    o.be_quiet(quiet)
    workspace = Workspace(root)
    failures: list[Failure] = []
    about = o.open_named(dataset, workspace)
    facts = fingerprint_dataset(about, workspace, failures, workers)
    log.info("%d cases: %s", len(facts.cases), workspace.dataset_folder(about.name) / "fingerprint.json")
    o.show(facts, json)
    o.finish(failures, workspace.dataset_folder(about.name), len(facts.cases), "fingerprint")
