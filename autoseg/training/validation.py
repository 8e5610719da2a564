"""How good a model is on whole cases, and which component rules make it better."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
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
from autoseg.postprocessing.component_rules import Rule, RuleEvidence, choose_rules
from autoseg.postprocessing.presence_threshold import DEFAULT_THRESHOLD, choose_threshold
from autoseg.preprocessing.store import StoredCase
from autoseg.system.files import write_text
from autoseg.system.progress import Progress, duration, log
from autoseg.system.records import to_json
from autoseg.training.sampling import reading

Dice = tuple[float | None, ...]  # of each structure, None where neither side has it


@dataclass(frozen=True)
class CaseScores:
    """How good a model is on a few cases: the mean Dice over structures and cases, and the mean radial error of the landmarks,
    mm; None where nothing can be measured."""

    dice: float | None
    mre: float | None


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
class _Points:
    """The landmarks of a case: where they are, where they were found, the file that says so, the probability that each is there
    at all, and how many are not in the image, which count as unlabelled."""

    path: Path
    case: str
    pixels: bool
    truth: Landmarks
    found: Landmarks
    presence: np.ndarray
    outside: int

    def write(self) -> None:
        write_landmarks(self.path, self.found, self.case, self.pixels)


def case_scores(model: Model, cases: Sequence[StoredCase]) -> CaseScores:
    """Scores on whole prepared cases, predicted without mirroring.

    The error is that of the place where a landmark is found, whether or not it would count as present: saying nothing gains
    nothing. What lies outside the image cannot be found and does not count.
    """
    data = model.plan.data
    dice: list[Dice] = []
    errors: list[np.ndarray] = []
    for case in cases:
        with reading(case, "validate"):
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
    prepared: Path,
    before: Path | None,
    out: Path,
    candidates: Sequence[str],
    seconds: float = math.inf,
    each: float = 0.0,
    lacking: Sequence[str] = (),
) -> Validation:
    """Predicts cases on their own grids, with mirroring as planned, and compares with their label files and landmarks.

    Writes label maps and landmarks to `out`/validation and the evidence for each component rule to `out`/postprocess.json. The
    scores are those before any rule is applied. An interrupted validation continues, but with landmarks it begins anew.

    Args:
        prepared, before: folders of the prepared cases, and of what an earlier stage found, if there is one.
        candidates: component rules to try, of `plan.POSTPROCESS_RULES`.
        seconds: no case is begun that would not be finished by then.
        each: what a case is expected to take.
        lacking: landmarks that are absent in some case; the others always count as present. Those outside their image do not
            count at all.
    """
    labels = model.plan.data.labels
    if model.plan.data.landmarks.names:  # what an interrupted validation has left is not decided on
        for case in cases:
            landmarks_path(out / "validation", case).unlink(missing_ok=True)
    cases = sorted(cases, key=lambda case: case.label is None)  # should time be short, rules need at least one with a label map
    scores: list[Dice] = []
    points: list[_Points] = []
    n_cases = 0
    began = time.monotonic()

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        nonlocal n_cases
        with Progress("validate", len(cases), time_limit=seconds) as progress:
            for case in cases:
                elapsed = time.monotonic() - began
                if n_cases and elapsed + elapsed / n_cases > seconds:
                    log.warning(
                        "note: time for %d of %d validation cases only; a larger budget validates on more",
                        n_cases,
                        len(cases),
                    )
                    return
                predicted, reference, landmarks = _predict_stored(model, case, prepared, before, out / "validation")
                n_cases += 1
                points.extend([landmarks] if landmarks else [])
                if predicted is not None and reference is not None:
                    scores.append(dice_per_structure(reference, predicted, labels.n_classes, labels.ignore_index))
                    yield predicted, reference
                progress.advance(case.name)

    if cases and each > seconds:
        log.warning("note: no time to validate, a case would take %s; a larger budget leaves some", duration(each))
    rules: tuple[Rule, ...] = ()
    evidence: tuple[RuleEvidence, ...] = ()
    if cases and each <= seconds:
        if labels.names and any(case.label for case in cases):
            rules, evidence = choose_rules(pairs(), labels, candidates)
        else:
            for _ in pairs():
                pass
    write_text(out / "postprocess.json", to_json(evidence))
    means = [_mean(row[i] for row in scores) for i in range(len(labels.names))]
    dice = dict(zip(labels.names, means))
    names = model.plan.data.landmarks.names
    if not names:
        return Validation(n_cases, _mean(means), dice, rules)
    thresholds = {name: _threshold(points, names.index(name)) for name in lacking}
    decided = [_decide(p, {name: DEFAULT_THRESHOLD if t is None else t for name, t in thresholds.items()}) for p in points]
    errors = _means([np.linalg.norm(p.found.points_mm - p.truth.points_mm, axis=1) for p in decided]) or [None] * len(names)
    missed = sum(int(np.count_nonzero(p.truth.present & ~p.found.present)) for p in decided)
    extra = sum(int(np.count_nonzero((p.truth.state == State.ABSENT) & p.found.present)) for p in decided)
    if outside := {p.case: p.outside for p in points if p.outside}:
        log.warning(
            "note: %d landmarks lie outside their images and do not count: %s", sum(outside.values()), first_few(list(outside))
        )
    by_name = dict(zip(names, errors))
    return Validation(n_cases, _mean(means), dice, rules, _mean(errors), by_name, missed, extra, thresholds)


def _predict_stored(
    model: Model, case: Case, prepared: Path, before: Path | None, out: Path
) -> tuple[np.ndarray | None, np.ndarray | None, _Points | None]:
    """Predicted and reference class indices, and the landmarks; None where the dataset or the case has none.

    A label map that is there already is from a validation that was interrupted. Landmarks are found again, since their files do
    not hold the probability that they are there at all.
    """
    data = model.plan.data
    stored = StoredCase.open(prepared, case.name, before)
    reference = read_label_map(case.label, data.labels) if data.labels.names and case.label else None
    map_file, point_file = output_path(out, case), landmarks_path(out, case)
    predicted, found, presence = None, None, None
    if map_file.is_file() and not data.landmarks.names:
        predicted = read_label_map(map_file, data.labels).data
    else:
        with reading(stored, "validate"):
            image, previous = stored.read()[0], stored.previous_prediction()
        prediction = model.predict_prepared(image, stored.placement, True, previous=previous)
        predicted, found, presence = prediction.labels, prediction.landmarks, prediction.presence
        if predicted is not None:
            grid = reference.grid if reference else stored.placement.source
            write_label_map(map_file, LabelMap(predicted, grid, data.labels), like=case.label or case.images[0])
    values = None if reference is None else reference.data
    if found is None or presence is None:
        return predicted, values, None
    outside = (stored.state == State.PRESENT) & ~stored.inside
    places = np.where(outside[:, None], np.nan, stored.placement.to_world(stored.points))
    truth = Landmarks(data.landmarks.names, places, np.where(outside, State.UNLABELLED, stored.state))
    points = _Points(point_file, case.name, not has_geometry(case.images[0]), truth, found, presence, int(outside.sum()))
    points.write()
    return predicted, values, points


def _threshold(points: Sequence[_Points], i: int) -> float | None:
    """Of presence of landmark `i`."""
    known = [p for p in points if p.truth.state[i] != State.UNLABELLED]
    return choose_threshold(np.array([p.presence[i] for p in known]), np.array([bool(p.truth.present[i]) for p in known]))


def _decide(points: _Points, thresholds: dict[str, float]) -> _Points:
    """Landmarks that are less probable than their threshold become absent, in the file, too."""
    found = points.found
    least = np.array([thresholds.get(name, 0.0) for name in found.names])
    present = found.present & (points.presence >= least)
    if np.array_equal(present, found.present):
        return points
    places = np.where(present[:, None], found.points_mm, np.nan)
    decided = replace(points, found=replace(found, points_mm=places, state=np.where(present, State.PRESENT, State.ABSENT)))
    decided.write()
    return decided


def _means(errors: Sequence[np.ndarray]) -> list[float | None]:
    """For each landmark the mean over the cases in which its error is known (not NaN)."""
    columns = np.stack(errors).T if errors else ()
    return [_mean(None if np.isnan(e) else float(e) for e in column) for column in columns]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None
