from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autoseg.errors import PlanError
from autoseg.plan import Plan, Rung, load_plan, parse_plan
from autoseg.plan.ladder import TRAINING_SHARE, choose_rung, edited_rung, expected_dice
from autoseg.system.records import to_json

RUNG = Rung("3d_x2", (0.3, 0.3, 0.3), factor=2.0, ceiling=0.9, covered=1.0, cases=1.0)


@pytest.fixture(scope="module")
def plan() -> Plan:
    """A shipped plan with a ladder of several rungs."""
    return load_plan(Path(__file__).parents[2] / "plans" / "mouse_brain.plan.json")


def test_more_steps_teach_more_but_never_more_than_the_grid_holds() -> None:
    dice = [expected_dice(RUNG, steps, 4) for steps in (0, 10, 100, 1000, 10_000, 1e9)]
    assert dice[0] == 0
    assert dice == sorted(dice)
    assert dice[-1] == pytest.approx(RUNG.ceiling)


def test_a_training_that_sees_more_learns_more() -> None:
    assert expected_dice(replace(RUNG, cases=0.01), 500, 4) < expected_dice(RUNG, 500, 4)


def test_less_time_never_chooses_a_finer_grid(plan: Plan) -> None:
    order = [rung.configuration for rung in plan.ladder]
    assert len(order) > 2
    chosen = [choose_rung(plan.ladder, plan.configurations, 20.0 * 2**i, n_structures=4).rung.configuration for i in range(15)]
    positions = [order.index(name) for name in chosen]
    assert positions == sorted(positions, reverse=True)
    assert positions[0] > positions[-1]


def test_a_slower_machine_is_as_less_time(plan: Plan) -> None:
    slow, short = (choose_rung(plan.ladder, plan.configurations, s, n_structures=4, slowdown=f) for s, f in ((600, 4), (150, 1)))
    assert slow == short


def test_steps_are_those_that_the_time_holds(plan: Plan) -> None:
    name = plan.ladder[0].configuration
    footprint = plan.configurations[name].footprint
    assert footprint is not None
    assert (
        choose_rung(plan.ladder, plan.configurations, 600, n_structures=4).steps[name] == TRAINING_SHARE * 600 / footprint.step_s
    )
    training = plan.configurations[name].training
    assert (
        choose_rung(plan.ladder, plan.configurations, None, n_structures=4).steps[name]
        == training.epochs * training.steps_per_epoch
    )


def test_a_grid_that_was_edited_by_hand_is_found(plan: Plan) -> None:
    assert edited_rung(plan.ladder, plan.configurations, first="3d_fullres") is None
    name = plan.ladder[1].configuration
    c = plan.configurations[name]
    by_hand = replace(c, space=replace(c.space, spacing_mm=(0.2, 0.2, 0.2)))
    edited = {**plan.configurations, name: by_hand}
    assert edited_rung(plan.ladder, edited, first="3d_fullres") == name
    both = {**edited, "3d_fullres": replace(plan.configurations["3d_fullres"], space=by_hand.space)}
    assert edited_rung(plan.ladder, both, first=name) == name
    assert edited_rung(plan.ladder, both, first="2d") == "3d_fullres"


def test_a_rung_of_unknown_pace_is_left_out(plan: Plan) -> None:
    """Its footprint is gone, since a patch or a network was edited by hand."""
    name = plan.ladder[0].configuration
    unknown = {**plan.configurations, name: replace(plan.configurations[name], footprint=None)}
    choice = choose_rung(plan.ladder, unknown, 1e6, n_structures=4)
    assert choice.rung == plan.ladder[1]
    assert name not in choice.expected
    assert "--" in str(replace(plan, configurations=unknown)).split("ladder:")[1].split("data")[0]
    none_known = {key: replace(c, footprint=None) for key, c in plan.configurations.items()}
    assert choose_rung(plan.ladder, none_known, 60.0, n_structures=4).rung == plan.ladder[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"configuration": "3d_x9"}, r"'ladder\[0\].configuration' names no configuration.*found: 3d_x9"),
        ({"ceiling": 1.5}, r"'ladder\[0\].ceiling' cannot be used.*found: 1.5; allowed: 0…1"),
        ({"covered": 0.0}, r"'ladder\[0\].covered'"),
        ({"cases": -1.0}, r"'ladder\[0\].cases'"),
        ({"factor": 0.5}, r"'ladder\[0\].factor'"),
    ],
)
def test_a_ladder_that_cannot_be(plan: Plan, change: dict[str, object], message: str) -> None:
    broken = replace(plan, ladder=(replace(plan.ladder[0], **change), *plan.ladder[1:]))  # type: ignore[arg-type]
    with pytest.raises(PlanError, match=message):
        parse_plan(to_json(broken), "plan.json")


def test_a_plan_of_before_has_no_ladder(plan: Plan) -> None:
    text = to_json(plan).replace('"schema_version": 6', '"schema_version": 5')
    start, end = text.index('  "ladder": ['), text.index('  "origin": {')
    assert parse_plan(text[:start] + text[end:], "plan.json").ladder == ()


def test_the_ladder_stands_in_the_note(plan: Plan) -> None:
    lines = str(plan).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("ladder:"))
    table = lines[start + 1 : start + 2 + len(plan.ladder)]
    assert [line.split()[0] for line in table[1:]] == [rung.configuration for rung in plan.ladder]
    assert sum(line.count("*") for line in table[1:]) == 3  # one choice for each time
