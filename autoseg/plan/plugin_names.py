"""Names of plugins in configurations, and the record that configurations keep of the plugins' files.

A configuration that uses a plugin says so in its `why`: "plugins.my_loss.py": "loss my_loss; sha256 …". So the name can be read
where the plugin is not needed, and a plan tells which file is missing where it is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from autoseg.errors import PlanError, nearest
from autoseg.plan.model import Configuration
from autoseg.plan.plugins import Plugin, PluginRecord, plugin_of
from autoseg.plan.registries import AUGMENTATIONS, BLOCKS, LOSSES, REGISTRIES
from autoseg.system.files import sha256
from autoseg.system.names import is_plain_name
from autoseg.system.registry import Registry

COST = f"memory and time are counted as of {BLOCKS.built_in[0]}, since nothing is known of this block's"
ORIGIN = "plugins."  # begins the keys of `why` that tell which plugins a configuration uses
_REMEMBERED = re.compile(r"(?P<registered>[\w ,]+); sha256 (?P<sha256>[0-9a-f]{64})")


def plugin_names(configuration: Configuration) -> Iterator[tuple[str, Registry, str]]:
    """Each name of a configuration that is not built in: its key, the registry it belongs to, and the name."""
    c = configuration
    for key, registry, name in (
        ("network.kind", BLOCKS, c.network.kind),
        ("training.augmentation", AUGMENTATIONS, c.training.augmentation),
        ("training.loss", LOSSES, c.training.loss),
    ):
        if name not in registry.built_in:
            yield key, registry, name


def used_plugins(configuration: Configuration) -> tuple[Plugin, ...]:
    """The plugins of this process that a configuration names something of."""
    plugins = (plugin_of(f"{registry.kind} {name}") for _, registry, name in plugin_names(configuration))
    return tuple({p.record.file: p for p in plugins if p is not None}.values())


def remember_plugins(configuration: Configuration, records: Collection[PluginRecord] = ()) -> Configuration:
    """The configuration with what it names of plugins in its `why`.

    Args:
        records: further plugins, which have changed it.
    """
    used = [plugin.record for plugin in used_plugins(configuration)]
    entries = {f"{ORIGIN}{r.file}": f"{', '.join(r.registered)}; sha256 {r.sha256}" for r in (*records, *used)}
    why = {**configuration.why, **entries}
    if configuration.network.kind not in BLOCKS.built_in:
        reason = why.get("network.kind", "")
        why["network.kind"] = reason if COST in reason else f"{reason}; {COST}".removeprefix("; ")
    return replace(configuration, why=why)


def remembered_plugins(why: Mapping[str, str]) -> tuple[PluginRecord, ...]:
    """The plugins that the reasons of a configuration tell of."""
    entries = {key.removeprefix(ORIGIN): _REMEMBERED.fullmatch(text) for key, text in why.items() if key.startswith(ORIGIN)}
    return tuple(
        PluginRecord(file, m["sha256"], tuple(m["registered"].split(", ")))
        for file, m in entries.items()
        if m and is_plain_name(file)  # no path, which would lead messages to another folder
    )


def remembered_plugin(configuration: Configuration, word: str) -> PluginRecord | None:
    """The plugin that has registered 'loss my_loss', as far as the configuration remembers."""
    return next((r for r in remembered_plugins(configuration.why) if word in r.registered), None)


def check_plugins(
    configuration: Configuration,
    source: str | Path,
    kinds: Collection[str] = tuple(REGISTRIES),
    *,
    copies: Path,
    records: Collection[PluginRecord] = (),
    otherwise: str = "",
) -> None:
    """Checks that what a trained configuration names of plugins is there, and the same as when it was trained.

    Args:
        source: the plan's file, for messages.
        kinds: what is going to be used.
        copies: the folder in which the run keeps the plugins as they were.
        records: the plugins that run.json names; those that it does not name are looked up in the configuration's `why`.
        otherwise: a further way out, for the message.

    Raises:
        PlanError: a plugin is not loaded, not the one of the training, or it is unknown which one that was.
    """
    used = [record for record in records if is_plain_name(record.file)]
    for _, registry, name in plugin_names(configuration):
        word = f"{registry.kind} {name}"
        if registry.kind not in kinds:
            continue
        plugin = plugin_of(word)
        record = next((r for r in used if word in r.registered), None) or remembered_plugin(configuration, word)
        if plugin is not None and record is not None and plugin.record.sha256 == record.sha256:
            continue
        problem = "is not loaded" if plugin is None else "has changed since" if record else "is not recorded"
        raise PlanError(
            f"the {registry.kind} '{name}' of this training comes from a plugin that {problem}",
            file=source,
            found=f"{plugin.path} (sha256 {plugin.record.sha256})" if plugin else "no plugin with it",
            allowed=record or "one whose digest plan.json or run.json holds",
            fix=(f"--plugin {_as_it_was(record, copies)}" if record else "the run's folder as it was trained") + otherwise,
        )


def _as_it_was(record: PluginRecord, copies: Path) -> str:
    """The file of a plugin as it was in the training; `copies` as in `check_plugins`."""
    copy = copies / record.file
    is_kept = copy.is_file() and sha256(copy) == record.sha256
    return f"{copy}, which is kept as it was" if is_kept else f"{record.file} as it was"


def check_names(configuration: Configuration, where: str, source: str | Path) -> None:
    """Refuse a name that is neither built in nor that of a plugin.

    Args:
        where: the key of the configuration, for messages.

    Raises:
        PlanError: a name that is neither built in nor registered, and not remembered as that of a plugin.
    """
    for key, registry, name in plugin_names(configuration):
        if name not in registry and remembered_plugin(configuration, f"{registry.kind} {name}") is None:
            raise PlanError(
                f"'{where}.{key}' is unknown{nearest(name, registry)}",
                file=source,
                found=name,
                allowed=", ".join(registry),
                fix="--plugin FILE, if a plugin of yours registers it",
            )


def require_plugins(
    configuration: Configuration,
    source: str | Path,
    kinds: Collection[str] = ("loss", "block", "augmentation"),
    *,
    copies: Path | None = None,
) -> None:
    """Refuse a configuration that needs a plugin which this process has not loaded.

    Args:
        source: the plan's file, for messages.
        kinds: what is going to be used.
        copies: the folder in which a run keeps its plugins as they were.

    Raises:
        PlanError: the configuration names something of a plugin that this process has not run; says which file that is.
    """
    for key, registry, name in plugin_names(configuration):
        if registry.kind in kinds and name not in registry:
            record = remembered_plugin(configuration, f"{registry.kind} {name}")
            file = "FILE" if record is None else record.file if copies is None else _as_it_was(record, copies)
            raise PlanError(
                f"'{key}' names {registry.article} {registry.kind} of a plugin that is not loaded",
                file=source,
                found=f"{name}, of {record}" if record else name,
                fix=f"--plugin {file}, or autoseg.load_plugin in Python",
            )
