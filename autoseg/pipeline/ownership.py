"""Whose work it is: a workspace keeps work by the name of a dataset's folder, so two of one name must not come together there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autoseg.dataset import is_dataset
from autoseg.errors import UsageError
from autoseg.pipeline.workspace import Workspace
from autoseg.system.files import write_text
from autoseg.system.progress import log
from autoseg.system.records import from_json, to_json


@dataclass(frozen=True)
class Source:
    """The dataset's folder, as an absolute path without links."""

    root: str


def check_owner(name: str, root: Path, workspace: Workspace) -> None:
    """
    Raises:
        UsageError: the work under this name is on the dataset in another folder, which is still there.
    """
    path = _path(name, workspace)
    other = _owner(path)
    if other is not None and is_dataset(other) and not other.samefile(root):
        raise UsageError(
            f"two datasets are called '{name}', and there is a place for one of them",
            file=root,
            found=f"work on {other}",
            fix=f"give another --root, or rename the folder; if it is a copy of the same data, delete {path}",
        )


def remember_owner(name: str, root: Path, workspace: Workspace) -> None:
    """Remembers that the work under this name is on the dataset in `root`; says so if it was moved there.

    Raises:
        UsageError: see `check_owner`.
    """
    check_owner(name, root, workspace)
    path, here = _path(name, workspace), root.resolve()
    before = _owner(path)
    if before == here:
        return
    if before is not None:
        log.warning("note: %s is at %s now, before it was at %s", name, here, before)
    write_text(path, to_json(Source(str(here))))


def _path(name: str, workspace: Workspace) -> Path:
    return workspace.dataset_folder(name) / "source.json"


def _owner(path: Path) -> Path | None:
    return Path(from_json(Source, path.read_text(encoding="utf-8"), path).root) if path.is_file() else None
