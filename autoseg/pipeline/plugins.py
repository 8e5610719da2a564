"""Plugins and settings of the command line, applied to the plans of a workspace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoseg.pipeline.workspace import Workspace
from autoseg.plan import Configuration, Plan, load_plan
from autoseg.plan.edits import carry_plugins
from autoseg.plan.plugin_names import COST, plugin_names, remember_plugins, remembered_plugin, require_plugins, used_plugins
from autoseg.plan.plugins import load_plugin
from autoseg.plan.registries import BLOCKS
from autoseg.plan.settings import apply_run_settings, apply_settings, run_settings
from autoseg.planner.rules import rule_plugins
from autoseg.runs.plugins import PLUGINS
from autoseg.runs.record import is_finished
from autoseg.system.progress import log


def load_plugins(paths: Sequence[Path]) -> None:
    """Run the plugins that the user names, before anything else is done.

    Raises:
        UsageError: see `load_plugin`.
    """
    for path in paths:
        record = load_plugin(path)
        log.info("plugin %s: %s", record.file, ", ".join(record.registered))


def set_in_plan(plan: Plan, settings: Mapping[str, Any], path: Path, configuration: str | None = None) -> Plan:
    """The plan with values that the user sets; raises as `apply_settings` does."""
    plan = apply_settings(plan, settings, path, configuration=configuration)
    note_block_costs(plan.configurations)
    return plan


def note_unused_rules() -> None:
    """Tell that planner rules of plugins do nothing where a plan is kept."""
    if plugins := rule_plugins():
        log.warning(
            "note: the plan is kept, so the planner rules of %s are not used; --replan (Python: replan=True) makes a new one",
            ", ".join(plugin.record.file for plugin in plugins),
        )


def note_block_costs(configurations: Mapping[str, Configuration]) -> None:
    """Tell once that the costs of a plugin's block are a guess."""
    for name, configuration in configurations.items():
        if configuration.network.kind not in BLOCKS.built_in:
            log.warning("note: %s of %s: %s", configuration.network.kind, name, COST)
            return


def plan_for_run(
    workspace: Workspace,
    dataset: str,
    configuration: str | None,
    fold: str,
    settings: Mapping[str, Any],
    *,
    restart: bool = False,
    extend: bool = False,
) -> Plan:
    """The plan of a dataset as a run is to follow it; whatever is wrong with it is told before anything is prepared.

    A run that is continued keeps what was set for it, unless other `settings` are given; one without a step has begun nothing.
    One that is finished, and is not to be extended, needs no plugin.

    Raises:
        UsageError: see `apply_run_settings`.
        PlanError: a plugin is not loaded.
    """
    path = workspace.dataset_folder(dataset) / "plan.json"
    plan, source = load_plan(path), path
    name, _ = plan.configuration(configuration)
    run = workspace.run(dataset, name, fold)
    if not settings and not restart and _has_begun(run):
        begun = load_plan(run / "plan.json")
        settings, plan = run_settings(begun.configuration(name)[1]), carry_plugins(plan, begun)
        if settings:
            source = run / "plan.json"
            kept = ", ".join(f"{key}={value}" for key, value in settings.items())
            log.info("as when fold %s was begun: %s (%s; --restart without --set forgets it)", fold, kept, source)
    plan = apply_run_settings(plan, settings, source, name)
    chosen = plan.configurations[name]
    if restart or extend or not is_finished(run):
        require_plugins(chosen, source, copies=run / PLUGINS)
    _note_changed_plugins(chosen)
    return replace(plan, configurations={**plan.configurations, name: remember_plugins(chosen)})


def _has_begun(run: Path) -> bool:
    """Tell if a run's folder holds a training that has done a step; one that failed before has left no more than its plan."""
    last = run / "last.safetensors"
    if not last.is_file() or not (run / "plan.json").is_file():
        return False
    from autoseg.training.checkpoint import load_state

    return load_state(last).step > 0


def _note_changed_plugins(configuration: Configuration) -> None:
    """Tell which plugins have changed since the plan was made."""
    for plugin in used_plugins(configuration):
        words = (f"{registry.kind} {name}" for _, registry, name in plugin_names(configuration))
        planned = {record for word in words if (record := remembered_plugin(configuration, word)) is not None}
        if any(record.file == plugin.record.file and record.sha256 != plugin.record.sha256 for record in planned):
            log.warning("note: %s has changed since the plan was made; the run records it as it is now", plugin.record.file)
