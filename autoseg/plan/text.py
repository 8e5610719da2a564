"""A plan as text for people: what was decided and why, and what two plans decide differently."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Protocol

from autoseg.errors import printable
from autoseg.plan.ladder import Choice, choose_rung
from autoseg.plan.model import Configuration, DataPlan, Origin, Rung
from autoseg.plan.plugin_names import ORIGIN

WIDTH = 110  # columns
ABSENT = "--"


@dataclass(frozen=True)
class Entry:
    """A value of a plan, and the reason for it, if it has one."""

    value: Any
    reason: str = ""


class PlanDocument(Protocol):
    """The parts of a plan that its text needs; `autoseg.plan.Plan` prints itself by them."""

    @property
    def name(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def data(self) -> DataPlan: ...
    @property
    def default_configuration(self) -> str: ...
    @property
    def configurations(self) -> Mapping[str, Configuration]: ...
    @property
    def ladder(self) -> tuple[Rung, ...]: ...
    @property
    def origin(self) -> Origin: ...
    @property
    def why(self) -> Mapping[str, str]: ...


def plan_text(plan: PlanDocument) -> str:
    """Writes a plan as an engineer's note: each value of each configuration with its reason; common values come last."""
    origin = plan.origin
    lines = [
        f"Plan of {plan.name}: {plan.task}, for {origin.device} with {origin.memory_gb:g} GB, {origin.family} family of networks",
        f"To train first: {plan.default_configuration}",
        *_wrapped(plan.why.get("default_configuration", ""), "  "),
        *_ladder_lines(plan),
        "",
        "data",
    ]
    lines += _block(_data_entries(plan), "data.")
    by_configuration = {name: _configuration_entries(configuration) for name, configuration in plan.configurations.items()}
    common = _common(list(by_configuration.values()))
    for name, entries in by_configuration.items():
        lines += _groups(name, {key: entry for key, entry in entries.items() if key not in common})
    lines += _groups("all", common)
    return printable("\n".join(lines) + "\n")


def _ladder_lines(plan: PlanDocument) -> list[str]:
    """The rungs, and what each is expected to reach in some limits of time."""
    if not plan.ladder:
        return []
    times = {"1 min": 60.0, "10 min": 600.0, "1 h": 3600.0}
    n = len(plan.data.labels.names)
    choices = [choose_rung(plan.ladder, plan.configurations, seconds, n_structures=n) for seconds in times.values()]
    head = ("", "spacing (mm)", "patch", "grid holds", *(f"in {time}" for time in times))
    rows = [
        (
            rung.configuration,
            "×".join(f"{spacing:.4g}" for spacing in rung.spacing_mm),
            _text((plan.configurations[rung.configuration].patch.patch_size,)),
            f"{rung.ceiling:.3f}",
            *(_outlook(choice, rung) for choice in choices),
        )
        for rung in plan.ladder
    ]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = ["  " + "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths)).rstrip() for row in (head, *rows)]
    return ["", "ladder: the Dice that each grid can hold, and that it could come to in a time (*: would be chosen)", *lines]


def _outlook(choice: Choice, rung: Rung) -> str:
    if rung.configuration not in choice.expected:  # edited by hand, so that its pace is unknown
        return ABSENT
    return f"{choice.expected[rung.configuration]:.2f}" + "*" * (rung == choice.rung)


def plan_differences(first: PlanDocument, second: PlanDocument) -> dict[str, tuple[Entry, Entry]]:
    """Finds the keys at which two plans differ, with both values and reasons; a reason alone is no difference."""
    first_entries, second_entries = _entries(first), _entries(second)
    absent = Entry(ABSENT)
    keys = [*first_entries, *(key for key in second_entries if key not in first_entries)]
    pairs = {key: (first_entries.get(key, absent), second_entries.get(key, absent)) for key in keys}
    return {key: (a, b) for key, (a, b) in pairs.items() if a.value != b.value}


def differences_text(differences: dict[str, tuple[Entry, Entry]]) -> str:
    """Writes the differences of two plans: key, both values, and the reasons below them."""
    if not differences:
        return "no difference\n"
    lines = []
    for key, pair in differences.items():
        lines.append(key)
        for sign, entry in zip("-+", pair):
            lines.append(f"  {sign} {_text(entry.value, exact=True)}")
            lines += _wrapped(entry.reason, "      ")
    return printable("\n".join(lines) + "\n")


def _entries(plan: PlanDocument) -> dict[str, Entry]:
    """Every value of a plan by its dotted key."""
    head = {key: Entry(getattr(plan, key), plan.why.get(key, "")) for key in ("name", "task", "default_configuration")}
    origin = {f"origin.{f.name}": Entry(getattr(plan.origin, f.name)) for f in fields(plan.origin)}
    configurations = {
        f"configurations.{name}.{key}": entry
        for name, configuration in plan.configurations.items()
        for key, entry in _configuration_entries(configuration).items()
    }
    return {**head, **_data_entries(plan), **configurations, **origin}


def _data_entries(plan: PlanDocument) -> dict[str, Entry]:
    entries = {}
    for i, channel in enumerate(plan.data.channels):
        for field in fields(channel):
            key = f"data.channels[{i}].{field.name}"
            entries[key] = Entry(getattr(channel, field.name), plan.why.get(key, ""))
    labels = plan.data.labels
    if labels.names:
        entries["data.labels"] = Entry(", ".join(f"{value} {name}" for name, value in zip(labels.names, labels.values)))
    if labels.ignore is not None:
        entries["data.labels.ignore"] = Entry(labels.ignore)
    landmarks = plan.data.landmarks
    if landmarks.names:
        entries["data.landmarks"] = Entry(f"{len(landmarks)}: {', '.join(landmarks.names)}")
        why = plan.why.get("data.landmarks.pairs", "")
        entries["data.landmarks.pairs"] = Entry(", ".join(map(" and ".join, landmarks.pairs)) or "none", why)
        if landmarks.one_sided:
            entries["data.landmarks.one_sided"] = Entry(", ".join(landmarks.one_sided))
    return entries


def _configuration_entries(configuration: Configuration) -> dict[str, Entry]:
    entries = {}
    for group in fields(configuration):
        value = getattr(configuration, group.name)
        if group.name == "why" or value is None:
            continue
        parts = _parts(group.name, value) if is_dataclass(value) else {group.name: value}
        shown = {key: part for key, part in parts.items() if part is not None or key in configuration.why}
        entries.update({key: Entry(part, configuration.why.get(key, "")) for key, part in shown.items()})
    return entries | {key: Entry(text) for key, text in configuration.why.items() if key.startswith(ORIGIN)}


def _parts(name: str, record: Any) -> dict[str, Any]:
    """The fields of a record by their dotted keys; a record among them counts as `yes` and adds its own fields."""
    parts: dict[str, Any] = {}
    for f in fields(record):
        key, value = f"{name}.{f.name}", getattr(record, f.name)
        parts |= {key: True, **_parts(key, value)} if is_dataclass(value) else {key: value}
    return parts


def _common(configurations: list[dict[str, Entry]]) -> dict[str, Entry]:
    """The entries that all of several configurations have in common, to be written once."""
    first, *others = configurations
    return {key: entry for key, entry in first.items() if others and all(other.get(key) == entry for other in others)}


def _groups(name: str, entries: dict[str, Entry]) -> list[str]:
    """A headline and a block for each group of keys."""
    lines = []
    for group in dict.fromkeys(key.split(".")[0] for key in entries):
        lines += ["", f"{name}: {group}"]
        lines += _block({k: e for k, e in entries.items() if k.split(".")[0] == group}, f"{group}.")
    return lines


def _block(entries: dict[str, Entry], prefix: str) -> list[str]:
    """`  key   value`, with the reason below it."""
    names = {key: key.removeprefix(prefix) for key in entries}
    column = max(map(len, names.values()))
    lines = []
    for key, entry in entries.items():
        lines.append(f"  {names[key]:{column}}  {_text(entry.value)}")
        lines += _wrapped(entry.reason, " " * (column + 6))
    return lines


def _wrapped(reason: str, indent: str) -> list[str]:
    return textwrap.wrap(reason, WIDTH, initial_indent=indent, subsequent_indent=indent)


def _text(value: Any, exact: bool = False) -> str:
    """Numbers with commas (to six digits, unless exact), rows of numbers as '1×2×2, 2×2×2'."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return repr(value) if exact else f"{value:.6g}"
    if isinstance(value, tuple):
        rows = ["×".join(map(str, part)) if isinstance(part, tuple) else _text(part, exact) for part in value]
        return ", ".join(rows) or "none"
    return str(value)
