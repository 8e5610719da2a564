"""The files of predictions in a folder: which are to be written, and which are kept or refused to be replaced."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from autoseg.dataset import LANDMARK_TABLE, Case, landmarks_path, output_path, probabilities_path
from autoseg.dataset.predicted import PREDICTED, Maker, Origin, image_stamp, origins, recorded
from autoseg.errors import UsageError, first_few
from autoseg.imaging.geometry import Grid
from autoseg.imaging.image import LabelMap
from autoseg.imaging.landmarks import Landmarks
from autoseg.inference.model import Prediction
from autoseg.io import has_geometry, write_label_map, write_landmark_table, write_landmarks, write_probabilities
from autoseg.plan import DataPlan
from autoseg.postprocessing.component_rules import Rule, apply_rules
from autoseg.system.names import check_name
from autoseg.system.progress import log, number_of
from autoseg.system.workers import Failure

OVERWRITE = "--overwrite (Python: overwrite=True)"


@dataclass(frozen=True)
class Selection:
    """Cases by what is to be done with them.

    Args:
        todo: the files to write for each case that is not complete, by its name.
        refused: cases in whose place something lies that must not be replaced without a word.
        n_complete: number of cases whose files are there already.
    """

    todo: dict[str, tuple[Path, ...]]
    refused: tuple[Failure, ...]
    n_complete: int


@dataclass(frozen=True)
class Outputs:
    """The files of predictions in a folder, as far as the model has learnt what they hold.

    Args:
        data: of the model's plan.
        maker: the model, as predicted.jsonl names it.
        overwrite: write files that exist, too, whatever made them.
    """

    folder: Path
    data: DataPlan
    maker: Maker
    save_probabilities: bool
    landmarks_ending: str
    overwrite: bool

    def files(self, case: Case) -> tuple[Path, ...]:
        """Files that a case gets."""
        paths = [output_path(self.folder, case)] if self.data.labels.names else []
        paths += [probabilities_path(self.folder, case)] if self.save_probabilities else []
        return (*paths, *([self.landmarks_file(case)] if self.data.landmarks.names else []))

    def landmarks_file(self, case: Case) -> Path:
        return landmarks_path(self.folder, case, self.landmarks_ending)

    @cached_property
    def _origins(self) -> dict[str, Origin]:
        """What made the files that are in the folder before the first is written."""
        return origins(self.folder)

    def select(self, cases: Sequence[Case]) -> Selection:
        """Finds what is to be written; a note says what is skipped, and what is predicted again and why.

        Raises:
            UsageError: the table of landmarks in the folder is none of `predict`'s.
        """
        table = self.folder / LANDMARK_TABLE
        if self.data.landmarks.names and table.exists() and not self.overwrite and LANDMARK_TABLE not in self._origins:
            raise _unknown_origin(table)
        todo: dict[str, tuple[Path, ...]] = {}
        refused: list[Failure] = []
        again: dict[str, list[str]] = {}
        for case in cases:
            try:
                check_name(case.name, "a case", UsageError, case.images[0])
                todo[case.name], reason = self._outdated(case)
            except UsageError as error:
                error.case = case.name
                refused.append(Failure(case.name, "predict", str(error)))
                continue
            if reason:
                again.setdefault(reason, []).append(case.name)
        todo = {name: files for name, files in todo.items() if files}
        n_complete = len(cases) - len(todo) - len(refused)
        if n_complete:
            log.warning("%d of %d cases are there already and skipped; %s predicts them again", n_complete, len(cases), OVERWRITE)
        for reason, names in again.items():
            log.warning("note: predicted again: %s (%s); %s", number_of(len(names), "case"), first_few(names), reason)
        self._note_others(todo)
        return Selection(todo, tuple(refused), n_complete)

    def write(
        self, case: Case, grid: Grid, prediction: Prediction, rules: Sequence[Rule], *, todo: Collection[Path]
    ) -> Landmarks | None:
        """Writes the files of a case that are in `todo`; others of this model may have been corrected by hand, and stay.

        Returns:
            The landmarks, if they were written.
        """
        source, labels, images = case.images[0], self.data.labels, image_stamp(case)
        for path in (path for path in self.files(case) if path in todo):
            with recorded(self.folder, Origin(path.name, case.name, self.maker, images)):
                if path == self.landmarks_file(case) and prediction.landmarks is not None:
                    write_landmarks(path, prediction.landmarks, case.name, not has_geometry(source))
                elif path == output_path(self.folder, case) and prediction.labels is not None:
                    write_label_map(path, LabelMap(apply_rules(prediction.labels, rules, labels), grid, labels), like=source)
                elif prediction.probabilities is not None:
                    write_probabilities(path, prediction.probabilities, like=source)
        return prediction.landmarks if self.landmarks_file(case) in todo else None

    def write_table(self, landmarks: dict[str, Landmarks], pixels: bool) -> None:
        """Writes the table of the landmarks of all cases."""
        with recorded(self.folder, Origin(LANDMARK_TABLE, "", self.maker, "")) as path:
            write_landmark_table(path, landmarks, pixels)

    def _note_others(self, todo: Mapping[str, tuple[Path, ...]]) -> None:
        """Tells which files of other models will stay beside those that are written, such as their probabilities."""
        files = {path.name for paths in todo.values() for path in paths}
        others = [
            name
            for name, origin in self._origins.items()
            if origin.case in todo and name not in files and self.maker.difference(origin.maker) and (self.folder / name).exists()
        ]
        if others:
            log.warning("note: what another model has made stays beside the new files: %s", first_few(sorted(others)))

    def _outdated(self, case: Case) -> tuple[tuple[Path, ...], str]:
        """The files of a case to write, and why those that are there are not kept; nothing where none is there.

        Raises:
            UsageError: one of them is not known to be a prediction.
        """
        files, images = self.files(case), image_stamp(case)
        if self.overwrite:
            return files, ""
        todo, reasons = [], []
        for path in files:
            if not path.exists():
                todo.append(path)
                continue
            origin = self._origins.get(path.name)
            if origin is None:
                raise _unknown_origin(path)
            reason = Origin(path.name, case.name, self.maker, images).difference(origin)
            if not reason:
                continue
            if not origin.is_unchanged(self.folder):
                raise _not_replaced(f"an earlier prediction was changed by hand, and {reason}", path)
            todo.append(path)
            reasons.append(reason)
        return tuple(todo), reasons[0] if reasons else ""


def _unknown_origin(path: Path) -> UsageError:
    return _not_replaced(f"{PREDICTED} beside it does not say which model has made this file, so it is not replaced", path)


def _not_replaced(problem: str, path: Path) -> UsageError:
    return UsageError(problem, file=path, fix=f"another folder, or {OVERWRITE} to replace what is there")
