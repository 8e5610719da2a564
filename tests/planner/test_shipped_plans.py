"""The plans that are shipped: made again from their fingerprints they are the same to the letter."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from jsonschema import Draft202012Validator

from autoseg.plan import Plan, load_plan
from autoseg.system.records import json_schema, to_json

FOLDER = Path(__file__).resolve().parents[2] / "plans"
NAMES = sorted(path.name.removesuffix(".fingerprint.json") for path in FOLDER.glob("*.fingerprint.json"))
REASON = "if the planner is meant to decide otherwise now: python plans/make.py, and say why in the commit"


@pytest.fixture(scope="module")
def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_plans", FOLDER / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_plan_has_a_fingerprint_and_a_description() -> None:
    assert len(NAMES) >= 11
    for ending in (".plan.json", ".md"):
        assert sorted(path.name.removesuffix(ending) for path in FOLDER.glob(f"*{ending}")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_planning_again_gives_the_same_text(name: str, make: ModuleType) -> None:
    stored = (FOLDER / f"{name}.plan.json").read_text(encoding="utf-8")
    assert to_json(make.plan(FOLDER / f"{name}.fingerprint.json")) == stored, REASON


@pytest.mark.parametrize("name", NAMES)
def test_plans_are_valid(name: str) -> None:
    path = FOLDER / f"{name}.plan.json"
    assert load_plan(path).name == name
    schema = json.loads((FOLDER / "plan.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator(schema).validate(json.loads(path.read_text(encoding="utf-8")))


def test_the_schema_is_up_to_date() -> None:
    assert (FOLDER / "plan.schema.json").read_text(encoding="utf-8") == to_json(json_schema(Plan)), REASON


@pytest.mark.real
@pytest.mark.parametrize("name", [n for n in NAMES if not n.startswith("Task")])
def test_fingerprints_are_what_the_data_say(name: str, make: ModuleType, real_data: Callable[[str], Path]) -> None:
    assert make.compact(make.take(real_data(name))) == (FOLDER / f"{name}.fingerprint.json").read_text(encoding="utf-8")
