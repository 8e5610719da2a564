"""`autoseg train` on a workspace: what a fold trains on, and how earlier runs are set aside."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from autoseg.dataset import Dataset
from autoseg.errors import UsageError
from autoseg.fingerprint.dataset import load_fingerprint
from autoseg.pipeline.cascade import cascade_of
from autoseg.pipeline.ownership import check_owner
from autoseg.pipeline.workspace import Workspace
from autoseg.plan import load_plan
from autoseg.preprocessing.dataset import prepared_key
from autoseg.preprocessing.store import stored_key
from autoseg.runs.job import TrainingJob
from autoseg.splits.folds import load_folds
from autoseg.system.lock import folder_lock
from autoseg.system.progress import log


def set_runs_aside(runs: Sequence[Path], needed: Path | None = None) -> None:
    """Moves runs aside (each to `<fold>.previous`, replacing what was there) so that training starts anew.

    Args:
        needed: a folder that training is to read.

    Raises:
        UsageError: `needed` would be moved or replaced, and nothing has been touched; or a run is being trained.
    """
    present = [run for run in runs if run.is_dir()]
    if needed:
        for run in present:
            for lost, how in ((run, "moved aside"), (_previous(run), "deleted")):
                if needed.resolve().is_relative_to(lost.resolve()):
                    raise UsageError(
                        "the weights to begin with lie in a run that --restart takes away",
                        file=needed,
                        found=f"{lost}, which would be {how}",
                        fix="copy the folder elsewhere and give that to --pretrained, or leave out --restart",
                    )
    for run in present:
        with folder_lock(run, wait=False):
            shutil.rmtree(_previous(run), ignore_errors=True)
            run.replace(_previous(run))


def _previous(run: Path) -> Path:
    return run.with_name(f"{run.name}.previous")


def training_job(dataset: Dataset, workspace: Workspace, configuration: str | None, fold: str) -> TrainingJob:
    """The job that a planned dataset, a configuration and a fold make up.

    Cases that are not prepared as the plan now says are left out, with a note.

    Raises:
        UsageError: not planned yet, no such configuration or fold; the folds of an earlier stage are not all trained; the
            workspace holds work on another dataset of this name.
    """
    check_owner(dataset.name, dataset.root, workspace)
    folder = workspace.dataset_folder(dataset.name)
    plan = load_plan(folder / "plan.json")
    name, chosen = plan.configuration(configuration)
    folds = load_folds(folder / "splits.json")
    prepared = workspace.prepared(dataset.name, plan.prepared_as(name))
    digests = {c.name: c.digest for c in load_fingerprint(folder / "fingerprint.json").cases}
    wanted = {n: prepared_key(digest, plan.data, chosen.space) for n, digest in digests.items()}
    ready = {c.name: c for c in dataset.cases if c.name in wanted and stored_key(prepared, c.name) == wanted[c.name]}
    if len(ready) < len(folds.cases):
        log.warning("note: %d of %d cases are not prepared: autoseg preprocess", len(folds.cases) - len(ready), len(folds.cases))
    cascade = cascade_of(plan, name, workspace.runs(dataset.name), workspace.prepared(dataset.name))
    if cascade:
        maps = cascade.predictions(folds)
        keys = {n: cascade.key(maps[n], wanted[n]) for n in ready if n in maps}
        ready = {n: c for n, c in ready.items() if n in keys and stored_key(cascade.folder, n) == keys[n]}
    if remark := folds.remark(fold):
        log.warning("note: %s", remark)
    return TrainingJob(
        dataset=dataset.name,
        plan=plan,
        configuration=name,
        fold=fold,
        training=tuple(ready[n] for n in folds.training_cases(fold) if n in ready),
        validation=tuple(ready[n] for n in folds.validation_cases(fold) if n in ready),
        prepared=prepared,
        previous_stage=cascade.folder if cascade else None,
        run=workspace.run(dataset.name, name, fold),
    )
