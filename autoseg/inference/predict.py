"""Prediction of files: read each case, apply model and component rules, write label maps and landmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.dataset import LANDMARK_TABLE, Case, check_output_folder, landmarks_path, load_predicted
from autoseg.dataset.predicted import Maker
from autoseg.errors import AutosegError, UsageError, first_few
from autoseg.imaging.landmarks import Landmarks, LandmarkSet
from autoseg.inference.input_checks import Doubt, check_grid, doubts, log_doubts
from autoseg.inference.model import Model
from autoseg.inference.model_digest import model_digest
from autoseg.inference.outputs import Outputs
from autoseg.io import geometry_remarks, has_geometry, read_grid, read_image
from autoseg.plan import DataPlan
from autoseg.postprocessing.component_rules import Rule
from autoseg.system.allocator import keep_freed_memory
from autoseg.system.progress import number_of
from autoseg.system.workers import CaseReport, CaseRun, Failure

WORKERS = 2  # one case is read or written while the network works on the other


@dataclass(frozen=True)
class PredictReport(CaseReport):
    """Numbers of cases that were predicted now, and that were skipped since their files exist."""

    done: int
    skipped: int

    def __repr__(self) -> str:
        counts = f"{number_of(self.done, 'case')} predicted, {self.skipped} skipped, {len(self.failures)} failed"
        first = f" ({first_few([failure.case for failure in self.failures])})" if self.failures else ""
        return f"PredictReport: {counts}{first}"


def predict(
    model: Model,
    rules: Sequence[Rule],
    cases: Sequence[Case],
    out: Path,
    *,
    mirror: bool = True,
    save_probabilities: bool = False,
    overwrite: bool = False,
    workers: int = WORKERS,
    landmarks_ending: str = "",
    runs: Sequence[Path] = (),
    dataset: str | None = None,
) -> PredictReport:
    """Predicts every case into `out`; what this model has made of the same image is skipped.

    Writes, as far as the model has learnt them, a label map in the format of the case's first image, a file with its landmarks,
    and `landmarks.csv` with those of all cases. `predicted.jsonl` says what made each file: what another model has made is
    predicted again, and a file of unknown origin, or changed by hand since another model made it, fails unless `overwrite`.

    Args:
        rules: component rules applied to each label map.
        mirror: average over the plan's mirror axes.
        workers: threads; 0 for none.
        save_probabilities: also write `<case>_probabilities<ending>`, one component per class, background first.
        landmarks_ending: of `io.LANDMARK_ENDINGS`, for the files of single cases; see `dataset.landmarks_path`.
        runs: folders of the model's runs, for messages.
        dataset: name of the dataset that the model has learnt from; None is that of its plan.

    Raises:
        UsageError: an image lies in `out`; probabilities of a model without structures; a case named like the table of
            landmarks; such a table of unknown origin in `out`.
    """
    keep_freed_memory()
    data = model.plan.data
    check_output_folder(cases, out)
    if save_probabilities and not data.labels.names:
        raise UsageError(
            "the model has learnt landmarks only, so there are no class probabilities", fix="no --save_probabilities"
        )
    maker = Maker(model_digest(model, rules), dataset or model.plan.name, tuple(str(run.resolve()) for run in runs), mirror)
    outputs = Outputs(out, data, maker, save_probabilities, landmarks_ending, overwrite)
    if any(path.name == LANDMARK_TABLE for case in cases for path in outputs.files(case)):
        raise UsageError(f"a case's landmarks would be named {LANDMARK_TABLE}, as those of all cases", fix="rename that image")
    selection = outputs.select(cases)
    remaining = [case for case in cases if case.name in selection.todo]
    channels = tuple(c.name for c in data.channels)
    predicted: dict[str, Landmarks] = {}
    doubtful: list[Doubt] = []

    def work(case: Case) -> None:
        image = read_image(case.images, channels)
        check_grid(model, image.grid, case.images[0])
        doubtful.extend(doubts(model, image, case.name))
        doubtful.extend(Doubt(case.name, remark, str(path)) for path in case.images for remark in geometry_remarks(path))
        prediction = model.predict_image(image, mirror, probabilities=save_probabilities)
        landmarks = outputs.write(case, image.grid, prediction, rules, todo=selection.todo[case.name])
        if landmarks is not None:
            predicted[case.name] = landmarks

    run = CaseRun(work, remaining, "predict", workers=workers)
    done = len(run.finish())
    log_doubts(doubtful)
    unreadable: tuple[Failure, ...] = ()
    if data.landmarks.names:
        refused = {failure.case for failure in selection.refused}
        kept = [case for case in cases if case.name not in refused]
        table, unreadable = _all_landmarks(predicted, kept, out, landmarks_ending, data.landmarks)
        if table:
            outputs.write_table(table, not any(has_geometry(case.images[0]) for case in cases))
    return PredictReport(done, selection.n_complete, failures=(*selection.refused, *run.failures, *unreadable))


def describe_outcome(data: DataPlan, n_cases: int) -> str:
    """The files of a prediction in words: '20 label maps', 'landmarks of 20 cases'."""
    if not data.landmarks.names:
        return number_of(n_cases, "label map")
    return f"{'label maps and ' if data.labels.names else ''}landmarks of {number_of(n_cases, 'case')}"


def _all_landmarks(
    predicted: Mapping[str, Landmarks], cases: Sequence[Case], out: Path, ending: str, landmarks: LandmarkSet
) -> tuple[dict[str, Landmarks], tuple[Failure, ...]]:
    """Landmarks by case: those predicted now, and those in files of an earlier prediction.

    Returns:
        The table, and the cases whose file of landmarks cannot be read.
    """
    table: dict[str, Landmarks] = {}
    failures: list[Failure] = []
    for case in cases:
        path = landmarks_path(out, case, ending)
        if case.name in predicted:
            table[case.name] = predicted[case.name]
        elif path.exists():
            try:
                table[case.name] = load_predicted(case, path, landmarks, read_grid(case.images[0]))
            except AutosegError as error:
                failures.append(Failure(case.name, "predict", str(error)))
    return table, tuple(failures)
