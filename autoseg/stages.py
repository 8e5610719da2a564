"""The stages of the pipeline on a workspace: each reads what the one before wrote, and can be run again alone.

The command line calls these and nothing else; so can a program.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from autoseg.batch import Failure
from autoseg.cascade import cascade_of
from autoseg.claim import check_claim, claim
from autoseg.dataset import Dataset
from autoseg.errors import DataError, UsageError
from autoseg.fingerprint import Fingerprint, has_fingerprint, load_fingerprint, take_fingerprint
from autoseg.folds import extend_folds, leak_notes, load_folds, make_folds, save_folds
from autoseg.lock import alone_in
from autoseg.nnunet_splits import FILE as NNUNET_SPLITS
from autoseg.nnunet_splits import read_nnunet_splits
from autoseg.pairs import PairReader
from autoseg.patients import find_patients
from autoseg.plan import load_plan
from autoseg.preprocess import PreprocessReport, preprocess
from autoseg.progress import log
from autoseg.store import stored_key
from autoseg.workspace import Workspace


def fingerprint_dataset(
    dataset: Dataset, workspace: Workspace, failures: list[Failure], workers: int | None, reader: PairReader | None = None
) -> Fingerprint:
    """Scans what is new, writes fingerprint.json, and brings splits.json up to date with the cases that are usable.

    Raises:
        DataError: nothing can be used; patients.csv or nnU-Net's splits_final.json in the dataset's folder is faulty.
        UsageError: the workspace holds work on another dataset of this name.
    """
    check_claim(dataset.name, dataset.root, workspace)
    folder = workspace.about(dataset.name)
    notices: list[str] = []
    fingerprint = take_fingerprint(dataset, folder, failures, notices, workers, reader)
    claim(dataset.name, dataset.root, workspace)  # not before: one without a usable case leaves the place to others
    _note(notices, folder / "fingerprint.json")
    _update_folds(dataset, fingerprint, folder / "splits.json")
    return fingerprint


def ensure_fingerprint(dataset: Dataset, workspace: Workspace, failures: list[Failure], workers: int | None = None) -> None:
    """Scans a dataset that has not been scanned before, or by an older autoseg that looked at less.

    Raises:
        DataError, UsageError: see `fingerprint_dataset`.
    """
    check_claim(dataset.name, dataset.root, workspace)
    if not has_fingerprint(workspace.about(dataset.name) / "fingerprint.json"):
        fingerprint_dataset(dataset, workspace, failures, workers)


def prepare_dataset(
    dataset: Dataset,
    workspace: Workspace,
    configuration: str | None,
    failures: list[Failure],
    workers: int | None,
    reader: PairReader | None = None,
) -> PreprocessReport:
    """Brings the usable cases to the grid of a configuration; what is there and unchanged is kept.

    Raises:
        DataError: no usable case.
        UsageError: not planned yet, no such configuration; the workspace holds work on another dataset of this name.
    """
    folder = workspace.about(dataset.name)
    plan = load_plan(folder / "plan.json")
    claim(dataset.name, dataset.root, workspace)
    name, _ = plan.configuration(configuration)
    keys = {c.name: c.digest for c in load_fingerprint(folder / "fingerprint.json").cases}
    if not any(c.name in keys for c in dataset.cases):
        raise DataError("no usable case", file=folder / "fingerprint.json", fix="autoseg fingerprint -d DATASET")
    prepared = workspace.prepared(dataset.name, plan.prepared_as(name))
    return preprocess(dataset, plan, name, prepared, keys, failures, workers, reader)


def prepare_stage_before(
    dataset: Dataset, workspace: Workspace, configuration: str | None, failures: list[Failure], workers: int | None
) -> None:
    """For the second stage of a cascade: brings what the first one says about the prepared cases to their grid.

    Raises:
        UsageError: a fold of the first stage is not trained yet.
    """
    folder = workspace.about(dataset.name)
    plan = load_plan(folder / "plan.json")
    name, _ = plan.configuration(configuration)
    cascade = cascade_of(plan, name, workspace.runs(dataset.name), workspace.prepared(dataset.name))
    if cascade is None:
        return
    keys = {c.name: key for c in dataset.cases if (key := stored_key(cascade.prepared, c.name)) is not None}
    folds = load_folds(folder / "splits.json")
    if remark := cascade.remark(folds):
        log.warning("note: %s", remark)
    cascade.prepare(dataset.cases, folds, keys, failures, workers)


def forget_runs(runs: Sequence[Path], needed: Path | None = None) -> None:
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
        with alone_in(run, waits=False):
            shutil.rmtree(_previous(run), ignore_errors=True)
            run.replace(_previous(run))


def _previous(run: Path) -> Path:
    return run.with_name(f"{run.name}.previous")


def _update_folds(dataset: Dataset, fingerprint: Fingerprint, path: Path) -> None:
    """Makes the folds, from nnU-Net's splits_final.json if there is one, or extends those at hand; says what they go by."""
    digests = {c.name: c.digest for c in fingerprint.cases}
    names = [c.name for c in dataset.cases]
    notices: list[str] = []
    patients = find_patients(dataset.root, names, digests, notices)
    by_hand = dataset.root / NNUNET_SPLITS
    old = load_folds(path) if path.is_file() else None
    if old is None and by_hand.is_file():
        old = read_nnunet_splits(by_hand, names, fingerprint.hash)
        log.info("%d folds from %s, %d cases for training only", len(old.validation), by_hand, len(old.training_only))
    elif old and by_hand.is_file() and by_hand.stat().st_mtime_ns > path.stat().st_mtime_ns:
        notices.insert(
            0,
            f"{by_hand} is newer than {path}, which stays in force; for the newer one delete splits.json, then autoseg "
            "fingerprint and autoseg train --restart",
        )
    given = (digests, fingerprint.hash, patients.of)
    folds = make_folds(*given) if old is None else extend_folds(old, *given)
    if (summary := patients.summary(digests)) and not folds.leaks and not (old and old.patients):
        log.info("%s", summary)
    _note(notices + leak_notes(folds), path)
    save_folds(folds, path)


def _note(notices: Sequence[str], place: Path) -> None:
    """Says the first few."""
    for notice in notices[:5]:
        log.warning("note: %s", notice)
    if len(notices) > 5:
        log.warning("note: %d more, see %s", len(notices) - 5, place)
