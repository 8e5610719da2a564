"""Component rules: by hand, against choosing step by step over stored volumes, and what holds for any label map."""

from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from autoseg.errors import DataError, LabelError, PlanError
from autoseg.evaluation.metrics import dice_per_structure
from autoseg.imaging.labels import LabelSet
from autoseg.io import read_label_map
from autoseg.plan import POSTPROCESS_RULES
from autoseg.postprocessing.component_rules import MIN_GAIN, Rule, RuleChooser, RuleEvidence, accepted_rules, apply_rules
from autoseg.system.records import from_json, to_json

TWO = LabelSet(("a", "b"), (1, 2))
ONE = LabelSet(("a",), (1,))
MERGED, OF_A, OF_B = Rule("largest_foreground"), Rule("largest_per_structure", "a"), Rule("largest_per_structure", "b")
MAPS = arrays(np.uint8, (3, 4, 5), elements=st.sampled_from([0, 0, 0, 1, 2]))


def row(*values: int) -> np.ndarray:
    return np.array([[values]], dtype=np.uint8)


def choose_rules(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]], labels: LabelSet, candidates: Sequence[str]
) -> tuple[tuple[Rule, ...], tuple[RuleEvidence, ...]]:
    chooser = RuleChooser(labels, candidates)
    for prediction, reference in pairs:
        chooser.add(prediction, reference)
    evidence = chooser.evidence()
    return accepted_rules(evidence), evidence


def names(evidence: tuple[RuleEvidence, ...]) -> list[tuple[Rule, bool]]:
    return [(e.rule, e.accepted) for e in evidence]


# by hand


def test_rules_by_hand():
    indices = row(1, 0, 1, 1, 2, 0, 2)
    np.testing.assert_array_equal(apply_rules(indices, [MERGED], TWO), row(0, 0, 1, 1, 2, 0, 0))
    np.testing.assert_array_equal(apply_rules(indices, [OF_A], TWO), row(0, 0, 1, 1, 2, 0, 2))
    np.testing.assert_array_equal(apply_rules(indices, [OF_A, OF_B], TWO), row(0, 0, 1, 1, 2, 0, 0))
    np.testing.assert_array_equal(apply_rules(indices, [], TWO), indices)


def test_rules_apply_in_order():
    indices = row(1, 1, 1, 0, 2, 2, 1, 1)  # the largest piece of `a` does not belong to the largest foreground
    np.testing.assert_array_equal(apply_rules(indices, [MERGED, OF_A], TWO), row(0, 0, 0, 0, 2, 2, 1, 1))
    np.testing.assert_array_equal(apply_rules(indices, [OF_A, MERGED], TWO), row(1, 1, 1, 0, 0, 0, 0, 0))


def test_ignored_voxels_are_not_foreground():
    indices = row(1, 255, 255, 255, 0, 1, 1)
    np.testing.assert_array_equal(apply_rules(indices, [MERGED], ONE), row(0, 255, 255, 255, 0, 1, 1))


def test_a_stray_piece_is_removed():
    rules, evidence = choose_rules([(row(1, 0, 1, 1), row(0, 0, 1, 1))], ONE, POSTPROCESS_RULES)
    assert rules == (MERGED,)
    assert len(evidence) == 1  # with one structure the second rule would be the same
    assert (evidence[0].dice_before, evidence[0].dice_after) == (pytest.approx(0.8), 1.0)
    assert choose_rules([(row(1, 0, 1, 1), row(0, 0, 1, 1))], ONE, ["largest_per_structure"])[0] == (OF_A,)


def test_a_true_second_piece_forbids_the_foreground_rule():
    pair = row(1, 0, 0, 2, 2, 0, 2), row(1, 0, 0, 2, 2, 0, 0)
    rules, evidence = choose_rules([pair], TWO, POSTPROCESS_RULES)
    assert names(evidence) == [(MERGED, False), (OF_A, False), (OF_B, True)]
    assert rules == (OF_B,)
    assert evidence[0].why == "Dice of a from 1.0000 to 0.0000"
    assert evidence[2].dice_before == pytest.approx(0.8)


def test_structures_are_judged_on_what_the_foreground_rule_leaves():
    # cleaning the foreground takes the large false piece of `a`; before that, cleaning `a` alone would keep just this piece
    pair = row(1, 1, 1, 0, 2, 2, 2, 1, 1), row(0, 0, 0, 0, 2, 2, 2, 1, 1)
    rules, evidence = choose_rules([pair], TWO, POSTPROCESS_RULES)
    assert rules == (MERGED,)
    assert evidence[1].dice_before == evidence[1].dice_after == 1.0
    alone = choose_rules([pair], TWO, ["largest_per_structure"])[1]
    assert (alone[0].dice_before, alone[0].dice_after) == (pytest.approx(4 / 7), 0.0)


def test_false_positives_that_vanish_altogether_count_as_a_gain():
    pair = row(1, 1, 1, 0, 2), row(1, 1, 1, 0, 0)
    rules, evidence = choose_rules([pair], TWO, POSTPROCESS_RULES)
    assert rules == (MERGED,)
    assert (evidence[0].dice_before, evidence[0].dice_after) == (0.5, 1.0)
    assert evidence[2] == RuleEvidence(OF_B, None, None, False, "neither annotated nor predicted in any case")


def test_nothing_to_gain_means_no_rule():
    rules, evidence = choose_rules([(row(1, 1, 2), row(1, 1, 2))], TWO, POSTPROCESS_RULES)
    assert rules == ()
    assert [e.why for e in evidence] == ["mean Dice changes by +0.00000, less than 0.0001"] * 3
    assert choose_rules([(row(0, 0), row(0, 0))], TWO, POSTPROCESS_RULES)[0] == ()
    assert choose_rules([(row(1, 0, 1), row(1, 1, 1))], TWO, [])[1] == ()


def test_a_gain_too_small_to_mean_anything_chooses_nothing():
    reference = np.zeros((20, 40, 40), dtype=np.uint8)
    reference[:, :20] = 1
    prediction = reference.copy()
    prediction[0, 39, 0] = 1
    rules, evidence = choose_rules([(prediction, reference)], ONE, POSTPROCESS_RULES)
    assert 0 < evidence[0].dice_after - evidence[0].dice_before < MIN_GAIN
    assert rules == ()


def test_pairs_are_read_once():
    pairs = ((row(1, 0, 1, 1), row(0, 0, 1, 1)) for _ in range(3))
    assert choose_rules(pairs, ONE, POSTPROCESS_RULES)[0] == (MERGED,)


def test_rules_and_evidence_survive_json():
    rules, evidence = choose_rules([(row(1, 0, 0, 2, 2, 0, 2), row(1, 0, 0, 2, 2, 0, 0))], TWO, POSTPROCESS_RULES)
    assert from_json(tuple[Rule, ...], to_json(rules), "rules") == rules
    assert from_json(tuple[RuleEvidence, ...], to_json(evidence), "evidence") == evidence


def test_errors():
    with pytest.raises(PlanError, match="unknown postprocessing rule - did you mean 'largest_foreground'"):
        Rule("largest_foregound")
    with pytest.raises(PlanError, match="unknown postprocessing rule"):
        choose_rules([], TWO, ["smooth"])
    with pytest.raises(PlanError, match="rule 'largest_per_structure' with the wrong structure"):
        Rule("largest_per_structure")
    with pytest.raises(PlanError, match="rule 'largest_foreground' with the wrong structure; found: a"):
        Rule("largest_foreground", "a")
    with pytest.raises(LabelError, match="names an unknown structure; found: c; allowed: a, b"):
        apply_rules(row(1), [Rule("largest_per_structure", "c")], TWO)
    with pytest.raises(DataError, match="chosen on validation cases, and there is none"):
        choose_rules([], TWO, POSTPROCESS_RULES)


# oracle: the same decisions, each made on volumes rewritten with everything accepted so far


def mean_dice(predictions, references, labels):
    table = [dice_per_structure(r, p, labels.n_classes, labels.ignore_index) for p, r in zip(predictions, references)]
    columns = [[v for v in column if v is not None] for column in zip(*table)]
    return [np.mean(c) if c else None for c in columns]


def step_by_step(pairs, labels):
    current, references = [p for p, _ in pairs], [r for _, r in pairs]
    accepted = []
    for rule in (MERGED, *(Rule("largest_per_structure", name) for name in labels.names)):
        trial = [apply_rules(p, [rule], labels) for p in current]
        before, after = mean_dice(current, references, labels), mean_dice(trial, references, labels)
        if rule == MERGED:
            fell = any(a is not None and b is not None and a < b for a, b in zip(after, before))
            old, new = ([v for v in side if v is not None] for side in (before, after))
            better = not fell and bool(old) and (not new or np.mean(new) - np.mean(old) >= MIN_GAIN)
        else:
            index = labels.names.index(rule.structure)
            better = before[index] is not None and after[index] - before[index] >= MIN_GAIN
        if better:
            accepted.append(rule)
            current = trial
    return tuple(accepted)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(MAPS, MAPS), min_size=1, max_size=3))
def test_agrees_with_choosing_step_by_step(pairs):
    assert choose_rules(pairs, TWO, POSTPROCESS_RULES)[0] == step_by_step(pairs, TWO)


@settings(max_examples=25, deadline=None)
@given(MAPS)
def test_predictions_that_only_have_stray_pieces_are_restored(reference):
    whole = apply_rules(reference, [OF_A, OF_B], TWO)
    assert choose_rules([(whole, whole)], TWO, ["largest_per_structure"])[0] == ()
    rules, _ = choose_rules([(reference, whole)], TWO, ["largest_per_structure"])
    np.testing.assert_array_equal(apply_rules(reference, rules, TWO), whole)


@settings(max_examples=25, deadline=None)
@given(MAPS)
def test_rules_only_remove_and_twice_is_once(indices):
    for rules in ([MERGED], [OF_A], [MERGED, OF_A, OF_B]):
        cleaned = apply_rules(indices, rules, TWO)
        assert np.all((cleaned == indices) | (cleaned == 0))
        np.testing.assert_array_equal(apply_rules(cleaned, rules, TWO), cleaned)


@pytest.mark.real
def test_real_specks_are_found_and_removed(real_data):
    folder = real_data("Task04_Hippocampus") / "labelsTr"
    labels = LabelSet(("anterior", "posterior"), (1, 2))
    references = [read_label_map(p, labels).data for p in sorted(folder.glob("hippocampus_*.nii.gz"))[:5]]
    pairs = []
    for reference in references:
        dirty = reference.copy()
        dirty[:2, :6, :6] = 2
        assert not ndimage.binary_dilation(reference > 0, np.ones((3, 3, 3)))[:2, :6, :6].any()
        pairs.append((dirty, reference))
    rules, evidence = choose_rules(pairs, labels, POSTPROCESS_RULES)
    assert rules[0] == MERGED
    assert evidence[0].dice_after > 0.999 > evidence[0].dice_before
    for dirty, reference in pairs:
        assert np.count_nonzero(apply_rules(dirty, rules, labels) != reference) <= 2
