"""Edits of a plan by hand: found by comparison with the plan as it was planned, and applied to a new one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autoseg.errors import PlanError
from autoseg.plan import Configuration, Plan, parse_plan
from autoseg.plan.plugin_names import plugin_names, remember_plugins, remembered_plugin
from autoseg.system.records import to_json

NOT_DECISIONS = ("schema_version", "name", "task", "origin", "why", "footprint")  # at whatever depth they stand
CONFIGURATIONS = "configurations"
COSTLY = ("space", "patch", "network")  # groups of a configuration that decide its footprint

BY_HAND = "set by hand"
SET = "set on the command line"
SET_FOR_RUN = "set on the command line for this run"

Key = tuple[str, ...]


@dataclass(frozen=True)
class Edit:
    """A value that was set by hand; None for `planned` or `edited` where a whole configuration was added or removed.

    Args:
        origin: who has set it, the first words of its `why`.
    """

    key: Key
    planned: Any
    edited: Any
    origin: str = BY_HAND

    def __str__(self) -> str:
        name = ".".join(self.key)
        if self.planned is None and len(self.key) == 2:
            return f"{name} added"
        if self.edited is None and len(self.key) == 2:
            return f"{name} removed"
        return f"{name}: {json.dumps(self.edited)} instead of {json.dumps(self.planned)}"


def find_edits(planned: Plan, edited: Plan) -> tuple[Edit, ...]:
    """Finds the decisions of `edited` that differ from those that were planned."""
    old, new = _document(planned), _document(edited)
    added = [name for name in new[CONFIGURATIONS] if name not in old[CONFIGURATIONS]]
    removed = [name for name in old[CONFIGURATIONS] if name not in new[CONFIGURATIONS]]
    edits = [Edit((CONFIGURATIONS, name), None, new[CONFIGURATIONS].pop(name)) for name in added]
    edits += [Edit((CONFIGURATIONS, name), old[CONFIGURATIONS].pop(name), None) for name in removed]
    return (*edits, *(replace(edit, origin=_origin(edit, new)) for edit in _changes(old, new)))


def configuration_edits(planned: Configuration, edited: Configuration) -> tuple[Edit, ...]:
    """Finds the decisions of one configuration that differ from another's; keys begin inside the configuration."""
    return _changes(_document(planned), _document(edited))


def apply_edits(plan: Plan, edits: Sequence[Edit], source: str | Path) -> tuple[Plan, tuple[Edit, ...]]:
    """Applies edits to a plan: returns the edited plan, and the edits that have no place in it.

    The `why` of each edited value says so. Where patch, network or spacing were edited, the footprint is null.

    Args:
        source: the plan's file, for messages.

    Raises:
        PlanError: the plan contradicts itself once it is edited.
    """
    document = _document(plan)
    dropped = tuple(edit for edit in edits if not apply_edit(document, edit))
    try:
        merged = parse_plan(json.dumps(document), source)
    except PlanError as error:
        kept = "; ".join(str(edit) for edit in edits if edit not in dropped)
        raise PlanError(
            f"edits by hand contradict the new plan: {error.problem}",
            file=source,
            found=f"{error.found}, with the edits {kept}",
            allowed=error.allowed,
            fix="change or revert these edits in the plan, or delete it to plan without them",
        ) from error
    return merged, dropped


def remember_in_plan(plan: Plan) -> Plan:
    """The plan, each configuration of which remembers the plugins of this process that it uses."""
    return replace(plan, configurations={name: remember_plugins(c) for name, c in plan.configurations.items()})


def carry_plugins(plan: Plan, old: Plan) -> Plan:
    """A new plan that remembers the plugins whose losses, blocks or augmentations the old one names."""
    configurations = dict(plan.configurations)
    for name in set(configurations) & set(old.configurations):
        words = [f"{registry.kind} {word}" for _, registry, word in plugin_names(old.configurations[name])]
        records = [record for word in words if (record := remembered_plugin(old.configurations[name], word)) is not None]
        configurations[name] = remember_plugins(configurations[name], records)
    return replace(plan, configurations=configurations)


def _document(record: Plan | Configuration) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(to_json(record))
    return document


def _changes(old: dict[str, Any], new: dict[str, Any]) -> tuple[Edit, ...]:
    """The values that differ between two documents."""
    old_values, new_values = dict(_leaves(old)), dict(_leaves(new))
    keys = [*old_values, *(key for key in new_values if key not in old_values)]
    changed = [key for key in keys if old_values.get(key) != new_values.get(key)]
    return tuple(Edit(key, old_values.get(key), new_values.get(key)) for key in changed)


def _leaves(value: Any, key: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Yields each value with its key; a list is one value, except a list of objects such as the channels."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        value = {str(i): part for i, part in enumerate(value)}
    if not isinstance(value, dict):
        yield key, value
        return
    for name, part in value.items():
        if name not in NOT_DECISIONS:
            yield from _leaves(part, (*key, name))


def apply_edit(document: dict[str, Any], edit: Edit) -> bool:
    """Applies an edit to a plan's JSON and notes it in `why`; returns whether the plan has its key."""
    parent: Any = document
    for name in edit.key[:-1]:
        parent = _part(parent, name)
        if parent is None:
            return False
    name = edit.key[-1]
    if len(edit.key) == 2 and edit.key[0] == CONFIGURATIONS:
        if edit.edited is None:
            parent.pop(name, None)
        else:
            parent[name] = edit.edited
        return True
    if _part(parent, name) is None and not (isinstance(parent, dict) and name in parent):
        return False
    parent[int(name) if isinstance(parent, list) else name] = edit.edited
    inside = edit.key[0] == CONFIGURATIONS
    why, key = _reasons(document, edit)
    if inside and edit.key[2] in COSTLY:
        document[CONFIGURATIONS][edit.key[1]]["footprint"] = None
        for estimated in [k for k in why if k.startswith("footprint.")]:
            del why[estimated]
    why[key] = _edit_reason(edit, why.get(key))
    return True


def _reasons(document: dict[str, Any], edit: Edit) -> tuple[dict[str, str], str]:
    """The `why` in which an edit is noted, and its key there."""
    if edit.key[0] != CONFIGURATIONS:
        return document["why"], dotted(edit.key)
    return document[CONFIGURATIONS][edit.key[1]]["why"], dotted(edit.key[2:])


def _origin(edit: Edit, document: dict[str, Any]) -> str:
    """Who has set a value, as the document says that has it."""
    why, key = _reasons(document, edit)
    return SET if why.get(key, "").startswith(SET) else BY_HAND


def _edit_reason(edit: Edit, reason: str | None) -> str:
    """The reason of an edited value; of one that was set before, too, what was planned is still told."""
    if reason is not None and reason.startswith((BY_HAND, SET)):
        return edit.origin + reason[reason.index(";") :] if ";" in reason else edit.origin
    planned = f"{edit.origin}; planned before: {json.dumps(edit.planned)}"
    return planned if reason is None else f"{planned}; planned now: {reason}"


def _part(parent: Any, name: str) -> Any:
    """The member of an object or list by name or index; None where there is none."""
    if isinstance(parent, list):
        return parent[int(name)] if name.isdecimal() and int(name) < len(parent) else None
    return parent.get(name) if isinstance(parent, dict) else None


def dotted(key: Key) -> str:
    """'data.channels[0].normalization', as the planner writes it."""
    return "".join(f"[{part}]" if part.isdecimal() else f".{part}" for part in key).removeprefix(".")
