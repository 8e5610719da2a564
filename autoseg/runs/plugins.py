"""The plugins of a run, kept beside its weights as they were."""

from __future__ import annotations

from pathlib import Path

from autoseg.plan import Configuration
from autoseg.plan.plugin_names import used_plugins
from autoseg.system.files import atomic_path

PLUGINS = "plugins"  # the folder; nothing in it is run unless a user names it


def keep_plugins(run: Path, configuration: Configuration) -> None:
    """Copy the plugins that a configuration uses into the folder of a run.

    Raises:
        DiskError: nothing can be written there.
    """
    for plugin in used_plugins(configuration):
        with atomic_path(run / PLUGINS / plugin.record.file) as temporary:
            temporary.write_bytes(plugin.source)
