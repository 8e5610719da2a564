"""Removing stray components from predictions, where the validation cases show that it helps.

The choice follows nnU-Net (Isensee et al., Nature Methods 2021): first the largest component of all structures
together, kept if the mean Dice rises and no structure's falls; then, on that result, the largest component of each structure,
kept for those whose Dice rises. All candidates are tried on a case while it is in memory, so one pass decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from autoseg.errors import DataError, LabelError, PlanError, nearest
from autoseg.evaluation.metrics import dice_per_structure
from autoseg.imaging.components import keep_largest
from autoseg.imaging.labels import LabelSet
from autoseg.plan import POSTPROCESS_RULES

MIN_GAIN = 1e-4
"""Smallest rise of a mean Dice that a rule is accepted for: the fourth decimal, the last that papers report. Less comes from
a few voxels in one case and says nothing about the next one, while a rule may cut off a true part in it."""


@dataclass(frozen=True)
class Rule:
    """Keep the largest component of all structures together, or of one `structure`.

    Raises:
        PlanError: unknown kind, or a structure where none belongs or none where one does.
    """

    kind: str
    structure: str | None = None

    def __post_init__(self) -> None:
        _check_kind(self.kind)
        if (self.kind == "largest_per_structure") != (self.structure is not None):
            raise PlanError(
                f"rule '{self.kind}' with the wrong structure",
                found=self.structure,
                allowed="a structure's name for largest_per_structure, none for largest_foreground",
            )


@dataclass(frozen=True)
class RuleEvidence:
    """What a rule did to the validation cases, and so whether it was accepted.

    `dice_before` and `dice_after` are means over the cases: of the structure, or averaged over structures. None where
    no case has the structure, in the reference or predicted.
    """

    rule: Rule
    dice_before: float | None
    dice_after: float | None
    accepted: bool
    why: str


def apply_rules(indices: np.ndarray, rules: Sequence[Rule], labels: LabelSet) -> np.ndarray:
    """A (Z, Y, X) map of class indices with the rules applied in order; removed voxels become background.

    Raises:
        LabelError: a rule names a structure that `labels` does not have.
    """
    cleaned = indices.copy()
    for rule in rules:
        if rule.structure is None:
            _keep_largest_foreground(cleaned, labels)
        elif rule.structure in labels.names:
            _keep_largest_of(cleaned, [labels.names.index(rule.structure) + 1])
        else:
            raise LabelError(
                f"a postprocessing rule names an unknown structure{nearest(rule.structure, labels.names)}",
                found=rule.structure,
                allowed=", ".join(labels.names),
            )
    return cleaned


class RuleChooser:
    """Finds the rules that raise the Dice of the cases that are added one after another; keeps none of them in memory.

    Args:
        candidates: kinds of rule to try, of `plan.POSTPROCESS_RULES`.

    Raises:
        PlanError: an unknown kind.
    """

    def __init__(self, labels: LabelSet, candidates: Sequence[str]) -> None:
        for kind in candidates:
            _check_kind(kind)
        self._labels, self._candidates = labels, candidates
        self._scores: list[list[tuple[float | None, ...]]] = []

    def add(self, prediction: np.ndarray, reference: np.ndarray) -> None:
        """Try all candidates on a case.

        Args:
            prediction, reference: maps of class indices (Z, Y, X).

        Raises:
            GeometryError, LabelError: see `metrics.dice_per_structure`.
        """
        self._scores.append(_try_rules(prediction, reference, self._labels))

    def evidence(self) -> tuple[RuleEvidence, ...]:
        """What speaks for and against each candidate, in the order to apply them.

        Raises:
            DataError: no case was added.
        """
        if not self._scores:
            raise DataError("postprocessing is chosen on validation cases, and there is none")
        labels, candidates = self._labels, self._candidates
        means = _mean_over_cases(np.array(self._scores, dtype=np.float64))
        evidence: list[RuleEvidence] = []
        merged = False
        if "largest_foreground" in candidates:
            evidence.append(_judge_foreground(means["plain", False], means["plain", True], labels))
            merged = evidence[0].accepted
        # with one structure both kinds are the same rule
        if "largest_per_structure" in candidates and not (len(labels.names) == 1 and evidence):
            before, after = means["plain", merged], means["each", merged]
            evidence += [_judge_structure(name, *dice) for name, *dice in zip(labels.names, before, after)]
        return tuple(evidence)


def accepted_rules(evidence: Sequence[RuleEvidence]) -> tuple[Rule, ...]:
    """The rules that were accepted, in the order to apply them."""
    return tuple(e.rule for e in evidence if e.accepted)


def _try_rules(prediction: np.ndarray, reference: np.ndarray, labels: LabelSet) -> list[tuple[float | None, ...]]:
    """Dice of every structure, four times: as predicted, each structure cleaned, foreground cleaned, both.

    Rules for single structures do not touch one another's voxels, so trying all at once tells what each does alone.
    """
    cleaned = prediction.copy()
    _keep_largest_foreground(cleaned, labels)
    rows = []
    for plain in (prediction, cleaned):
        each = plain.copy()
        _keep_largest_of(each, range(1, labels.n_classes))
        rows += [dice_per_structure(reference, i, labels.n_classes, labels.ignore_index) for i in (plain, each)]
    return rows


def _mean_over_cases(scores: np.ndarray) -> dict[tuple[str, bool], list[float | None]]:
    """(N, 4, K) Dice with NaN where undefined to the means of each structure, by (what is cleaned, foreground cleaned too)."""
    defined = ~np.isnan(scores)
    counts = defined.sum(axis=0)
    sums = np.where(defined, scores, 0).sum(axis=0)
    means = [[float(s / n) if n else None for s, n in zip(*row)] for row in zip(sums, counts)]
    return dict(zip((("plain", False), ("each", False), ("plain", True), ("each", True)), means))


def _judge_foreground(before: Sequence[float | None], after: Sequence[float | None], labels: LabelSet) -> RuleEvidence:
    old, new = _mean(before), _mean(after)
    pairs = zip(labels.names, before, after)
    fell = [f"{n} from {b:.4f} to {a:.4f}" for n, b, a in pairs if a is not None and b is not None and a < b]
    if fell:
        accepted, why = False, f"Dice of {', '.join(fell)}"
    else:
        accepted, why = _gain(old, new)
    return RuleEvidence(Rule("largest_foreground"), old, new, accepted, why)


def _judge_structure(name: str, before: float | None, after: float | None) -> RuleEvidence:
    return RuleEvidence(Rule("largest_per_structure", name), before, after, *_gain(before, after))


def _gain(before: float | None, after: float | None) -> tuple[bool, str]:
    """Whether the rise is worth a rule, and the sentence that says so."""
    if before is None:
        return False, "neither annotated nor predicted in any case"
    if after is None:
        return True, f"Dice {before:.4f}: only false positives, and all of them are removed"
    gain = after - before
    accepted = gain >= MIN_GAIN
    return accepted, f"mean Dice changes by {gain:+.5f}, {'at least' if accepted else 'less than'} {MIN_GAIN:g}"


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [v for v in values if v is not None]
    return float(np.mean(defined)) if defined else None


def _keep_largest_foreground(indices: np.ndarray, labels: LabelSet) -> None:
    """In place. Only structures are foreground, voxels with the ignore index stay as they are."""
    foreground = (indices != 0) & (indices != labels.ignore_index)
    indices[foreground & ~keep_largest(foreground)] = 0


def _keep_largest_of(indices: np.ndarray, structures: Iterable[int]) -> None:
    """In place, for each of the class indices `structures`."""
    chosen = list(structures)
    boxes = ndimage.find_objects(indices, max(chosen))
    for index in chosen:
        if (box := boxes[index - 1]) is not None:
            view = indices[box]
            mask = view == index
            view[mask & ~keep_largest(mask)] = 0


def _check_kind(kind: str) -> None:
    if kind not in POSTPROCESS_RULES:
        raise PlanError(
            f"unknown postprocessing rule{nearest(kind, POSTPROCESS_RULES)}", found=kind, allowed=", ".join(POSTPROCESS_RULES)
        )
