"""What a user has changed in a plan by hand, and the same changes on a new plan."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.errors import PlanError
from autoseg.plan import Plan, parse_plan
from autoseg.system.records import to_json

NOT_DECISIONS = ("schema_version", "name", "task", "origin", "why", "footprint")  # at whatever depth they stand
CONFIGURATIONS = "configurations"
WEIGHTY = ("space", "patch", "network")  # groups of a configuration that its footprint follows from

Key = tuple[str, ...]


@dataclass(frozen=True)
class Edit:
    """A value that was set by hand; None for `planned` or `now` where a whole configuration came or went."""

    key: Key
    planned: Any
    now: Any

    def __str__(self) -> str:
        name = ".".join(self.key)
        if self.planned is None and len(self.key) == 2:
            return f"{name} added"
        if self.now is None and len(self.key) == 2:
            return f"{name} removed"
        return f"{name}: {json.dumps(self.now)} instead of {json.dumps(self.planned)}"


def find_edits(planned: Plan, now: Plan) -> tuple[Edit, ...]:
    """In what the decisions of `now` differ from those that were planned."""
    before, after = _document(planned), _document(now)
    added = [n for n in after[CONFIGURATIONS] if n not in before[CONFIGURATIONS]]
    removed = [n for n in before[CONFIGURATIONS] if n not in after[CONFIGURATIONS]]
    edits = [Edit((CONFIGURATIONS, n), None, after[CONFIGURATIONS].pop(n)) for n in added]
    edits += [Edit((CONFIGURATIONS, n), before[CONFIGURATIONS].pop(n), None) for n in removed]
    old, new = dict(_leaves(before)), dict(_leaves(after))
    keys = [*old, *(k for k in new if k not in old)]
    return (*edits, *(Edit(k, old.get(k), new.get(k)) for k in keys if old.get(k) != new.get(k)))


def apply_edits(plan: Plan, edits: Sequence[Edit], source: str | Path) -> tuple[Plan, tuple[Edit, ...]]:
    """The plan with the edits, and those that have no place in it.

    Each edited value is told in `why`. Where patch, network or spacing were edited, the footprint is no longer known.

    Args:
        source: the plan's file, for messages.

    Raises:
        PlanError: with the edits the plan contradicts itself.
    """
    document = _document(plan)
    lost = tuple(edit for edit in edits if not _set(document, edit))
    try:
        merged = parse_plan(json.dumps(document), source)
    except PlanError as error:
        kept = "; ".join(str(edit) for edit in edits if edit not in lost)
        raise PlanError(
            f"edits by hand do not go with the new plan: {error.problem}",
            file=source,
            found=f"{error.found}, with the edits {kept}",
            allowed=error.allowed,
            fix="change or take back these edits in the plan, or delete it to plan without them",
        ) from error
    return merged, lost


def _document(plan: Plan) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(to_json(plan))
    return document


def _leaves(value: Any, key: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Values by key; a list is one value, but for lists of objects such as the channels."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        value = {str(i): part for i, part in enumerate(value)}
    if not isinstance(value, dict):
        yield key, value
        return
    for name, part in value.items():
        if name not in NOT_DECISIONS:
            yield from _leaves(part, (*key, name))


def _set(document: dict[str, Any], edit: Edit) -> bool:
    """Carries out an edit and tells it in the `why` of its configuration; False where its place is gone."""
    place: Any = document
    for name in edit.key[:-1]:
        place = _part(place, name)
        if place is None:
            return False
    name = edit.key[-1]
    if len(edit.key) == 2 and edit.key[0] == CONFIGURATIONS:
        if edit.now is None:
            place.pop(name, None)
        else:
            place[name] = edit.now
        return True
    if _part(place, name) is None and not (isinstance(place, dict) and name in place):
        return False
    place[int(name) if isinstance(place, list) else name] = edit.now
    inside = edit.key[0] == CONFIGURATIONS
    why = document[CONFIGURATIONS][edit.key[1]]["why"] if inside else document["why"]
    if inside and edit.key[2] in WEIGHTY:
        document[CONFIGURATIONS][edit.key[1]]["footprint"] = None
        for estimated in [k for k in why if k.startswith("footprint.")]:
            del why[estimated]
    key = _dotted(edit.key[2:] if inside else edit.key)
    planned = f"; planned before: {json.dumps(edit.planned)}"
    why[key] = f"set by hand{planned}" + (f"; planned now: {why[key]}" if key in why else "")
    return True


def _part(place: Any, name: str) -> Any:
    if isinstance(place, list):
        return place[int(name)] if name.isdecimal() and int(name) < len(place) else None
    return place.get(name) if isinstance(place, dict) else None


def _dotted(key: Key) -> str:
    """'data.channels[0].normalization', as the planner writes it."""
    return "".join(f"[{part}]" if part.isdecimal() else f".{part}" for part in key).removeprefix(".")
