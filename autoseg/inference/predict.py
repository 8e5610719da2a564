"""From image files to label maps on the images' own grids, and to files of landmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.dataset import (
    LANDMARK_TABLE,
    Case,
    check_output_folder,
    landmarks_path,
    load_predicted,
    output_path,
    probabilities_path,
)
from autoseg.errors import AutosegError, GeometryError, UsageError, nearest
from autoseg.imaging.geometry import Grid
from autoseg.imaging.image import LabelMap
from autoseg.imaging.landmarks import Landmarks, LandmarkSet
from autoseg.inference.model import Model
from autoseg.io import (
    LANDMARK_ENDINGS,
    has_geometry,
    read_grid,
    read_image,
    write_label_map,
    write_landmark_table,
    write_landmarks,
    write_probabilities,
)
from autoseg.plan import DataPlan
from autoseg.postprocessing.component_rules import Rule, apply_rules
from autoseg.system.allocator import keep_freed_memory
from autoseg.system.progress import log, number_of
from autoseg.system.workers import CaseReport, CaseRun, Failure

WORKERS = 2  # one case is read or written while the network works on the other


@dataclass(frozen=True)
class PredictReport(CaseReport):
    """How many cases were predicted now, and how many were there already."""

    done: int
    skipped: int


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
) -> PredictReport:
    """Predicts every case into `out`; finished outputs are skipped.

    Writes, as far as the model has learnt it, a label map in the format of the case's first image, a file with its landmarks, and
    `landmarks.csv` with those of all cases.

    Args:
        rules: component rules applied to each label map.
        mirror: average over the plan's mirror axes.
        workers: threads; 0 for none.
        save_probabilities: also write `<case>_probabilities<ending>`, one component per class, background first.
        landmarks_ending: of `io.LANDMARK_ENDINGS`, for the files of single cases; see `dataset.landmarks_path`.

    Raises:
        UsageError: an image lies in `out`; probabilities of a model without structures; a case named like the table of landmarks.
    """
    keep_freed_memory()
    data, found = model.plan.data, dict[str, Landmarks]()
    channels, labels = tuple(c.name for c in data.channels), data.labels
    check_output_folder(cases, out)
    if save_probabilities and not labels.names:
        raise UsageError(
            "the model has learnt landmarks only, so there are no class probabilities", fix="no --save_probabilities"
        )

    def files(case: Case) -> list[Path]:
        wanted = [output_path(out, case)] if labels.names else []
        wanted += [probabilities_path(out, case)] if save_probabilities else []
        return wanted + ([landmarks_path(out, case, landmarks_ending)] if data.landmarks.names else [])

    if any(path.name == LANDMARK_TABLE for case in cases for path in files(case)):
        raise UsageError(f"a case's landmarks would be named {LANDMARK_TABLE}, as those of all cases", fix="rename that image")
    todo = [c for c in cases if overwrite or not all(path.exists() for path in files(c))]
    if len(todo) < len(cases):
        log.warning(
            "%d of %d cases are there already and skipped; --overwrite predicts them again", len(cases) - len(todo), len(cases)
        )

    def work(case: Case) -> None:
        image = read_image(case.images, channels)
        check_several_slices(model, image.grid, case.images[0])
        prediction = model.predict_image(image, mirror, probabilities=save_probabilities)
        if prediction.probabilities is not None:
            write_probabilities(probabilities_path(out, case), prediction.probabilities, like=case.images[0])
        # what is there already, where only another file is lacking, may have been corrected by hand
        target, points = output_path(out, case), landmarks_path(out, case, landmarks_ending)
        if prediction.labels is not None and (overwrite or not target.exists()):
            indices = apply_rules(prediction.labels, rules, labels)
            write_label_map(target, LabelMap(indices, image.grid, labels), like=case.images[0])
        if prediction.landmarks is not None and (overwrite or not points.exists()):
            write_landmarks(points, prediction.landmarks, case.name, not has_geometry(case.images[0]))
            found[case.name] = prediction.landmarks

    run = CaseRun(work, todo, "predict", workers=workers)
    done = len(run.finish())
    unreadable: tuple[Failure, ...] = ()
    if data.landmarks.names:
        table, unreadable = _all_landmarks(found, cases, out, landmarks_ending, data.landmarks)
        if table:
            write_landmark_table(out / LANDMARK_TABLE, table, not any(has_geometry(case.images[0]) for case in cases))
    return PredictReport(done, len(cases) - len(todo), failures=(*run.failures, *unreadable))


def describe_outcome(data: DataPlan, n_cases: int) -> str:
    """What there is now: '20 label maps', 'landmarks of 20 cases'."""
    if not data.landmarks.names:
        return number_of(n_cases, "label map")
    return f"{'label maps and ' if data.labels.names else ''}landmarks of {number_of(n_cases, 'case')}"


def check_several_slices(model: Model, grid: Grid, source: Path | None) -> None:
    """
    Raises:
        GeometryError: a single slice, and the model has learnt from volumes.
    """
    if model.configuration.ndim == 3 and min(model.configuration.window) > 1 == min(grid.shape):
        raise GeometryError(
            "a single slice cannot be predicted by a model of volumes",
            file=source,
            found=f"shape {grid.shape}",
            allowed="several slices (z, y, x)",
        )


def landmarks_format_ending(word: str) -> str:
    """The ending of files of landmarks that a user calls 'mrk.json', 'csv', …

    Raises:
        UsageError: no such format.
    """
    known = [ending[1:] for ending in LANDMARK_ENDINGS]
    if word.lower().lstrip(".") not in known:
        raise UsageError(f"unknown format of landmarks{nearest(word, known)}", found=word, allowed=", ".join(known))
    return "." + word.lower().lstrip(".")


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
