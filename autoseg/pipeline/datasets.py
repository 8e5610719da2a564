"""Which dataset a command means, opened with what the workspace remembers of it."""

from __future__ import annotations

from pathlib import Path

from autoseg.dataset import Dataset, find_dataset, open_dataset, search_folders
from autoseg.pipeline.ownership import check_owner
from autoseg.pipeline.workspace import Workspace


def find_named_dataset(name: str | None, workspace: Workspace) -> Path:
    """The folder that `-d` means: a path, a folder name, `Task01` or `1`; None is the dataset planned last.

    Raises:
        UsageError: nothing fits, or more than one folder does; nothing has been planned yet.
    """
    if not name:
        return workspace.last_dataset()
    last = workspace.last().dataset
    folders = [*search_folders(), workspace.root.resolve().parent, *([Path(last).parent] if last else [])]
    return find_dataset(name, folders)


def open_named_dataset(name: str | None, workspace: Workspace) -> Dataset:
    """The dataset that `-d` means; raises as `find_named_dataset` and `open_dataset_folder` do."""
    return open_dataset_folder(find_named_dataset(name, workspace), workspace)


def open_dataset_folder(folder: Path, workspace: Workspace) -> Dataset:
    """The dataset in a folder, unless the workspace holds work on another one of its name.

    Raises:
        UsageError: it does.
        DataError: the folder holds no dataset.
    """
    check_owner(folder.name, folder, workspace)
    return open_dataset(folder, workspace.label_values(folder.name))
