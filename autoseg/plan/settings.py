"""Values of a plan that a user sets by their keys, on the command line with --set KEY=VALUE or in Python."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from autoseg.errors import PlanError, UsageError, nearest
from autoseg.plan import Configuration, Plan, parse_plan
from autoseg.plan.edits import CONFIGURATIONS, NOT_DECISIONS, SET, SET_FOR_RUN, Edit, Key, apply_edit, dotted, remember_in_plan
from autoseg.system.records import to_json

OF_NO_RUN = ("default_configuration", "ladder")  # what says which configurations are trained
NEEDS_PREPARING = ("space", "data", "previous_stage")  # what a run cannot have otherwise than its prepared cases


def parse_settings(texts: Sequence[str]) -> dict[str, Any]:
    """Reads 'KEY=VALUE' texts; a value is JSON, or else the text itself.

    Raises:
        UsageError: a text without '=', or a key that is given twice.
    """
    settings: dict[str, Any] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not (key and equals):
            raise UsageError("--set takes KEY=VALUE", found=text, allowed="a key as plan show prints it: training.loss=dice")
        if key in settings:
            raise UsageError(f"--set gives '{key}' twice", found=f"{json.dumps(settings[key])} and {value}")
        try:
            settings[key] = json.loads(value)
        except json.JSONDecodeError:
            settings[key] = value
        except (ValueError, RecursionError) as error:
            raise UsageError(f"the value of '{key}' cannot be read", found=str(error).split(":")[0]) from error
    return settings


def apply_settings(
    plan: Plan, settings: Mapping[str, Any], source: str | Path, *, configuration: str | None = None, origin: str = SET
) -> Plan:
    """Sets values of a plan; the `why` of each says so, and the plan remembers the plugins that it names.

    Args:
        settings: by key: inside a configuration (training.loss), of the whole plan (data.channels[0].normalization), or in full.
        source: the plan's file, for messages.
        configuration: the one that keys inside a configuration mean; None means all that have them.
        origin: the first words of `why`.

    Raises:
        UsageError: no such key or configuration, a value of another type, or one that contradicts the rest of the plan.
    """
    if not settings:
        return plan
    chosen = tuple(plan.configurations) if configuration is None else (plan.configuration(configuration)[0],)
    document: dict[str, Any] = json.loads(to_json(plan))
    places = dict(_values(document))
    values = {text: _as_json(text, value) for text, value in settings.items()}
    for text, value in values.items():
        for key in _keys(text, places, chosen):
            apply_edit(document, Edit(key, places[key], value, origin))
    try:
        changed = parse_plan(json.dumps(document), source)
    except PlanError as error:
        asked = ", ".join(f"{key}={json.dumps(value)}" for key, value in values.items())
        raise UsageError(
            f"the plan cannot be set so: {error.problem}",
            file=source,
            found=f"{error.found}, with {asked}",
            allowed=error.allowed,
            fix=error.fix,
        ) from error
    return remember_in_plan(changed)


def apply_run_settings(plan: Plan, settings: Mapping[str, Any], source: str | Path, configuration: str) -> Plan:
    """Sets values for a single run; raises as `apply_settings` does, and for what would change nothing or needs other cases.

    Args:
        configuration: the one that is trained.
    """
    for text in settings:
        key = _split(str(text))
        group = key[2:] if key[0] == CONFIGURATIONS else key
        if key[0] == CONFIGURATIONS and key[1:2] != (configuration,) and key[1:2] and key[1] in plan.configurations:
            raise UsageError(
                f"'{text}' would change nothing: another configuration is trained",
                found=configuration,
                fix=f"-c {key[1]}, or {dotted(group) or 'a key'} without the configuration's name",
            )
        if group[:1] and group[0] in OF_NO_RUN:
            raise UsageError(f"'{text}' cannot be set for a single run", fix=f"autoseg plan --set {text}=VALUE")
        if group[:1] and group[0] in NEEDS_PREPARING:
            raise UsageError(
                f"'{text}' cannot be set for a single run: the prepared cases follow from it",
                allowed="keys in patch, network, landmarks, training, inference, postprocess",
                fix=f"autoseg plan_and_preprocess --set {text}=VALUE, which prepares them again",
            )
    return apply_settings(plan, settings, source, configuration=configuration, origin=SET_FOR_RUN)


def run_settings(configuration: Configuration) -> dict[str, Any]:
    """Values that were set for the run that a configuration was trained in, by key."""
    values = {dotted(key): value for key, value in _values(json.loads(to_json(configuration)))}
    return {key: values[key] for key, reason in configuration.why.items() if reason.startswith(SET_FOR_RUN) and key in values}


def _as_json(key: Any, value: Any) -> Any:
    """A user's value as a plan's file would hold it.

    Raises:
        UsageError: JSON has no such value, or the key is no text.
    """
    try:
        if not isinstance(key, str):
            raise TypeError(f"keys are texts, such as training.loss, not {type(key).__name__}")
        return json.loads(to_json(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"the plan cannot hold this for '{key}'", found=str(error) or type(error).__name__) from error


def _keys(text: str, places: Mapping[Key, Any], chosen: Sequence[str]) -> list[Key]:
    """The keys of a document that a user's key means.

    Raises:
        UsageError: none; names the nearest.
    """
    key = _split(text)
    keys = [key] if key in places else [(CONFIGURATIONS, name, *key) for name in chosen]
    keys = [k for k in keys if k in places]
    if not keys:
        inside = (k[2:] if k[0] == CONFIGURATIONS else k for k in places)
        allowed = dict.fromkeys(dotted(k) for k in inside if k)
        raise UsageError(f"the plan has no key '{text}'{nearest(text, allowed)}", allowed="the keys that plan show prints")
    return keys


def _split(text: str) -> Key:
    """'data.channels[0].normalization' as a key."""
    return tuple(re.sub(r"\[(\d+)\]", r".\1", text).split("."))


def _values(value: Any, key: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Yields all that is decided with its key, groups as well as what is in them."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        value = {str(i): part for i, part in enumerate(value)}
    if len(key) > (2 if key[:1] == (CONFIGURATIONS,) else 0):
        yield key, value
    if isinstance(value, dict):
        for name, part in value.items():
            if name not in NOT_DECISIONS:
                yield from _values(part, (*key, name))
