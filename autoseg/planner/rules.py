"""The planner's last rules, from a configuration to a configuration: built-in ones, then those of plugins."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from autoseg.errors import AutosegError, UsageError
from autoseg.fingerprint.dataset import Fingerprint
from autoseg.plan import Configuration
from autoseg.plan.edits import configuration_edits, dotted
from autoseg.plan.files import as_read
from autoseg.plan.plugin_names import remember_plugins
from autoseg.plan.plugins import Plugin, plugin_failure, plugin_of
from autoseg.plan.registries import PLANNER_RULES
from autoseg.planner.budget import Budget


def apply_rules(configuration: Configuration, fingerprint: Fingerprint, budget: Budget) -> Configuration:
    """The configuration as all rules together want it.

    Raises:
        UsageError: a plugin's rule fails, or returns something else.
        PlanError: a plugin's rule sets a value of another type.
    """
    for name, rule in PLANNER_RULES.items():
        if name in PLANNER_RULES.built_in:
            configuration = rule(configuration, fingerprint, budget)
        else:
            configuration = _apply_added(name, rule, configuration, fingerprint, budget)
    return configuration


def rule_plugins() -> tuple[Plugin, ...]:
    """The plugins whose rules have a say in every plan."""
    plugins = (plugin_of(f"{PLANNER_RULES.kind} {name}") for name in PLANNER_RULES)
    return tuple({p.record.file: p for p in plugins if p is not None}.values())


def _apply_added(name: str, rule: Any, configuration: Configuration, fingerprint: Fingerprint, budget: Budget) -> Configuration:
    """Apply a plugin's rule; where it gives no reason for a change, its name and file are the reason."""
    plugin = plugin_of(f"{PLANNER_RULES.kind} {name}")
    assert plugin is not None
    try:
        result = rule(configuration, fingerprint, budget)
    except AutosegError:
        raise
    except Exception as error:
        raise plugin_failure(f"the planner rule '{name}' fails", plugin.path, error, "mend that line") from error
    if not isinstance(result, Configuration):
        raise UsageError(
            f"the planner rule '{name}' returns no configuration",
            file=plugin.path,
            found=type(result).__name__,
            allowed="the configuration that it is given, or dataclasses.replace(configuration, …)",
        )
    result = as_read(result, plugin.path)
    reasons = dict(result.why)
    for edit in configuration_edits(configuration, result):
        key = dotted(edit.key)
        if reasons.get(key) == configuration.why.get(key):
            reasons[key] = f"set by the planner rule {name} of {plugin.record.file}; planned before: {json.dumps(edit.planned)}"
    return remember_plugins(replace(result, why=reasons), (plugin.record,))
