"""Planner rules of plugins: they change configurations, say so, and are refused where they go wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.plugins import RULE, no_plugins, write_plugin

from autoseg.errors import PlanError, UsageError
from autoseg.fingerprint.dataset import Fingerprint, load_fingerprint
from autoseg.plan import Plan
from autoseg.plan.plugins import load_plugin
from autoseg.planner.make_plan import Budget, make_plan
from autoseg.planner.rules import rule_plugins

SHIPPED = Path(__file__).resolve().parents[2] / "plans" / "Task04_Hippocampus.fingerprint.json"


@pytest.fixture(autouse=True)
def _no_plugins() -> Iterator[None]:
    with no_plugins():
        yield


@pytest.fixture(scope="module")
def fingerprint() -> Fingerprint:
    return load_fingerprint(SHIPPED)


def planned_with(fingerprint: Fingerprint, folder: Path, text: str) -> Plan:
    load_plugin(write_plugin(folder, text))
    return make_plan(fingerprint, Budget("cpu", 8))


def rule(body: str) -> str:
    return f"""
from dataclasses import replace
import autoseg

@autoseg.register("planner_rule", "my_rule")
def rule(c, fingerprint, budget):
    {body}
"""


def test_a_rule_changes_every_configuration_and_is_the_reason(fingerprint: Fingerprint, tmp_path: Path) -> None:
    plain = make_plan(fingerprint, Budget("cpu", 8))
    plan = planned_with(fingerprint, tmp_path, RULE)
    (plugin,) = rule_plugins()
    assert set(plan.configurations) == set(plain.configurations)
    for name, c in plan.configurations.items():
        assert c.training.steps_per_epoch == len(fingerprint.cases)
        assert c.why["training.steps_per_epoch"] == "set by the planner rule my_rule of my_plugin.py; planned before: 250"
        assert c.why["plugins.my_plugin.py"] == f"planner_rule my_rule; sha256 {plugin.record.sha256}"
        assert c.footprint == plain.configurations[name].footprint
        assert c.why["postprocess"] == plain.configurations[name].why["postprocess"]


def test_without_the_plugin_the_rule_is_gone(fingerprint: Fingerprint, tmp_path: Path) -> None:
    plain = make_plan(fingerprint, Budget("cpu", 8))
    planned_with(fingerprint, tmp_path, RULE)
    with no_plugins():
        assert rule_plugins() == ()
        assert make_plan(fingerprint, Budget("cpu", 8)) == plain


def test_a_rule_may_say_its_own_reason(fingerprint: Fingerprint, tmp_path: Path) -> None:
    text = rule('return replace(c, patch=replace(c.patch, batch_size=3), why=c.why | {"patch.batch_size": "three is enough"})')
    for c in planned_with(fingerprint, tmp_path, text).configurations.values():
        assert (c.patch.batch_size, c.why["patch.batch_size"]) == (3, "three is enough")
        assert c.footprint is None  # which was that of another batch
        assert not [key for key in c.why if key.startswith("footprint.")]


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        (
            "return c.traning",
            UsageError,
            r"'my_rule' fails; file: .*my_plugin\.py; found: line 7, rule: AttributeError",
        ),
        (
            "pass",
            UsageError,
            r"'my_rule' returns no configuration; file: .*; found: NoneType; allowed: the config",
        ),
        (
            "return replace(c, patch=replace(c.patch, batch_size=2.5))",
            PlanError,
            r"'patch\.batch_size' has the wrong type; file: .*my_plugin\.py; found: 2\.5; allowed: int",
        ),
        (
            "return replace(c, patch=replace(c.patch, batch_size=0))",
            PlanError,
            r"batch_size' cannot be used; file: the plan as changed by my_plugin\.py; found: 0; allowed: 1 or more",
        ),
    ],
)
def test_rules_that_go_wrong(fingerprint: Fingerprint, tmp_path: Path, body: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        planned_with(fingerprint, tmp_path, rule(body))


def test_what_a_rule_raises_on_purpose_is_passed_on(fingerprint: Fingerprint, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too few cases for me"):
        planned_with(fingerprint, tmp_path, rule('raise autoseg.UsageError("too few cases for me")'))
