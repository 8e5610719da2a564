"""Files of users that add losses, blocks, augmentations and planner rules.

A plugin is run when a user names it, on the command line or to `load_plugin`, and never because a plan, a run or a model does.
"""

from __future__ import annotations

import hashlib
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from autoseg.errors import AutosegError, UsageError, nearest
from autoseg.plan.registries import REGISTRIES
from autoseg.system.arguments import FilePath, as_path
from autoseg.system.names import check_name
from autoseg.system.registry import Registry

T = TypeVar("T")


@dataclass(frozen=True)
class PluginRecord:
    """A plugin as plans and runs remember it: name and digest of the file, and what it has registered ('loss my_loss')."""

    file: str
    sha256: str
    registered: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.file} (sha256 {self.sha256})"


@dataclass(frozen=True)
class Plugin:
    """A plugin that this process has run: what it is remembered by, where it lies, and what stood in it."""

    record: PluginRecord
    path: Path
    source: bytes


_plugins: dict[str, Plugin] = {}  # by the name of the file
_registering: list[tuple[Registry, str]] | None = None  # what the plugin that is being run has registered so far


def register(kind: str, name: str) -> Callable[[T], T]:
    """Adds what is defined below it under a name that plans can use: a decorator for plugin files.

    Args:
        kind: 'loss', 'block', 'augmentation' or 'planner_rule'; autoseg/plan/registries.py says what each is called with.

    Raises:
        UsageError: no such kind; a name that is none or exists; not called as its kind is; or not in a file that is being loaded.
    """
    if kind not in REGISTRIES:
        hint = nearest(kind, REGISTRIES) if isinstance(kind, str) else ""
        raise UsageError(f"nothing of this kind can be registered{hint}", found=repr(kind), allowed=", ".join(REGISTRIES))

    def add(item: T) -> T:
        if _registering is None:  # else nobody would know which file a name belongs to
            raise UsageError(
                f"the {kind} '{name}' is registered outside of a plugin",
                fix="put it into a file of its own and give that to --plugin or autoseg.load_plugin",
            )
        REGISTRIES[kind].add(name, item)
        _registering.append((REGISTRIES[kind], name))
        return item

    return add


def load_plugin(path: FilePath) -> PluginRecord:
    """Runs a user's Python file, which registers what it defines (see `register`). A file that has been run is not run again.

    Raises:
        UsageError: no such file, it cannot be run, registers nothing, or something that cannot be registered. Nothing of it
            stays registered then.
    """
    path = as_path(path, "path")
    check_name(path.name, "a plugin", UsageError, path)  # plans remember it by this name
    try:
        source = path.read_bytes()
    except OSError as error:
        raise UsageError("the plugin cannot be read", file=path, found=error.strerror, allowed="a Python file") from error
    digest = hashlib.sha256(source).hexdigest()
    if path.name in _plugins:
        return _again(_plugins[path.name], path, digest)
    registered = _run(source, path)
    record = PluginRecord(path.name, digest, tuple(f"{registry.kind} {name}" for registry, name in registered))
    _plugins[path.name] = Plugin(record, path, source)
    return record


def plugin_of(word: str) -> Plugin | None:
    """The plugin that has registered 'loss my_loss', if one has."""
    return next((plugin for plugin in _plugins.values() if word in plugin.record.registered), None)


def plugin_failure(what: str, path: Path, error: BaseException, fix: str | None = None) -> UsageError:
    """The error for one that code of a plugin has raised; it names the line of the file.

    Args:
        what: cannot be done, as a sentence.
    """
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    where = ""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        where = f"line {error.lineno}: "
    elif frames:
        function = "" if frames[-1].name.startswith("<") else f", {frames[-1].name}"  # '<module>' and '<lambda>' are no names
        where = f"line {frames[-1].lineno}{function}: "
    return UsageError(what, file=path, found=f"{where}{type(error).__name__}: {error}", fix=fix)


def _again(plugin: Plugin, path: Path, digest: str) -> PluginRecord:
    """The record of a plugin that has been run before.

    Raises:
        UsageError: another file has the same name, or the file has changed since.
    """
    if plugin.record.sha256 == digest:
        return plugin.record
    changed = plugin.path.resolve() == path.resolve()
    raise UsageError(
        "the plugin has changed since it was loaded" if changed else "two plugins have the same file name",
        file=path,
        found=plugin.path,
        fix="start Python anew" if changed else "rename one of them",
    )


def _run(source: bytes, path: Path) -> list[tuple[Registry, str]]:
    """Import the file and return what it registers; nothing stays registered if that fails.

    Raises:
        UsageError: names the line and what went wrong there.
    """
    global _registering
    module = ModuleType(f"autoseg_plugin_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses and pickle look for what a file defines
    registered: list[tuple[Registry, str]] = []
    outer, _registering = _registering, registered
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
        if not registered:
            example = '@autoseg.register("loss", "my_loss") above a function, for one'
            raise UsageError("the plugin registers nothing", file=path, fix=example)
    except BaseException as error:  # sys.exit() in a plugin must not look like success either
        for registry, name in registered:
            registry.remove(name)
        del sys.modules[module.__name__]
        if isinstance(error, KeyboardInterrupt):
            raise
        if isinstance(error, AutosegError):
            error.file = error.file or str(path)
            raise
        raise plugin_failure("the plugin cannot be imported", path, error, "mend that line; nothing has been started") from error
    finally:
        _registering = outer
    return registered
