"""--plugin and --set as they are typed: planned, trained, continued and predicted with, and what is refused."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.limits import HANGS
from helpers.plugins import AUGMENTATION, BLOCK, LOSS, RULE, no_plugins, write_plugin
from helpers.runs import interrupt_at
from helpers.tiny import Tiny
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from autoseg.cli import app
from autoseg.errors import AutosegError, PlanError, UsageError
from autoseg.pipeline import plan as planning
from autoseg.plan import load_plan
from autoseg.plan.plugin_names import COST
from autoseg.plan.registries import LOSSES
from autoseg.runs.record import load_run
from autoseg.system.records import to_json

SHORT = ("--epochs", "1")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.fixture(autouse=True)
def _no_plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(planning, "find_gpu", lambda: None)
    with no_plugins():
        yield


def typed(tiny: Tiny, root: Path, command: str, *words: object) -> Result:
    """A command on a copy of the tiny dataset's workspace without its runs, in a process that has loaded no plugin."""
    if not (root / "datasets").exists():
        shutil.copytree(tiny.workspace.root, root, ignore=shutil.ignore_patterns("runs"), dirs_exist_ok=True)
    data = ["-i", str(tiny.data / "imagesTs")] if command == "predict" else ["-d", str(tiny.data)]
    line = [command, *data, "--root", str(root), "--device", "cpu", *map(str, words)]
    with no_plugins():
        return CliRunner().invoke(app, line, catch_exceptions=False)


def run_folder(tiny: Tiny, root: Path) -> Path:
    return root / "runs" / tiny.dataset.name / "3d_fullres" / "fold_0"


def plan_file(tiny: Tiny, root: Path) -> Path:
    return root / "datasets" / tiny.dataset.name / "plan.json"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_loss_and_an_augmentation_for_one_run(tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "autoseg")
    root, plugin = tmp_path / "work", write_plugin(tmp_path, LOSS + AUGMENTATION)
    settings = ("--set", "training.loss=my_loss", "--set", "training.augmentation=my_aug")
    typed(tiny, root, "train", *SHORT, *settings, "--plugin", plugin)
    run, planned = run_folder(tiny, root), plan_file(tiny, root).read_text(encoding="utf-8")
    record = load_run(run)
    assert [(p.file, p.sha256, p.registered) for p in record.plugins] == [
        ("my_plugin.py", digest(plugin), ("loss my_loss", "augmentation my_aug"))
    ]
    assert (run / "plugins" / "my_plugin.py").read_bytes() == plugin.read_bytes()
    assert "my_loss" not in planned
    chosen = load_plan(run / "plan.json").configurations["3d_fullres"]
    assert (chosen.training.loss, chosen.training.augmentation) == ("my_loss", "my_aug")
    assert chosen.why["training.loss"].startswith("set on the command line for this run; planned before: ")
    assert "plugin my_plugin.py: loss my_loss, augmentation my_aug" in caplog.text

    plugin.unlink()  # neither is needed to predict, nor to learn that the run is finished
    assert typed(tiny, root, "train", *SHORT).exit_code == 0
    assert f"{run} is already trained" in caplog.text
    out = tmp_path / "masks"
    assert typed(tiny, root, "predict", "-o", out).exit_code == 0
    assert len(list(out.glob("*.nii.gz"))) == 2
    assert "my_loss" not in LOSSES

    with pytest.raises(
        PlanError,
        match=r"'training\.augmentation' names an augmentation of a plugin that is not.*file: .*fold_0.plan\.json; .*"
        r"fix: --plugin .*fold_0.plugins.my_plugin\.py, which is kept as it was, or autoseg\.load_plugin",
    ):
        typed(tiny, root, "train", "--extend", "1")  # which goes on with what was set for the run
    kept = run / "plugins" / "my_plugin.py"
    typed(tiny, root, "train", "--extend", "1", "--plugin", kept)
    assert load_run(run).steps == 2 * record.steps
    assert load_plan(run / "plan.json").configurations["3d_fullres"].training.loss == "my_loss"
    assert "as when fold 0 was begun: training.augmentation=my_aug, training.loss=my_loss" in caplog.text

    changed = write_plugin(tmp_path, LOSS + AUGMENTATION + "\n# other\n")
    with pytest.raises(
        PlanError, match=r"comes from a plugin that has changed since; .*fix: --plugin .*plugins.my_plugin\.py, which is"
    ):
        typed(tiny, root, "train", "--extend", "1", "--plugin", changed)
    with pytest.raises(PlanError, match=r"the run in this folder follows another plan; .*found: .*training\.loss my_loss → dice"):
        typed(tiny, root, "train", "--extend", "1", "--plugin", kept, "--set", "training.loss=dice")
    assert load_run(run).steps == 2 * record.steps
    typed(tiny, root, "train", *SHORT, "--restart")
    assert load_plan(run / "plan.json").configurations["3d_fullres"].training.loss == "dice_ce"
    assert load_run(run).plugins == ()
    assert not (run / "plugins").exists()


def test_what_was_set_for_a_run_without_a_step_is_forgotten(
    tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "autoseg")
    root = tmp_path / "work"
    for steps in (0, 1):
        with monkeypatch.context() as patched:
            interrupt_at(patched, steps)
            typed(tiny, root, "train", "--epochs", "2", "--set", "training.loss=dice")
        assert (run_folder(tiny, root) / "last.safetensors").is_file()
        caplog.clear()
        with monkeypatch.context() as patched:
            interrupt_at(patched, 2)
            typed(tiny, root, "train", "--epochs", "2")
        chosen = load_plan(run_folder(tiny, root) / "plan.json").configurations["3d_fullres"]
        assert chosen.training.loss == ("dice" if steps else "dice_ce")
        source = f"as when fold 0 was begun: training.loss=dice ({run_folder(tiny, root) / 'plan.json'}; --restart without"
        assert (source in caplog.text) == bool(steps)
        shutil.rmtree(run_folder(tiny, root))


FAULTS = {
    "raises": (
        "    return logits.no_such()",
        r"the loss 'my_loss' fails; file: .*my_plugin\.py; found: line 7, my_loss: AttributeError",
    ),
    "is_nan": (
        "    return logits.sum() * float('nan')",
        r"loss is not finite; .*fix: look at the loss 'my_loss', my_loss in .*my_pl",
    ),
    "number": ("    return 3", r"the loss 'my_loss' returns nothing to learn from; .*found: int; allowed: a tensor with one"),
    "map": ("    return logits", r"returns nothing to learn from; .*found: a tensor \(2, 5, 8, 16, 16\); allowed"),
    "constant": ("    return logits.detach().mean()", r"found: a tensor \(\), which does not depend on logits; allowed"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_loss_that_fails_is_named_and_blocks_nothing(fault: str, tiny: Tiny, tmp_path: Path) -> None:
    root, (body, message) = tmp_path / "work", FAULTS[fault]
    plugin = write_plugin(tmp_path, LOSS.replace("    return logits.float().square().mean() + 1", body))
    with pytest.raises(AutosegError, match=message) as caught:
        typed(tiny, root, "train", *SHORT, "--set", "training.loss=my_loss", "--plugin", plugin)
    assert caught.value.exit_code == 2
    assert not run_folder(tiny, root).exists()
    typed(tiny, root, "train", *SHORT, "--set", "training.loss=dice")
    assert load_run(run_folder(tiny, root)).finished


def test_an_augmentation_that_fails_is_named(tiny: Tiny, tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, AUGMENTATION.replace("image + ", "image.no_such + "))
    with pytest.raises(
        UsageError, match=r"the augmentation 'my_aug' fails; file: .*my_plugin\.py; found: line 7, brighter: Attr"
    ):
        typed(tiny, tmp_path / "work", "train", *SHORT, "--set", "training.augmentation=my_aug", "--plugin", plugin)


def test_a_block_is_needed_to_predict_and_must_be_the_same(tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root, plugin, out = tmp_path / "work", write_plugin(tmp_path, BLOCK, "my_block.py"), tmp_path / "masks"
    typed(tiny, root, "plan", "--set", "network.kind=my_block", "--plugin", plugin)
    planned = load_plan(plan_file(tiny, root)).configurations["3d_fullres"]
    assert (planned.network.kind, planned.footprint) == ("my_block", None)
    assert planned.why["network.kind"].startswith("set on the command line; planned before: ")
    assert planned.why["network.kind"].endswith(COST)
    assert caplog.text.count(f"note: my_block of 3d_fullres: {COST}") == 1
    with pytest.raises(
        PlanError, match=rf"'network\.kind' names a block .*found: my_block, of my_block\.py \(sha256 {digest(plugin)}"
    ):
        typed(tiny, root, "train", *SHORT)
    typed(tiny, root, "train", *SHORT, "--plugin", plugin)
    with pytest.raises(
        PlanError, match=r"the block 'my_block' of this training comes from a plugin that is not loaded; .*--plugin"
    ):
        typed(tiny, root, "predict", "-o", out)
    original = plugin.read_bytes()
    plugin.write_bytes(original + b"\n")
    with pytest.raises(PlanError, match=r"comes from a plugin that has changed since; .*found: .*my_block\.py \(sha256"):
        typed(tiny, root, "predict", "-o", out, "--plugin", plugin)
    assert not out.exists()
    typed(tiny, root, "predict", "-o", out, "--plugin", run_folder(tiny, root) / "plugins" / "my_block.py")
    assert len(list(out.glob("*.nii.gz"))) == 2


def test_a_loss_like_the_built_in_one_trains_the_same_weights(tiny: Tiny, tmp_path: Path) -> None:
    text = LOSS.replace(
        "    return logits.float().square().mean() + 1",
        "    from autoseg.training.losses import dice_ce\n    return dice_ce(logits, target, ignore_index, batch_dice)",
    )
    words = ("--deterministic", *SHORT)
    typed(tiny, tmp_path / "a", "train", *words)
    typed(tiny, tmp_path / "b", "train", *words, "--set", "training.loss=my_loss", "--plugin", write_plugin(tmp_path, text))
    first, second = (load_file(run_folder(tiny, tmp_path / name) / "last.safetensors") for name in "ab")
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_settings_of_a_plan_are_carried_over_and_a_rule_needs_a_new_plan(
    tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, loss, rule = tmp_path / "work", write_plugin(tmp_path, LOSS, "my_loss.py"), write_plugin(tmp_path, RULE, "my_rule.py")
    typed(tiny, root, "plan", "--replan")  # of this machine, and without the hand edits of the tiny plan
    plan_file(tiny, root).unlink()
    typed(tiny, root, "plan", "--set", "training.loss=my_loss", "--plugin", loss, "--set", "training.epochs=7")
    typed(tiny, root, "plan", "--plugin", rule)
    assert (
        "note: the plan is kept, so the planner rules of my_rule.py are not used; --replan (Python: replan=True) makes a new one"
        in caplog.text
    )
    typed(tiny, root, "plan", "--replan", "--plugin", rule)
    plan = load_plan(plan_file(tiny, root))
    for c in plan.configurations.values():
        assert (c.training.loss, c.training.epochs, c.training.steps_per_epoch) == ("my_loss", 7, 5)
        assert c.why["training.loss"].startswith('set on the command line; planned before: "dice_ce"')
        assert c.why["plugins.my_loss.py"] == f"loss my_loss; sha256 {digest(loss)}"
        assert c.why["plugins.my_rule.py"] == f"planner_rule my_rule; sha256 {digest(rule)}"
    assert "note: setting of the command line kept: configurations.3d_fullres.training.epochs: 7 instead of" in caplog.text


def test_plan_and_preprocess_sets_what_needs_preparing(tiny: Tiny, tmp_path: Path) -> None:
    root = tmp_path / "work"
    done = typed(
        tiny, root, "plan_and_preprocess", "--set", "space.spacing_mm=[3, 2.5, 2.5]", "-c", "3d_fullres", "--workers", "0"
    )
    assert done.exit_code == 0
    assert load_plan(plan_file(tiny, root)).configurations["3d_fullres"].space.spacing_mm == (3.0, 2.5, 2.5)
    with pytest.raises(
        UsageError, match=r"'space\.spacing_mm' cannot be set for a single run: .*fix: autoseg plan_and_preprocess"
    ):
        typed(tiny, root, "train", "--set", "space.spacing_mm=[1, 1, 1]")


@pytest.mark.parametrize("command", ["plan", "plan_and_preprocess", "train", "predict"])
def test_nothing_is_started_with_a_plugin_that_cannot_be_imported(command: str, tiny: Tiny, tmp_path: Path) -> None:
    root, plugin = tmp_path / "work", write_plugin(tmp_path, "import no_such_module\n")
    words = ["-i", tiny.data / "imagesTs", "-o", tmp_path / "out"] if command == "predict" else ["-d", tiny.data]
    line = [sys.executable, "-m", "autoseg", command, *map(str, words), "--root", str(root), "--plugin", str(plugin)]
    done = subprocess.run(line, env=ENVIRONMENT, capture_output=True, text=True, timeout=HANGS, check=False)
    assert done.returncode == 2
    message = f"autoseg: error: the plugin cannot be imported; file: {plugin}; found: line 1: ModuleNotFoundError: "
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert not root.exists()
    assert not (tmp_path / "out").exists()


def test_a_model_runs_no_plugin(tiny: Tiny, tmp_path: Path) -> None:
    """A run holds the plugin, its plan and run.json name it, it lies in the current folder: and still nothing runs it."""
    root, plugin = tmp_path / "work", write_plugin(tmp_path, LOSS)
    typed(tiny, root, "train", *SHORT, "--set", "training.loss=my_loss", "--plugin", plugin)
    mark = tmp_path / "was_run"
    trap = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n" + LOSS
    kept = run_folder(tiny, root) / "plugins" / "my_plugin.py"
    for path in (plugin, kept):
        path.write_text(trap, encoding="utf-8")
    plan = load_plan(run_folder(tiny, root) / "plan.json")
    record = load_run(run_folder(tiny, root))
    (run_folder(tiny, root) / "run.json").write_text(
        to_json(replace(record, plugins=(replace(record.plugins[0], file=str(plugin)),))), encoding="utf-8"
    )
    line = [sys.executable, "-m", "autoseg", "predict", "-i", str(tiny.data / "imagesTs"), "-o", str(tmp_path / "out")]
    line += ["--root", str(root), "--device", "cpu"]
    done = subprocess.run(line, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=HANGS, check=False)
    assert done.returncode == 0, done.stderr
    assert plan.configurations["3d_fullres"].training.loss == "my_loss"
    with pytest.raises(PlanError, match="of a plugin that is not loaded"):
        typed(tiny, root, "train", "--extend", "1")
    assert not mark.exists()


def test_records_without_plugins_are_still_read(tiny: Tiny, tmp_path: Path) -> None:
    root = tmp_path / "work"
    typed(tiny, root, "train", *SHORT)
    path = run_folder(tiny, root) / "run.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document.pop("plugins") == []
    path.write_text(json.dumps(document), encoding="utf-8")
    assert load_run(path.parent).plugins == ()
