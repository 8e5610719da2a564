"""How good a model is on whole cases, and which component rules make it better."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.dataset import Case, output_path
from autoseg.files import write_text
from autoseg.image import LabelMap
from autoseg.io import read_label_map, write_label_map
from autoseg.labels import LabelSet
from autoseg.metrics import dice_per_structure
from autoseg.model import Model
from autoseg.postprocess import Rule, choose_rules
from autoseg.progress import Progress, duration, log
from autoseg.records import to_json
from autoseg.sampling import reading
from autoseg.store import StoredCase

Scores = tuple[float | None, ...]  # Dice of each structure, None where neither side has it


@dataclass(frozen=True)
class Validation:
    """Mean Dice per structure over the cases, their mean, and the rules that raise it."""

    n_cases: int
    case_dice: float | None
    structure_dice: dict[str, float | None]
    rules: tuple[Rule, ...]


def case_dice(model: Model, cases: Sequence[StoredCase], labels: LabelSet) -> float | None:
    """Mean Dice over structures and whole prepared cases, predicted without mirroring."""
    scores: list[Scores] = []
    for case in cases:
        with reading(case, "validate"):
            (image, reference), previous = case.read(), case.previous()
        assert reference is not None
        predicted = model.logits(image, False, previous).argmax(0)
        scores.append(dice_per_structure(reference, predicted, labels.n_classes, labels.ignore_index))
    return _mean(value for row in scores for value in row)


def validate(
    model: Model,
    cases: Sequence[Case],
    prepared: Path,
    before: Path | None,
    out: Path,
    candidates: Sequence[str],
    seconds: float = math.inf,
    each: float = 0.0,
) -> Validation:
    """Predicts cases on their own grids, with mirroring as planned, and compares with their label files.

    Writes the label maps to `out`/validation and the evidence for each component rule to `out`/postprocess.json. The scores
    are those before any rule is applied. An interrupted validation continues.

    Args:
        prepared, before: folders of the prepared cases, and of an earlier stage's label maps if there is one.
        candidates: component rules to try, of `plan.POSTPROCESS_RULES`.
        seconds: no case is begun that would not be finished by then.
        each: what a case is expected to take.
    """
    labels = model.plan.data.labels
    scores: list[Scores] = []
    began = time.monotonic()

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        with Progress("validate", len(cases)) as progress:
            for case in cases:
                elapsed = time.monotonic() - began
                if scores and elapsed + elapsed / len(scores) > seconds:
                    log.warning(
                        "note: time for %d of %d validation cases only; a larger --time validates on more",
                        len(scores),
                        len(cases),
                    )
                    return
                predicted, reference = _predict_stored(model, case, prepared, before, out / "validation")
                scores.append(dice_per_structure(reference, predicted, labels.n_classes, labels.ignore_index))
                yield predicted, reference
                progress.advance(case.name)

    if cases and each > seconds:
        log.warning("note: no time to validate, a case would take %s; a larger --time validates", duration(each))
    possible = cases and each <= seconds
    rules, evidence = choose_rules(pairs(), labels, candidates) if possible else ((), ())
    write_text(out / "postprocess.json", to_json(evidence))
    means = [_mean(row[i] for row in scores) for i in range(len(labels.names))]
    return Validation(len(scores), _mean(means), dict(zip(labels.names, means)), rules)


def _predict_stored(model: Model, case: Case, prepared: Path, before: Path | None, out: Path) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and reference class indices; a label map that is there already is from a validation that was interrupted."""
    labels = model.plan.data.labels
    assert case.label is not None
    reference = read_label_map(case.label, labels)
    target = output_path(out, case)
    if target.is_file():
        return read_label_map(target, labels).data, reference.data
    stored = StoredCase.open(prepared, case.name, before)
    with reading(stored, "validate"):
        image, previous = stored.read()[0], stored.previous()
    predicted, _ = model.segment(image, stored.placement, True, previous)
    write_label_map(target, LabelMap(predicted, reference.grid, labels), like=case.label)
    return predicted, reference.data


def _mean(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None
