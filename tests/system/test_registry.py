"""A registry: names cost no import, additions are checked and can be taken back."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from helpers.limits import HANGS

from autoseg.errors import UsageError
from autoseg.system.registry import Registry


@pytest.fixture
def registry() -> Registry:
    return Registry("measure", ("first", "second"), {"hypot": "math:hypot", "none": None})


def add(first: float, second: float) -> float:
    return first + second


def test_built_in_objects_are_looked_up_where_they_are(registry: Registry) -> None:
    assert (registry.kind, registry.built_in, tuple(registry), len(registry)) == (
        "measure",
        ("hypot", "none"),
        ("hypot", "none"),
        2,
    )
    assert registry["hypot"] is math.hypot
    assert registry["none"] is None
    assert "hypot" in registry
    with pytest.raises(KeyError, match="hypo"):
        registry["hypo"]


def test_names_import_nothing() -> None:
    code = "import sys; from autoseg.system.registry import Registry; r = Registry('x', (), {'a': 'fractions:Fraction'})\n"
    code += "'a' in r, list(r), len(r), r.built_in\nprint('fractions' in sys.modules); r['a']; print('fractions' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=HANGS, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_added_objects_come_last_and_can_be_taken_back(registry: Registry) -> None:
    registry.add("plus", add)
    assert dict(registry) == {"hypot": math.hypot, "none": None, "plus": add}
    assert registry.built_in == ("hypot", "none")
    registry.remove("plus")
    registry.remove("hypot")
    registry.remove("never there")
    assert tuple(registry) == ("hypot", "none")


@pytest.mark.parametrize("name", ["hypot", "none", "plus"])
def test_a_name_is_given_once(registry: Registry, name: str) -> None:
    registry.add("plus", add)
    message = f"there is a measure '{name}' already; found: hypot, none, plus; fix: register it under another name"
    with pytest.raises(UsageError, match=message):
        registry.add(name, add)


@pytest.mark.parametrize("name", ["", "my loss", "my-loss", "1st", "a.b", 3])
def test_names_that_cannot_be_used(registry: Registry, name: str) -> None:
    with pytest.raises(UsageError, match=r"the name of a measure cannot be used; found: .*; allowed: letters, digits and _"):
        registry.add(name, add)


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        (3, "an object of type int"),
        (lambda first: first, r"one that takes \(first\)"),
        (lambda first, second, third: first, r"one that takes \(first, second, third\)"),
        (lambda *, first, second: first, r"one that takes \(\*, first, second\)"),
    ],
)
def test_objects_of_another_kind(registry: Registry, item: object, problem: str) -> None:
    message = f"the measure 'x' cannot be called as a measure is; found: {problem}; allowed: .* that takes \\(first, second\\)"
    with pytest.raises(UsageError, match=message):
        registry.add("x", item)
    assert "x" not in registry


def test_further_arguments_may_have_defaults(registry: Registry) -> None:
    registry.add("x", lambda first, second, third=1: first)
    registry.add("y", max)  # tells nobody what it takes
    assert tuple(registry)[2:] == ("x", "y")
