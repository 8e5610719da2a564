"""Which dataset a workspace's work belongs to: work is kept by folder name, so two datasets of one name must not share it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autoseg.dataset import is_dataset
from autoseg.errors import PlanError, UsageError
from autoseg.pipeline.workspace import Workspace
from autoseg.system.files import write_text
from autoseg.system.names import check_path
from autoseg.system.progress import log
from autoseg.system.records import read_record, to_json


@dataclass(frozen=True)
class Source:
    """source.json: the dataset's folder, as an absolute path without links."""

    root: str


def owner_folder(name: str, workspace: Workspace) -> Path | None:
    """The folder of the dataset that the work under a name belongs to, if it is still there."""
    owner = _owner(_path(name, workspace))
    return owner if owner is not None and is_dataset(owner) else None


def check_owner(name: str, root: Path, workspace: Workspace) -> None:
    """Refuse to work on a dataset under the name of another one.

    Raises:
        UsageError: the work under this name is on the dataset in another folder, which is still there.
    """
    path = _path(name, workspace)
    other = _owner(path)
    if other is not None and is_dataset(other) and not other.samefile(root):
        raise UsageError(
            f"two datasets are called '{name}', and the workspace has room for one of them",
            file=root,
            found=f"work on {other}",
            fix=f"give another --root, or rename the folder; if it is a copy of the same data, delete {path}",
        )


def remember_owner(name: str, root: Path, workspace: Workspace) -> None:
    """Record that the work under this name belongs to the dataset in `root`; a note says if it has moved there.

    Raises:
        UsageError: see `check_owner`.
    """
    check_owner(name, root, workspace)
    path, present = _path(name, workspace), root.resolve()
    recorded = _owner(path)
    if recorded == present:
        return
    if recorded is not None:
        log.warning("note: %s has moved from %s to %s", name, recorded, present)
    write_text(path, to_json(Source(str(present))))


def _path(name: str, workspace: Workspace) -> Path:
    return workspace.dataset_folder(name) / "source.json"


def _owner(path: Path) -> Path | None:
    if not path.is_file():
        return None
    root = read_record(Source, path, fix="undo the last edit, or delete it if the work is on this dataset").root
    check_path(root, "'root'", PlanError, path)
    return Path(root)
