"""Where autoseg keeps its work, and which dataset and model were used last.

autoseg_work/
  last.json                          last planned dataset, last model
  speeds.json                        how fast trainings have been here, for the next plans
  datasets/Task01_X/                 fingerprint.json, plan.json, splits.json, source.json, failed.csv: small, worth keeping
  prepared/Task01_X/3d_fullres/      cases on the plan's grid: safe to delete
  runs/Task01_X/3d_fullres/fold_0/   weights, metrics, curves: one model per fold
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from autoseg.errors import PlanError, UsageError
from autoseg.system.files import write_text
from autoseg.system.names import check_name, check_path
from autoseg.system.progress import log
from autoseg.system.records import read_record, to_json

T = TypeVar("T")


@dataclass(frozen=True)
class Last:
    """Folder of the last planned dataset and of the last model; empty where there is none yet."""

    dataset: str = ""
    model: str = ""

    def __post_init__(self) -> None:
        check_path(self.dataset, "'dataset'", PlanError)
        check_path(self.model, "'model'", PlanError)


@dataclass(frozen=True)
class Workspace:
    """All paths below one `--root`.

    Names of datasets, configurations and folds may come from a stranger's files: one that would lead out of the folder that it
    belongs in is a `UsageError`. Links are followed, since prepared cases often lie on another disk.
    """

    root: Path

    def __post_init__(self) -> None:
        check_path(str(self.root), "--root", UsageError)
        object.__setattr__(self, "root", Path(self.root))

    def dataset_folder(self, dataset: str) -> Path:
        return self._folder("datasets", dataset)

    def label_values(self, dataset: str) -> Path:
        """Where the values of label maps are kept for a dataset that does not say what they mean."""
        return self.dataset_folder(dataset) / "label_values.json"

    def prepared(self, dataset: str, configuration: str | None = None) -> Path:
        """The folder of a configuration's cases, or the one above those of all configurations."""
        return self._folder("prepared", dataset, configuration)

    def runs(self, dataset: str) -> Path:
        return self._folder("runs", dataset)

    def run(self, dataset: str, configuration: str, fold: str) -> Path:
        check_name(fold, "a fold", UsageError, self.root)
        return self._folder("runs", dataset, configuration) / f"fold_{fold}"

    def speeds(self) -> dict[str, float]:
        """10⁹ multiply-accumulates a second that trainings have done here, by kind of device."""
        speeds = _recalled(dict[str, float], self.root / "speeds.json") or {}
        return {device: speed for device, speed in speeds.items() if speed > 0}

    def remember_speed(self, device: str, gmacs_per_s: float) -> None:
        write_text(self.root / "speeds.json", to_json(self.speeds() | {device: round(gmacs_per_s, 1)}))

    def last(self) -> Last:
        return _recalled(Last, self.root / "last.json") or Last()

    def remember_dataset(self, root: Path) -> None:
        write_text(self.root / "last.json", to_json(replace(self.last(), dataset=str(root.resolve()))))

    def remember_model(self, run: Path) -> None:
        write_text(self.root / "last.json", to_json(replace(self.last(), model=str(run.resolve()))))

    def has_model(self) -> bool:
        """Tell if the model that was remembered last is still there."""
        folder = Path(self.last().model)
        return bool(self.last().model) and any(any(folder.glob(name)) for name in ("run.json", "fold_*/run.json"))

    def last_dataset(self) -> Path:
        """Folder of the dataset that was planned last.

        Raises:
            UsageError: nothing has been planned under this root.
        """
        folder = self.last().dataset
        if not folder:
            raise UsageError("no dataset planned yet", file=self.root, fix="autoseg plan_and_preprocess -d DATASET")
        return Path(folder)

    def last_model(self) -> Path:
        """Folder of the model that was trained last.

        Raises:
            UsageError: nothing has been trained under this root.
        """
        folder = self.last().model
        if not folder:
            raise UsageError("no model yet", file=self.root, fix="autoseg train, or give -m MODEL")
        return Path(folder)

    def _folder(self, kind: str, dataset: str, configuration: str | None = None) -> Path:
        """
        Raises:
            UsageError: a name that is no file's, so that the folder could be anywhere.
        """
        check_name(dataset, "a dataset", UsageError, self.root)
        folder = self.root / kind / dataset
        if configuration is not None:
            check_name(configuration, "a configuration", UsageError, self.root)
            folder /= configuration
        if self.root not in folder.parents:  # a drive's letter does so on Windows
            raise UsageError("a path leads out of the workspace", file=self.root, found=folder, fix="rename the dataset")
        return folder


def _recalled(kind: type[T], path: Path) -> T | None:
    """What a file remembers of earlier commands; None where there is none, or where a note says that it is damaged.

    Nothing is lost with it but a default, and the next command that has something to remember writes it anew.
    """
    if not path.is_file():
        return None
    try:
        return read_record(kind, path, fix="delete it, or go on: it is written anew")
    except PlanError as error:
        log.warning("note: nothing is remembered: %s", error)
        return None
