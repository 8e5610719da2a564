"""`autoseg fingerprint` on a workspace: the fingerprint, and the folds that go with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoseg.dataset import Dataset
from autoseg.dataset.reading import CaseReader
from autoseg.fingerprint.dataset import Fingerprint, FingerprintReport, has_fingerprint, take_fingerprint
from autoseg.pipeline.ownership import check_owner, remember_owner
from autoseg.pipeline.workspace import Workspace
from autoseg.splits.folds import extend_folds, leak_notes, load_folds, make_folds, save_folds
from autoseg.splits.nnunet import FILE as NNUNET_SPLITS
from autoseg.splits.nnunet import read_nnunet_splits
from autoseg.splits.patients import find_patients
from autoseg.system.progress import log
from autoseg.system.workers import Failure


def fingerprint_dataset(
    dataset: Dataset, workspace: Workspace, *, workers: int | None = None, reader: CaseReader | None = None
) -> FingerprintReport:
    """Measure what is new, write fingerprint.json, and bring splits.json up to date with the cases that are usable.

    Raises:
        DataError: nothing can be used; patients.csv or nnU-Net's splits_final.json in the dataset's folder is faulty.
        UsageError: the workspace holds work on another dataset of this name.
    """
    check_owner(dataset.name, dataset.root, workspace)
    folder = workspace.dataset_folder(dataset.name)
    report = take_fingerprint(dataset, folder, workers=workers, reader=reader)
    remember_owner(dataset.name, dataset.root, workspace)  # not before: one without a usable case leaves the place to others
    _note(report.notices, folder / "fingerprint.json")
    _update_folds(dataset, report.fingerprint, folder / "splits.json")
    return report


def ensure_fingerprint(dataset: Dataset, workspace: Workspace, *, workers: int | None = None) -> tuple[Failure, ...]:
    """Measure a dataset that has not been measured before, or by an older autoseg that looked at less.

    Returns:
        The cases that cannot be used; none where there was nothing to do.

    Raises:
        DataError, UsageError: see `fingerprint_dataset`.
    """
    check_owner(dataset.name, dataset.root, workspace)
    if has_fingerprint(workspace.dataset_folder(dataset.name) / "fingerprint.json"):
        return ()
    return fingerprint_dataset(dataset, workspace, workers=workers).failures


def _update_folds(dataset: Dataset, fingerprint: Fingerprint, path: Path) -> None:
    """Make folds (from nnU-Net's splits_final.json if there is one), or extend those that exist; log what they are based on."""
    digests = {c.name: c.digest for c in fingerprint.cases}
    names = [c.name for c in dataset.cases]
    patients = find_patients(dataset.root, names, digests)
    notices = list(patients.notices)
    nnunet_file = dataset.root / NNUNET_SPLITS
    old = load_folds(path) if path.is_file() else None
    if old is None and nnunet_file.is_file():
        old = read_nnunet_splits(nnunet_file, names, fingerprint.hash)
        log.info("%d folds from %s, %d cases for training only", len(old.validation), nnunet_file, len(old.training_only))
    elif old and nnunet_file.is_file() and nnunet_file.stat().st_mtime_ns > path.stat().st_mtime_ns:
        notices.insert(
            0,
            f"{nnunet_file} is newer than {path}, which stays in force; for the newer one delete splits.json, then autoseg "
            "fingerprint and autoseg train --restart",
        )
    if old is None:
        folds = make_folds(digests, fingerprint.hash, patients.by_case)
    else:
        folds = extend_folds(old, digests, fingerprint.hash, patients.by_case)
    if (summary := patients.summary(digests)) and not folds.leaks and not (old and old.patients):
        log.info("%s", summary)
    _note(notices + leak_notes(folds), path)
    save_folds(folds, path)


def _note(notices: Sequence[str], file: Path) -> None:
    """Log the first few notices."""
    for notice in notices[:5]:
        log.warning("note: %s", notice)
    if len(notices) > 5:
        log.warning("note: %d more, see %s", len(notices) - 5, file)
