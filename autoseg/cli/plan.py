"""The command `autoseg plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autoseg.cli import options as o
from autoseg.errors import UsageError

if TYPE_CHECKING:
    from autoseg.pipeline.workspace import Workspace


def run(
    *,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH] | show [PATH] | diff A B | schema",
            help="PATH: a dataset, or a folder with nnU-Net's dataset_fingerprint.json and dataset.json, whose plan is printed, "
            "not written. show: the plan as a note. diff: what two plans decide differently. A plan file will do for these. "
            "schema: JSON Schema of plans.",
        ),
    ] = None,
    dataset: o.DatasetOption = None,
    memory: o.MemoryOption = None,
    time: o.TimeOption = None,
    family: o.FamilyOption = None,
    recipe: o.RecipeOption = None,
    replan: o.ReplanOption = False,
    device: o.DeviceOption = "auto",
    setting: o.SetOption = None,
    plugin: o.PluginOption = None,
    root: o.RootOption = o.ROOT,
    quiet: o.QuietOption = False,
    json: o.JsonOption = False,
) -> None:
    """Plan everything from the fingerprint and write it down, each choice with its reason; or show and compare plans."""
    from autoseg.pipeline.datasets import open_dataset_folder
    from autoseg.pipeline.fingerprint import ensure_fingerprint
    from autoseg.pipeline.plan import describe_plan, find_plan, is_nnunet_folder, plan_dataset
    from autoseg.pipeline.plugins import set_in_plan
    from autoseg.pipeline.workspace import Workspace
    from autoseg.plan import Plan
    from autoseg.plan.text import differences_text, plan_differences, plan_text
    from autoseg.system.progress import log
    from autoseg.system.records import json_schema, to_json

    o.be_quiet(quiet)
    settings = _settings(setting, plugin, words or [])
    if words == ["schema"]:
        typer.echo(to_json(json_schema(Plan)), nl=False)
        return
    workspace, options = Workspace(root), o.plan_options(device, memory, family, time, recipe)
    action, names = _action(words or [], dataset)
    folders = [_plan_path(n, workspace, action) for n in names]
    if action == "diff":
        differences = plan_differences(*(find_plan(f, workspace, options) for f in folders))
        o.show(differences, json)
        if not json:
            o.say(differences_text(differences))
    elif action == "show" or is_nnunet_folder(folders[0]):
        plan = set_in_plan(find_plan(folders[0], workspace, options), settings, folders[0])  # of nnU-Net's folder
        o.show(plan, json)
        if not json:
            o.say(plan_text(plan))
    else:
        opened = open_dataset_folder(folders[0], workspace)
        failures = ensure_fingerprint(opened, workspace)
        made = plan_dataset(opened, workspace, options, replan, settings=settings)
        log.info("%s", describe_plan(made, workspace.dataset_folder(opened.name) / "plan.json", opened.unit))
        o.show(made, json)
        if failures:
            o.finish(failures, workspace.dataset_folder(opened.name), len(opened.cases) - len(failures), "fingerprint")


def _settings(setting: list[str] | None, plugin: list[Path] | None, words: list[str]) -> dict[str, Any]:
    """What --set asks for, which only a new plan can have; loads the plugins, too."""
    if setting and words and words[0] in ("show", "diff", "schema"):
        fix = "autoseg plan --set KEY=VALUE, then plan show"
        raise UsageError("--set changes a plan that is made", found=f"plan {words[0]}", fix=fix)
    return o.settings_and_plugins(setting, plugin)


def _plan_path(name: str | None, workspace: Workspace, action: str) -> Path:
    """The folder of a dataset, or the file or folder of an existing plan, such as a run's."""
    from autoseg.pipeline.datasets import find_named_dataset

    path = Path(name or "")
    if action != "plan" and name and (path.is_file() or (path / "plan.json").is_file()):
        return path
    return find_named_dataset(name, workspace)


def _action(words: list[str], dataset: str | None) -> tuple[str, list[str | None]]:
    """The action and the datasets or plans it is for; None is the dataset planned last."""
    action = words[0] if words and words[0] in ("show", "diff") else "plan"
    names: list[str | None] = [*(words if action == "plan" else words[1:])]
    if dataset is not None:
        names.insert(0, dataset)
    if action != "diff" and not names:
        names = [None]
    if len(names) != (2 if action == "diff" else 1):
        raise UsageError(
            "plan takes one dataset, and plan diff two of them",
            found=" ".join([*words, *(["-d", dataset] if dataset else [])]),
            allowed="plan [PATH], plan show [PATH], plan diff A B, plan schema",
        )
    return action, names
