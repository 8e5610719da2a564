"""Predictions of a cascade's first stage as an input of its second one.

Each case gets the prediction of the fold that was not trained on it, so that the network meets in
training the errors that it will meet later: its label map, or without structures the spots of its
landmarks. That is brought to the grid of the prepared case and stored as a case of its own, with
class indices or landmark numbers (1, Z, Y, X) in place of the image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.dataset import Case, case_landmarks, case_name, load_predicted
from autoseg.errors import GeometryError, UsageError, first_few
from autoseg.io import image_ending, read_label_map
from autoseg.plan import Configuration, Plan, load_plan
from autoseg.preprocessing.case import preprocess_labels
from autoseg.preprocessing.landmark_spots import paint_landmarks, spot_radii_mm
from autoseg.preprocessing.placement import Placement, Prepared
from autoseg.preprocessing.store import StoredCase, remove_case, stored_key, stored_names, write_case
from autoseg.runs.record import is_finished
from autoseg.splits.folds import Folds
from autoseg.system.files import sha256
from autoseg.system.lock import folder_lock
from autoseg.system.progress import number_of
from autoseg.system.workers import CaseRun, Failure


@dataclass(frozen=True)
class Cascade:
    """The second stage of a cascade and where its input comes from.

    Args:
        configuration, previous_stage: names of the second and of the first stage in the plan.
        runs: folder with the first stage's folds.
        prepared: folder of the second stage's prepared cases.
        folder: folder of the first stage's predictions on the second stage's grid.
    """

    plan: Plan
    configuration: str
    previous_stage: str
    runs: Path
    prepared: Path
    folder: Path

    def predictions(self, folds: Folds) -> dict[str, Path]:
        """Map each case to the file of the fold that was validated on it; cases without one are left out.

        Raises:
            UsageError: a fold is not trained yet, or there is no file at all.
        """
        by_fold = {
            fold: self._validated(self.runs / f"fold_{fold}" / "validation", folds)
            for fold in folds.names
            if fold != "all" and is_finished(self.runs / f"fold_{fold}")
        }
        missing = [fold for fold in folds.names if fold != "all" and fold not in by_fold]
        if missing or not by_fold:
            raise UsageError(
                f"{self.configuration} learns from what {self.previous_stage} predicts for every case, "
                "so all of its folds come first",
                file=self.runs,
                found="not finished: " + (", ".join(f"fold {fold}" for fold in missing) or "any fold"),
                fix=f"autoseg train -c {self.previous_stage} -f {missing[0] if missing else 0}, and so on",
            )
        maps = {n: maps[n] for fold, maps in by_fold.items() for n in folds.validation_cases(fold) if n in maps}
        if not maps:
            raise UsageError(
                f"{self.previous_stage} was not validated on any case",
                file=self.runs,
                fix=f"autoseg train -c {self.previous_stage} --restart with a larger --time, which leaves time to validate",
            )
        return maps

    def _validated(self, folder: Path, folds: Folds) -> dict[str, Path]:
        """Predicted files of a fold by case: label maps, or landmarks where there are no structures."""
        if not folder.is_dir():
            return {}
        if self.plan.data.labels.names:
            return {case_name(p): p for p in sorted(folder.iterdir()) if image_ending(p)}
        return case_landmarks(folder, folds.cases)

    def remark(self, folds: Folds) -> str | None:
        """A sentence on the cases that no fold has predicted without being trained on them; None if there are none.

        Raises:
            UsageError: see `predictions`.
        """
        absent = sorted(set(folds.cases) - set(self.predictions(folds)))
        if not absent:
            return None
        return (
            f"left out of {self.configuration}: {number_of(len(absent), 'case')} that no fold of {self.previous_stage} was "
            f"validated on, {first_few(absent)}; "
            f"autoseg train -c {self.previous_stage} --restart, with more --time if that was short"
        )

    def key(self, prediction: Path, case_key: str) -> str:
        """Digest of everything that a stored prediction depends on."""
        spots = "" if self.plan.data.labels.names else f" {spot_radii_mm(self._trained_stage(prediction))}"
        return hashlib.sha256(f"{sha256(prediction)} {case_key}{spots}".encode()).hexdigest()

    def _trained_stage(self, prediction: Path) -> Configuration:
        """The first stage as it was trained; the plan may have changed since."""
        return load_plan(prediction.parents[1] / "plan.json").configuration(self.previous_stage)[1]

    def prepare(
        self,
        cases: Iterable[Case],
        folds: Folds,
        case_keys: Mapping[str, str],
        *,
        workers: int | None = None,
    ) -> tuple[Failure, ...]:
        """Bring `folder` in line with the predictions; what is up to date is kept.

        Args:
            case_keys: keys of the prepared cases, by name.

        Returns:
            The cases that failed.

        Raises:
            UsageError: see `predictions`.
        """
        maps = self.predictions(folds)
        with folder_lock(self.folder):
            keys = {name: self.key(path, case_keys[name]) for name, path in maps.items() if name in case_keys}
            for name in set(stored_names(self.folder)) - set(keys):
                remove_case(self.folder, name)
            outdated = [c for c in cases if c.name in keys and stored_key(self.folder, c.name) != keys[c.name]]

            def work(case: Case) -> None:
                placement = StoredCase.open(self.prepared, case.name).placement
                indices = self._on_grid(case, maps[case.name], placement)
                write_case(self.folder, case.name, Prepared(indices[None], None, placement), keys[case.name])

            run = CaseRun(work, outdated, f"prepare {self.previous_stage} for {self.configuration}", workers=workers)
            run.finish()
            return run.failures

    def _on_grid(self, case: Case, prediction: Path, placement: Placement) -> np.ndarray:
        """The first stage's prediction on the grid of a prepared case: (Z, Y, X) class indices or landmark numbers."""
        data, space = self.plan.data, self.plan.configurations[self.configuration].space
        if not data.labels.names:
            landmarks = load_predicted(case, prediction, data.landmarks, placement.source)
            return paint_landmarks(landmarks, placement, self._trained_stage(prediction))
        label_map = read_label_map(prediction, data.labels)
        if label_map.grid.shape != placement.source.shape:
            raise GeometryError(
                f"the prediction of {self.previous_stage} has another shape than the case",
                file=prediction,
                found=label_map.grid.shape,
                allowed=placement.source.shape,
                fix=f"autoseg train -c {self.previous_stage} --restart, since the dataset has changed",
            )
        return preprocess_labels(label_map, placement, space)


def cascade_of(plan: Plan, configuration: str, runs: Path, prepared: Path) -> Cascade | None:
    """The cascade that a configuration is the second stage of; None if it is not.

    Args:
        runs, prepared: the dataset's folders, with a folder for each configuration.
    """
    previous = plan.configurations[configuration].previous_stage
    if previous is None:
        return None
    cases = prepared / plan.prepared_as(configuration)
    return Cascade(plan, configuration, previous, runs / previous, cases, prepared / f"{configuration}.{previous}")
