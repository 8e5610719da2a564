"""Plugins: loaded when named, refused with file and line, remembered by plans; and every built-in object behind its name."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.plugins import AUGMENTATION, BLOCK, LOSS, RULE, no_plugins, write_plugin
from test_plan import FINE, PLAN

import autoseg
from autoseg.errors import PlanError, UsageError
from autoseg.plan import Configuration, Plan, load_plan, parse_plan, save_plan
from autoseg.plan.plugin_names import (
    check_plugins,
    plugin_names,
    remember_plugins,
    remembered_plugins,
    require_plugins,
    used_plugins,
)
from autoseg.plan.plugins import PluginRecord, load_plugin, plugin_of, register
from autoseg.plan.registries import AUGMENTATIONS, BLOCKS, LOSSES, PLANNER_RULES, REGISTRIES
from autoseg.plan.text import plan_text
from autoseg.system.records import json_schema, to_json

BUILT_IN = [(registry, name) for registry in REGISTRIES.values() for name in registry.built_in]


@pytest.fixture(autouse=True)
def _no_plugins() -> Iterator[None]:
    with no_plugins():
        yield


def naming(**words: str) -> Configuration:
    """3d_fullres with other names in it."""
    network = replace(FINE.network, kind=words.get("block", FINE.network.kind))
    loss, augmentation = words.get("loss", FINE.training.loss), words.get("augmentation", FINE.training.augmentation)
    return replace(FINE, network=network, training=replace(FINE.training, loss=loss, augmentation=augmentation))


def with_configuration(configuration: Configuration) -> Plan:
    return replace(PLAN, configurations={**PLAN.configurations, "3d_fullres": configuration})


@pytest.mark.parametrize(("registry", "name"), BUILT_IN, ids=[f"{r.kind} {n}" for r, n in BUILT_IN])
def test_every_built_in_name_leads_to_an_object_of_its_kind(registry: autoseg.system.registry.Registry, name: str) -> None:
    item = registry[name]
    assert item is not None or registry is AUGMENTATIONS  # the sampler itself knows `default` and `none`
    assert item is None or registry._misfit(item) is None


def test_a_plugin_registers_what_it_defines(tmp_path: Path) -> None:
    path = write_plugin(tmp_path, LOSS + AUGMENTATION)
    record = load_plugin(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert record == PluginRecord("my_plugin.py", digest, ("loss my_loss", "augmentation my_aug"))
    assert str(record) == f"my_plugin.py (sha256 {digest})"
    assert LOSSES["my_loss"].__name__ == "my_loss"
    assert AUGMENTATIONS["my_aug"].__name__ == "brighter"
    plugin = plugin_of("loss my_loss")
    assert plugin is not None
    assert (plugin.record, plugin.path, plugin.source) == (record, path, path.read_bytes())
    assert plugin_of("loss dice") is None


def test_a_plugin_is_run_once(tmp_path: Path) -> None:
    path = write_plugin(tmp_path, LOSS)
    assert load_plugin(str(path)) == load_plugin(path)
    path.write_text(LOSS + "\n# other\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"the plugin has changed since it was loaded; file: .*; fix: start Python anew"):
        load_plugin(path)
    (tmp_path / "other").mkdir()
    with pytest.raises(UsageError, match=r"two plugins have the same file name; file: .*other.*; fix: rename one of them"):
        load_plugin(write_plugin(tmp_path / "other", RULE))


def test_a_dataclass_in_a_plugin_finds_its_module(tmp_path: Path) -> None:
    text = "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    n: int = 1\n"
    load_plugin(write_plugin(tmp_path, text + LOSS))
    assert sys.modules["autoseg_plugin_my_plugin"].A().n == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = (\n", r"cannot be imported; file: .*my_plugin\.py; found: line 1: SyntaxError: '\(' was never closed.*; fix: mend"),
        (
            "\nimport no_such_module\n",
            r"cannot be imported.*found: line 2: ModuleNotFoundError: No module named 'no_such_module'",
        ),
        ("def f():\n    1 / 0\n\nf()\n", r"cannot be imported.*found: line 2, f: ZeroDivisionError"),
        ("raise SystemExit(0)\n", r"cannot be imported.*found: line 1: SystemExit: 0"),
        ("x = 1\n", r"the plugin registers nothing; file: .*my_plugin\.py; fix: @autoseg\.register\("),
        (
            LOSS.replace("my_loss", "dice"),
            r"there is a loss 'dice' already; file: .*my_plugin\.py; found: dice_ce.*; fix: register",
        ),
        (LOSS + LOSS, r"there is a loss 'my_loss' already; file: .*my_plugin\.py"),
        (
            LOSS.replace('"loss"', '"lose"'),
            r"nothing of this kind can be registered - did you mean 'loss'\?; .*found: 'lose'; allowed",
        ),
        (LOSS.replace('"loss"', "3"), r"nothing of this kind can be registered; .*found: 3; allowed: loss, block"),
        (
            LOSS.replace(", batch_dice", ""),
            r"cannot be called as a loss is; .*found: one that takes \(logits, target, ignore_index\)",
        ),
        (LOSS.replace('"my_loss"', '"my loss"'), r"the name of a loss cannot be used; file: .*; found: 'my loss'"),
    ],
)
def test_bad_plugins_are_named_and_leave_nothing(tmp_path: Path, text: str, message: str) -> None:
    before = {kind: tuple(registry) for kind, registry in REGISTRIES.items()}
    path = write_plugin(tmp_path, text)
    with pytest.raises(UsageError, match=message):
        load_plugin(path)
    assert {kind: tuple(registry) for kind, registry in REGISTRIES.items()} == before
    assert "autoseg_plugin_my_plugin" not in sys.modules
    path.write_text(RULE, encoding="utf-8")  # mended, it can be loaded in the same process
    assert load_plugin(path).registered == ("planner_rule my_rule",)
    assert tuple(PLANNER_RULES) == (*PLANNER_RULES.built_in, "my_rule")


def test_ctrl_c_in_a_plugin_is_an_interruption(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        load_plugin(write_plugin(tmp_path, "raise KeyboardInterrupt\n"))


def test_no_such_plugin(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the plugin cannot be read; file: .*none\.py; found: No such file"):
        load_plugin(tmp_path / "none.py")


def test_names_are_registered_by_files_only() -> None:
    with pytest.raises(UsageError, match=r"the loss 'mine' is registered outside of a plugin; fix: put it into a file"):
        register("loss", "mine")(lambda logits, target, ignore_index, batch_dice: 0)


def test_a_plan_may_name_what_a_loaded_plugin_registers(tmp_path: Path) -> None:
    plan = with_configuration(naming(loss="my_loss", block="my_block", augmentation="my_aug"))
    load_plugin(write_plugin(tmp_path, LOSS + BLOCK + AUGMENTATION))
    assert parse_plan(to_json(plan), "plan.json") == plan
    assert [(key, registry, name) for key, registry, name in plugin_names(plan.configurations["3d_fullres"])] == [
        ("network.kind", BLOCKS, "my_block"),
        ("training.augmentation", AUGMENTATIONS, "my_aug"),
        ("training.loss", LOSSES, "my_loss"),
    ]
    require_plugins(plan.configurations["3d_fullres"], "plan.json")


def test_a_misspelt_name_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    load_plugin(write_plugin(tmp_path, LOSS))
    message = (
        r"'configurations\.3d_fullres\.training\.loss' is unknown - did you mean 'my_loss'\?; file: plan\.json; found: my_los; "
    )
    with pytest.raises(PlanError, match=message + r"allowed: dice_ce, .*, my_loss; fix: --plugin FILE, if a plugin"):
        parse_plan(to_json(with_configuration(naming(loss="my_los"))), "plan.json")


def test_a_plan_remembers_the_plugin_and_is_read_without_it(tmp_path: Path) -> None:
    record = load_plugin(write_plugin(tmp_path, LOSS + AUGMENTATION))
    configuration = remember_plugins(naming(loss="my_loss"))
    assert configuration.why == {**FINE.why, "plugins.my_plugin.py": f"loss my_loss, augmentation my_aug; sha256 {record.sha256}"}
    assert remembered_plugins(configuration.why) == (record,)
    assert [plugin.record for plugin in used_plugins(configuration)] == [record]
    assert remember_plugins(configuration) == configuration
    save_plan(with_configuration(configuration), tmp_path / "plan.json")
    with no_plugins():
        plan = load_plan(tmp_path / "plan.json")
        assert plan.configurations["3d_fullres"] == configuration
        message = (
            r"'training\.loss' names a loss of a plugin that is not loaded; file: plan\.json; "
            rf"found: my_loss, of my_plugin\.py \(sha256 {record.sha256}\); fix: --plugin my_plugin\.py"
        )
        with pytest.raises(PlanError, match=message):
            require_plugins(configuration, "plan.json")
        require_plugins(configuration, "plan.json", kinds=("block",))


def test_what_is_not_remembered_is_required_by_name() -> None:
    with pytest.raises(PlanError, match=r"names a loss of a plugin .*found: my_loss; fix: --plugin FILE"):
        require_plugins(naming(loss="my_loss"), "plan.json")


def test_reasons_that_remember_no_plugin_are_passed_over() -> None:
    assert remembered_plugins({"plugins.my_loss.py": "mine", "training.loss": "loss a; sha256 " + 64 * "0"}) == ()


@pytest.mark.parametrize("file", ["../../my_plugin.py", "/tmp/my_plugin.py", "..", "a\\b.py", "a\x1b[31m.py", ""])
def test_files_are_remembered_by_plain_names_only(file: str, tmp_path: Path) -> None:
    record = load_plugin(write_plugin(tmp_path, BLOCK))
    entry = f"block my_block; sha256 {record.sha256}"
    assert remembered_plugins({f"plugins.{file}": entry}) == ()
    named = naming(block="my_block")
    check_plugins(replace(named, why={"plugins.my_plugin.py": entry}), "run", copies=tmp_path)
    with pytest.raises(PlanError, match="the block 'my_block' of this training comes from a plugin that is not recorded"):
        check_plugins(replace(named, why={f"plugins.{file}": entry}), "run", copies=tmp_path)
    with pytest.raises(PlanError, match="comes from a plugin that is not recorded"):
        check_plugins(named, "run", copies=tmp_path, records=(replace(record, file=file),))


def test_run_tells_the_plugin_that_its_plan_has_forgotten(tmp_path: Path) -> None:
    record = load_plugin(write_plugin(tmp_path, BLOCK))
    named = naming(block="my_block")
    check_plugins(named, "run", copies=tmp_path, records=(record,))
    other = replace(record, sha256="0" * 64)
    with pytest.raises(
        PlanError, match=r"has changed since; .*allowed: my_plugin\.py \(sha256 0+\); fix: --plugin my_plugin\.py as"
    ):
        check_plugins(named, "run", copies=tmp_path, records=(other,))  # what lies among the copies is another one, too
    with no_plugins(), pytest.raises(PlanError, match=rf"is not loaded; .*fix: --plugin {tmp_path}/my_plugin\.py, which is kept"):
        check_plugins(named, "run", copies=tmp_path, records=(record,))


def test_plugin_needs_a_name_that_plans_can_remember(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a plugin needs a name that can be a file's; file: .*; found: '\.my\.py'; allowed"):
        load_plugin(write_plugin(tmp_path, LOSS, ".my.py"))


def test_a_plan_runs_no_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever names a file, beside the plan and in it: the file is not run."""
    mark = tmp_path / "was_run"
    path = write_plugin(tmp_path, LOSS)
    load_plugin(path)
    save_plan(with_configuration(remember_plugins(naming(loss="my_loss"))), tmp_path / "plan.json")
    path.write_text(f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n" + LOSS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with no_plugins():
        plan = load_plan(tmp_path / "plan.json")
        with pytest.raises(PlanError, match="of a plugin that is not loaded"):
            require_plugins(plan.configurations["3d_fullres"], "plan.json")
        assert "my_loss" not in LOSSES
    assert not mark.exists()
    load_plugin(path)
    assert mark.exists()  # it would have been seen


def test_the_note_of_a_plan_shows_its_plugins(tmp_path: Path) -> None:
    record = load_plugin(write_plugin(tmp_path, LOSS))
    note = plan_text(with_configuration(remember_plugins(naming(loss="my_loss"))))
    assert "3d_fullres: plugins\n" in note
    assert f"my_plugin.py  loss my_loss; sha256 {record.sha256}\n" in note


def test_the_schema_lists_built_in_names_only(tmp_path: Path) -> None:
    load_plugin(write_plugin(tmp_path, LOSS))
    words = json_schema(Plan)["$defs"]["TrainingPlan"]["properties"]["loss"]
    assert words == {"enum": list(LOSSES.built_in)}
    assert "my_loss" not in json.dumps(json_schema(Plan))


def test_note_of_a_plan_sends_no_control_characters() -> None:
    text = plan_text(with_configuration(replace(FINE, why={**FINE.why, "training.loss": "a\x1b[31mred"})))
    assert r"a\x1b[31mred" in text
    assert "\x1b" not in text
