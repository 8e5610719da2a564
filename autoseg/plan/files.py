"""Plans as files: read and checked, older schemas brought up to date, written atomically."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autoseg.errors import PlanError, UsageError
from autoseg.plan.checks import check_plan
from autoseg.plan.model import SCHEMA_VERSION, Configuration
from autoseg.plan.plan import Plan
from autoseg.system.arguments import FilePath, as_path, check_type
from autoseg.system.documents import parse_json, shown
from autoseg.system.files import write_text
from autoseg.system.records import build_record, from_json, read_document, to_json

_WAY_OUT = "undo the last edit, or delete the file and plan again"
_RUN_WAY_OUT = "undo the last edit, or train again with --restart: the weights fit this plan only"


def load_plan(path: FilePath) -> Plan:
    """Reads and validates a plan.

    Raises:
        UsageError: no such file.
        PlanError: malformed, of another schema version, or contradictory; names the key.
    """
    path = as_path(path, "path")
    if not path.is_file():
        raise UsageError("there is no plan", file=path, fix="autoseg plan_and_preprocess -d DATASET")
    fix = _RUN_WAY_OUT if (path.parent / "run.json").is_file() else _WAY_OUT
    return parse_plan(read_document(path, fix=fix), path, fix=fix)


def parse_plan(text: str, source: str | Path, *, fix: str = _WAY_OUT) -> Plan:
    """Parses and validates the text of a plan, as `load_plan` does.

    Args:
        source: its file, for messages.
        fix: the way out where there is none that is nearer.
    """
    document = _upgraded(parse_json(text, source, PlanError, what="the plan", fix=fix), source)
    plan = build_record(Plan, document, source, fix=fix)
    try:
        check_plan(plan, source)
    except PlanError as error:
        error.fix = error.fix or fix
        raise
    return plan


def as_read(configuration: Configuration, source: FilePath) -> Configuration:
    """The configuration as a plan's file would give it back.

    Args:
        source: what made it, for messages.

    Raises:
        PlanError: a value of another type.
    """
    return from_json(Configuration, to_json(configuration), Path(source))


def save_plan(plan: Plan, path: FilePath) -> None:
    """Writes the plan atomically."""
    check_type(plan, "plan", Plan, "an autoseg.Plan")
    write_text(as_path(path, "path"), to_json(plan))


def _upgraded(document: Any, source: str | Path) -> Any:
    """A plan of an older schema as one of the present schema; `build_record` names the faults of what is none."""
    if not isinstance(document, dict):
        return document
    version = document.get("schema_version", SCHEMA_VERSION)
    if not isinstance(version, int) or isinstance(version, bool) or version not in range(1, SCHEMA_VERSION + 1):
        raise PlanError(
            "the plan has another schema version",
            file=source,
            found=shown(version),
            allowed=f"1 to {SCHEMA_VERSION}",
            fix="plan again, or use the version of autoseg that wrote it (origin.autoseg_version)",
        )
    for upgrade in _UPGRADES[version - 1 :]:
        document = upgrade(document)
    return document


def _from_version_1(document: dict[str, Any]) -> dict[str, Any]:
    """Version 2 added `first`, `previous`, `space.slice_axis`, `training.time_s` and `footprint`.

    Malformed parts stay as they are, for `build_record` to name.
    """
    configurations = document.get("configurations")
    for c in configurations.values() if isinstance(configurations, dict) else ():
        if not isinstance(c, dict):
            continue
        c.setdefault("previous", None)
        c.setdefault("footprint", None)
        if isinstance(space := c.get("space"), dict) and isinstance(spacing := space.get("spacing_mm"), list):
            space.setdefault("slice_axis", 0 if len(spacing) == 2 else None)
        if isinstance(training := c.get("training"), dict):
            training.setdefault("time_s", None)
    if isinstance(configurations, dict) and configurations:
        document.setdefault("first", next(iter(configurations)))
    if isinstance(origin := document.get("origin"), dict):
        origin.setdefault("family", "plain")
        origin.setdefault("gmacs_per_s", None)
        origin.setdefault("compute", None)
        origin.setdefault("recipe", "adamw_cosine")
    return document | {"schema_version": 2}


def _from_version_2(document: dict[str, Any]) -> dict[str, Any]:
    """Version 3 added landmarks."""
    if isinstance(data := document.get("data"), dict):
        data.setdefault("landmarks", {"names": [], "pairs": []})
    configurations = document.get("configurations")
    for c in configurations.values() if isinstance(configurations, dict) else ():
        if isinstance(c, dict):
            c.setdefault("landmarks", None)
    return document | {"schema_version": 3}


def _from_version_3(document: dict[str, Any]) -> dict[str, Any]:
    """Version 4 knows one-sided landmarks, and no longer says what a spatial configuration branch is fed.

    Before, no network could be trained with such a branch, so how its maps are combined need not be kept.
    """
    configurations = document.get("configurations")
    for c in configurations.values() if isinstance(configurations, dict) else ():
        landmarks = c.get("landmarks") if isinstance(c, dict) else None
        if isinstance(landmarks, dict) and isinstance(scn := landmarks.get("scn"), dict):
            scn.pop("input", None)
            scn["combine"] = "product" if landmarks.get("loss") == "mse" else "gate"
    return document | {"schema_version": 4}


def _from_version_4(document: dict[str, Any]) -> dict[str, Any]:
    """Version 5 calls `first` `default_configuration`, and `previous` `previous_stage`."""
    _rename_key(document, "first", "default_configuration")
    _rename_key(document.get("why"), "first", "default_configuration")
    configurations = document.get("configurations")
    for c in configurations.values() if isinstance(configurations, dict) else ():
        _rename_key(c, "previous", "previous_stage")
        _rename_key(c.get("why") if isinstance(c, dict) else None, "previous", "previous_stage")
    return document | {"schema_version": 5}


def _from_version_5(document: dict[str, Any]) -> dict[str, Any]:
    """Version 6 added the ladder."""
    document.setdefault("ladder", [])
    return document | {"schema_version": 6}


def _rename_key(mapping: Any, old: str, new: str) -> None:
    """Renames a key where there is one; anything but an object stays as it is."""
    if isinstance(mapping, dict) and old in mapping:
        mapping[new] = mapping.pop(old)


_UPGRADES = (_from_version_1, _from_version_2, _from_version_3, _from_version_4, _from_version_5)  # from version 1, 2, …
