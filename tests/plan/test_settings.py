"""Values that a user sets by their keys: found, written with their origin, refused where they cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.plugins import BLOCK, LOSS, no_plugins, write_plugin
from test_plan import FINE, FLAT, PLAN

from autoseg.errors import UsageError
from autoseg.plan.edits import BY_HAND, SET, apply_edits, find_edits
from autoseg.plan.plugin_names import COST
from autoseg.plan.plugins import load_plugin
from autoseg.plan.settings import apply_run_settings, apply_settings, parse_settings, run_settings


@pytest.fixture(autouse=True)
def _no_plugins() -> Iterator[None]:
    with no_plugins():
        yield


def test_values_are_json_or_words() -> None:
    texts = ["a.b=3", "c = dice", "d=[1, 2]", "e=null", "f=true", 'g="3"', "h=x=y", "i="]
    assert parse_settings(texts) == {"a.b": 3, "c": "dice", "d": [1, 2], "e": None, "f": True, "g": "3", "h": "x=y", "i": ""}


@pytest.mark.parametrize("text", ["training.loss", "=3", ""])
def test_texts_without_key_or_value(text: str) -> None:
    with pytest.raises(UsageError, match=rf"--set takes KEY=VALUE; found: {text}; allowed: a key as plan show prints it"):
        parse_settings([text])


def test_a_key_is_given_once() -> None:
    with pytest.raises(UsageError, match=r"--set gives 'a' twice; found: 1 and 2"):
        parse_settings(["a=1", "a=2"])


def test_a_key_means_all_configurations_or_the_chosen_one() -> None:
    plan = apply_settings(PLAN, {"training.loss": "dice"}, "plan.json")
    assert [c.training.loss for c in plan.configurations.values()] == ["dice", "dice"]
    assert plan.configurations["2d"].why["training.loss"] == 'set on the command line; planned before: "dice_ce"'
    only = apply_settings(PLAN, {"training.loss": "dice"}, "plan.json", configuration="2d")
    assert (only.configurations["3d_fullres"], only.configurations["2d"].training.loss) == (FINE, "dice")
    assert apply_settings(PLAN, {"configurations.2d.training.loss": "dice"}, "plan.json") == only
    assert apply_settings(PLAN, {}, "plan.json") is PLAN


@pytest.mark.parametrize("key", ["data.channels[0].normalization", "data.channels.0.normalization"])
def test_values_of_the_whole_plan(key: str) -> None:
    plan = apply_settings(PLAN, {key: "zscore"}, "plan.json")
    assert plan.data.channels[0].normalization == "zscore"
    assert plan.why["data.channels[0].normalization"] == 'set on the command line; planned before: "ct"'


def test_lists_and_groups_may_be_set() -> None:
    plan = apply_settings(
        PLAN, {"training.mirror_axes": (1,), "patch": {**vars(FINE.patch), "batch_size": 5}}, "p", configuration="3d_fullres"
    )
    chosen = plan.configurations["3d_fullres"]
    assert (chosen.training.mirror_axes, chosen.patch) == ((1,), replace(FINE.patch, batch_size=5))
    assert chosen.footprint is None  # which was that of another batch


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "training.los",
            "dice",
            r"the plan has no key 'training\.los' - did you mean 'training\.loss'\?; allowed: the keys that plan",
        ),
        ("footprint.step_s", 1, r"the plan has no key 'footprint\.step_s'"),
        ("why", {}, r"the plan has no key 'why'"),
        ("configurations.2d", {}, r"the plan has no key 'configurations\.2d'"),
        ("origin.memory_gb", 80, r"the plan has no key 'origin\.memory_gb'"),
        (
            "training",
            3,
            r"the plan cannot be set so: 'configurations\.3d_fullres\.training' has the wrong type; file: plan\.json",
        ),
        (
            "patch.batch_size",
            "two",
            r"the plan cannot be set so: 'configurations\.3d_fullres\.patch\.batch_size' has the wrong type; file: plan\.json; "
            r'found: "two", with patch\.batch_size="two"; allowed: int',
        ),
        ("patch.batch_size", 0, r"batch_size' cannot be used; .*found: 0, with patch\.batch_size=0; allowed: 1 or more"),
        ("training.loss", "dicee", r"loss' is unknown - did you mean 'dice'\?; .*allowed: dice_ce, .*; fix: --plugin FILE"),
        ("default_configuration", "3d", r"'default_configuration' names no configuration"),
    ],
)
def test_settings_that_cannot_be(key: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        apply_settings(PLAN, {key: value}, "plan.json")


def test_settings_are_carried_over_like_edits_and_keep_their_origin() -> None:
    edited = apply_settings(PLAN, {"training.epochs": 7}, "plan.json", configuration="2d")
    edited = replace(edited, configurations={**edited.configurations, "3d_fullres": replace(FINE, postprocess=())})
    edits = find_edits(PLAN, edited)
    assert [(edit.key[1], edit.origin) for edit in edits] == [("3d_fullres", BY_HAND), ("2d", SET)]
    new = apply_edits(PLAN, edits, "plan.json")[0]
    assert new.configurations["2d"].training.epochs == 7
    assert new.configurations["2d"].why["training.epochs"].startswith("set on the command line; planned before: ")
    assert new.configurations["3d_fullres"].why["postprocess"].startswith("set by hand; planned before: ")


def test_what_is_set_again_still_tells_what_was_planned() -> None:
    once = apply_settings(PLAN, {"training.epochs": 7}, "plan.json")
    twice = apply_settings(once, {"training.epochs": 8}, "plan.json")
    assert twice.configurations["2d"].training.epochs == 8
    assert twice.configurations["2d"].why == once.configurations["2d"].why


def test_for_a_run_only_what_its_prepared_cases_allow() -> None:
    plan = apply_run_settings(PLAN, {"training.epochs": 7, "inference.overlap": 0.25}, "plan.json", "2d")
    chosen = plan.configurations["2d"]
    assert chosen.why["training.epochs"].startswith("set on the command line for this run; planned before: ")
    assert plan.configurations["3d_fullres"] == FINE
    assert run_settings(chosen) == {"training.epochs": 7, "inference.overlap": 0.25}
    assert run_settings(FLAT) == {}
    assert apply_run_settings(PLAN, run_settings(chosen), "plan.json", "2d") == plan


@pytest.mark.parametrize("key", ["space.spacing_mm", "data.unseen", "previous_stage", "configurations.2d.space.crop", "space"])
def test_what_needs_preparing_again_is_refused_for_a_run(key: str) -> None:
    message = (
        rf"'{key}' cannot be set for a single run: .*allowed: keys in patch.*fix: autoseg plan_and_preprocess --set {key}=VALUE"
    )
    with pytest.raises(UsageError, match=message.replace("[", r"\[")):
        apply_run_settings(PLAN, {key: 1}, "plan.json", "2d")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (
            "configurations.3d_fullres.training.loss",
            r"'configurations\.3d_fullres\.training\.loss' would change nothing: another configuration is trained; found: 2d; "
            r"fix: -c 3d_fullres, or training\.loss without the configuration's name",
        ),
        ("default_configuration", r"cannot be set for a single run; fix: autoseg plan --set default_configuration=VALUE"),
        ("ladder", r"cannot be set for a single run; fix: autoseg plan --set ladder=VALUE"),
    ],
)
def test_what_would_change_nothing_is_refused_for_a_run(key: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        apply_run_settings(PLAN, {key: "ce"}, "plan.json", "2d")
    full = {"configurations.2d.training.loss": "ce"}
    assert apply_run_settings(PLAN, full, "plan.json", "2d").configurations["2d"].training.loss == "ce"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({1: 2}, r"the plan cannot hold this for '1'; found: keys are texts, such as training\.loss, not int"),
        ({"patch.patch_size": {1, 2}}, r"the plan cannot hold this for 'patch\.patch_size'; found: Object of type set"),
    ],
)
def test_settings_of_other_types_than_json_has(settings: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        apply_settings(PLAN, settings, "plan.json")
    with pytest.raises(UsageError, match=message):
        apply_run_settings(PLAN, settings, "plan.json", "2d")


def test_settings_may_be_numbers_and_arrays_of_numpy() -> None:
    changed = apply_settings(
        PLAN, {"patch.batch_size": np.int64(3), "training.mirror_axes": np.array([1])}, "p", configuration="2d"
    )
    assert (changed.configurations["2d"].patch.batch_size, changed.configurations["2d"].training.mirror_axes) == (3, (1,))


def test_names_of_plugins_are_remembered(tmp_path: Path) -> None:
    record = load_plugin(write_plugin(tmp_path, LOSS + BLOCK))
    plan = apply_settings(PLAN, {"training.loss": "my_loss", "network.kind": "my_block"}, "plan.json")
    for c in plan.configurations.values():
        assert c.why["plugins.my_plugin.py"] == f"loss my_loss, block my_block; sha256 {record.sha256}"
        assert c.why["network.kind"].startswith("set on the command line; ")
        assert c.why["network.kind"].endswith(f"; {COST}")
        assert c.footprint is None


def test_values_that_cannot_be_set() -> None:
    for value in ("9" * 5000, "[" * 100_000):
        with pytest.raises(UsageError, match=r"^the value of 'training\.epochs' cannot be read; found: "):
            parse_settings([f"training.epochs={value}"])
