"""How good a model is on whole cases, and which component rules make it better."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from autoseg.dataset import Case, landmarks_path, output_path
from autoseg.errors import first_few
from autoseg.evaluation.metrics import dice_per_structure
from autoseg.imaging.image import LabelMap
from autoseg.imaging.landmarks import Landmarks, State
from autoseg.inference.model import Model
from autoseg.io import has_geometry, read_label_map, write_label_map, write_landmarks
from autoseg.postprocessing.component_rules import Rule, RuleChooser, accepted_rules
from autoseg.postprocessing.presence_threshold import DEFAULT_THRESHOLD, choose_threshold
from autoseg.preprocessing.store import StoredCase
from autoseg.system.files import write_text
from autoseg.system.progress import Progress, duration, log
from autoseg.system.records import to_json
from autoseg.training.sampling import read_errors_of

Dice = tuple[float | None, ...]  # of each structure, None where neither side has it


@dataclass(frozen=True)
class CaseScores:
    """How good a model is on a few cases: the mean Dice over structures and cases, and the mean radial error of the landmarks,
    mm; None where nothing can be measured, for a reason."""

    dice: float | None
    mre: float | None
    reason: str = ""


@dataclass(frozen=True)
class Validation:
    """Mean Dice per structure over the cases, their mean, and the rules that raise it; mean radial error per landmark (mm) over
    the cases that have it and in which it was found, their mean, how many were missed or found where they are absent, and the
    thresholds of presence, None where the cases cannot tell."""

    n_cases: int
    case_dice: float | None
    structure_dice: dict[str, float | None]
    rules: tuple[Rule, ...]
    mre: float | None = None
    landmark_mre: dict[str, float | None] = field(default_factory=dict)
    missed: int = 0
    extra: int = 0
    thresholds: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _LandmarkResult:
    """The landmarks of a case.

    Args:
        path: file that the predicted ones are written to, for `case`, in pixels or in mm.
        reference: those outside the image count as unlabelled; `n_outside` is their number.
        presence: probability of each that it is present.
    """

    path: Path
    case: str
    pixels: bool
    reference: Landmarks
    predicted: Landmarks
    presence: np.ndarray
    n_outside: int

    def write(self) -> None:
        write_landmarks(self.path, self.predicted, self.case, self.pixels)


def case_scores(model: Model, cases: Sequence[StoredCase]) -> CaseScores:
    """Scores on whole prepared cases, predicted without mirroring.

    The error is that of the place where a landmark is found, whether or not it would count as present: saying nothing gains
    nothing. What lies outside the image cannot be found and does not count.
    """
    data = model.plan.data
    dice: list[Dice] = []
    errors: list[np.ndarray] = []
    for case in cases:
        with read_errors_of(case, "validate"):
            (image, reference), previous = case.read(), case.previous_prediction()
        raw = model.predict_logits(image, False, previous)
        if raw.logits is not None and reference is not None:
            predicted = raw.logits.argmax(0)
            dice.append(dice_per_structure(reference, predicted, data.labels.n_classes, data.labels.ignore_index))
        if raw.peaks is not None:
            gap = case.placement.to_world(raw.peaks.points) - case.placement.to_world(case.points)
            errors.append(np.where(case.inside, np.linalg.norm(gap, axis=1), np.nan))
    return CaseScores(_mean(value for row in dice for value in row), _mean(_means(errors)))


def validate(
    model: Model,
    cases: Sequence[Case],
    out: Path,
    *,
    prepared: Path,
    previous_stage: Path | None = None,
    candidates: Sequence[str] = (),
    lacking: Sequence[str] = (),
    seconds: float = math.inf,
    case_seconds: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
) -> Validation:
    """Predict cases on their own grids, mirrored as planned, and compare with their label files and landmarks.

    Writes label maps and landmarks to `out`/validation and the evidence for each component rule to
    `out`/postprocess.json. The scores are those before any rule is applied. An interrupted validation
    continues, but with landmarks it begins anew.

    Args:
        prepared, previous_stage: folders of the prepared cases, and of what the previous stage of a
            cascade predicted for them.
        candidates: component rules to try, of `plan.POSTPROCESS_RULES`.
        lacking: landmarks that are absent in some case; the others always count as present. Those
            outside their image do not count at all.
        seconds: no case is begun that is not expected to be finished by then; the first one always is.
        case_seconds: time that a case is expected to take; more than `seconds` means no validation.
    """
    labels, names = model.plan.data.labels, model.plan.data.landmarks.names
    if names:  # what an interrupted validation has left is not decided on
        for case in cases:
            landmarks_path(out / "validation", case).unlink(missing_ok=True)
    if cases and case_seconds > seconds:
        log.warning("note: no time to validate, a case would take %s; a larger budget leaves some", duration(case_seconds))
        cases = ()
    cases = sorted(cases, key=lambda case: case.label is None)  # should time be short, rules need at least one with a label map
    chooser = RuleChooser(labels, candidates)
    scores: list[Dice] = []
    landmarks: list[_LandmarkResult] = []
    n_cases, start_time = 0, clock()
    with Progress("validate", len(cases), time_limit=seconds) as progress:
        for case in cases:
            elapsed = clock() - start_time
            if n_cases and elapsed + elapsed / n_cases > seconds:
                log.warning(
                    "note: time for %d of %d validation cases only; a larger budget validates on more", n_cases, len(cases)
                )
                break
            stored = StoredCase.open(prepared, case.name, previous_stage)
            predicted, reference, result = _predict_stored(model, case, stored, out / "validation")
            n_cases += 1
            if result is not None:
                landmarks.append(result)
            if predicted is not None and reference is not None:
                scores.append(dice_per_structure(reference, predicted, labels.n_classes, labels.ignore_index))
                chooser.add(predicted, reference)
            progress.advance(case.name)
    evidence = chooser.evidence() if scores else ()
    write_text(out / "postprocess.json", to_json(evidence))
    means = [_mean(row[i] for row in scores) for i in range(len(labels.names))]
    segmentation = Validation(n_cases, _mean(means), dict(zip(labels.names, means)), accepted_rules(evidence))
    return _with_landmarks(segmentation, landmarks, names, lacking) if names else segmentation


def _with_landmarks(
    validation: Validation, results: Sequence[_LandmarkResult], names: Sequence[str], lacking: Sequence[str]
) -> Validation:
    """Add the errors of landmarks, after those below their threshold have become absent."""
    thresholds = {name: _threshold(results, names.index(name)) for name in lacking}
    decided = [_decide(r, {name: DEFAULT_THRESHOLD if t is None else t for name, t in thresholds.items()}) for r in results]
    distances = [np.linalg.norm(r.predicted.points_mm - r.reference.points_mm, axis=1) for r in decided]
    errors = _means(distances) or [None] * len(names)
    if outside := {r.case: r.n_outside for r in results if r.n_outside}:
        log.warning(
            "note: %d landmarks lie outside their images and do not count: %s", sum(outside.values()), first_few(list(outside))
        )
    return replace(
        validation,
        mre=_mean(errors),
        landmark_mre=dict(zip(names, errors)),
        missed=sum(int(np.count_nonzero(r.reference.present & ~r.predicted.present)) for r in decided),
        extra=sum(int(np.count_nonzero((r.reference.state == State.ABSENT) & r.predicted.present)) for r in decided),
        thresholds=thresholds,
    )


def _predict_stored(
    model: Model, case: Case, stored: StoredCase, out: Path
) -> tuple[np.ndarray | None, np.ndarray | None, _LandmarkResult | None]:
    """Predicted and reference class indices, and the landmarks; None where the dataset or the case has none.

    A label map in `out` is from a validation that was interrupted and is not predicted again. Landmarks
    are, since their files do not hold the probability that they are present.
    """
    data = model.plan.data
    reference = read_label_map(case.label, data.labels) if data.labels.names and case.label else None
    map_file, point_file = output_path(out, case), landmarks_path(out, case)
    predicted, landmarks, presence = None, None, None
    if map_file.is_file() and not data.landmarks.names:
        predicted = read_label_map(map_file, data.labels).data
    else:
        with read_errors_of(stored, "validate"):
            image, previous = stored.read()[0], stored.previous_prediction()
        prediction = model.predict_prepared(image, stored.placement, True, previous=previous)
        predicted, landmarks, presence = prediction.labels, prediction.landmarks, prediction.presence
        if predicted is not None:
            grid = reference.grid if reference else stored.placement.source
            write_label_map(map_file, LabelMap(predicted, grid, data.labels), like=case.label or case.images[0])
    values = None if reference is None else reference.data
    if landmarks is None or presence is None:
        return predicted, values, None
    outside = (stored.state == State.PRESENT) & ~stored.inside
    points = np.where(outside[:, None], np.nan, stored.placement.to_world(stored.points))
    result = _LandmarkResult(
        path=point_file,
        case=case.name,
        pixels=not has_geometry(case.images[0]),
        reference=Landmarks(data.landmarks.names, points, np.where(outside, State.UNLABELLED, stored.state)),
        predicted=landmarks,
        presence=presence,
        n_outside=int(outside.sum()),
    )
    result.write()
    return predicted, values, result


def _threshold(results: Sequence[_LandmarkResult], i: int) -> float | None:
    """Threshold on the presence probability of landmark `i`, or None if the cases cannot tell."""
    annotated = [r for r in results if r.reference.state[i] != State.UNLABELLED]
    presence, present = [r.presence[i] for r in annotated], [bool(r.reference.present[i]) for r in annotated]
    return choose_threshold(np.array(presence), np.array(present))


def _decide(result: _LandmarkResult, thresholds: dict[str, float]) -> _LandmarkResult:
    """Make landmarks absent that are less probable than their threshold, in the file, too."""
    predicted = result.predicted
    least = np.array([thresholds.get(name, 0.0) for name in predicted.names])
    present = predicted.present & (result.presence >= least)
    if np.array_equal(present, predicted.present):
        return result
    points = np.where(present[:, None], predicted.points_mm, np.nan)
    state = np.where(present, State.PRESENT, State.ABSENT)
    decided = replace(result, predicted=replace(predicted, points_mm=points, state=state))
    decided.write()
    return decided


def _means(errors: Sequence[np.ndarray]) -> list[float | None]:
    """For each landmark the mean over the cases in which its error is known (not NaN)."""
    columns = np.stack(errors).T if errors else ()
    return [_mean(None if np.isnan(e) else float(e) for e in column) for column in columns]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None
