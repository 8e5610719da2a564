"""Strict conversion of dataclasses to JSON and back, for the plan, the fingerprint and every other document.

Field for field, in declared order. An unknown or missing key is an error that names the key and the nearest valid one.
"""

from __future__ import annotations

import inspect
import json
import math
import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from autoseg.errors import AutosegError, PlanError, nearest
from autoseg.system.documents import parse_json, read_text, shown
from autoseg.system.registry import Registry

T = TypeVar("T")
REWRITE = "undo the last edit, or delete the file and create it again"
_LARGEST_INT = 2**63  # what the arrays hold that whole numbers become


def to_json(record: Any) -> str:
    """Write a record as JSON: two-space indent, declared key order, short lists on one line, final newline."""
    return _render(_plain(record), 0) + "\n"


def from_json(kind: type[T], text: str, source: str | Path, *, fix: str = REWRITE) -> T:
    """Build the dataclass `kind` from JSON text.

    Args:
        source: the file's name, for messages.
        fix: the way out where there is none that is nearer.

    Raises:
        PlanError: not JSON, unknown or missing key, a value of another type, or a number that is not finite.
    """
    return build_record(kind, parse_json(text, source, PlanError, fix=fix), source, fix=fix)


def build_record(kind: type[T], raw: Any, source: str | Path, *, fix: str = REWRITE) -> T:
    """Build the dataclass `kind` from JSON values that `parse_json` gave; raises as `from_json` does."""
    try:
        record: T = _build(kind, raw, "", source)
    except PlanError as error:
        error.fix = error.fix or fix
        raise
    return record


def read_record(kind: type[T], path: Path, *, fix: str = REWRITE) -> T:
    """Build the dataclass `kind` from a JSON file; raises as `read_document` and `from_json` do."""
    return from_json(kind, read_document(path, fix=fix), path, fix=fix)


def read_document(path: Path, *, fix: str = REWRITE) -> str:
    """Read the text of a JSON file.

    Raises:
        PlanError: it cannot be read, or is not UTF-8.
    """
    return read_text(path, PlanError, what="the document", fix=f"save it as UTF-8; {fix}")


def json_schema(kind: type) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a dataclass, for editors that check and complete what is typed.

    Descriptions are the docstrings; what depends on other values is checked by the code that reads the document.
    """
    records: dict[str, Any] = {}
    top = _schema(kind, records)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **top, "$defs": records}


def _schema(kind: Any, records: dict[str, Any]) -> dict[str, Any]:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_schema(a, records) for a in args]}
    if origin is typing.Literal:
        return {"enum": list(args)}
    if origin is typing.Annotated:
        return {"enum": list(args[1].built_in)} if isinstance(args[1], Registry) else _schema(args[0], records)
    if is_dataclass(kind):
        name = kind.__name__  # type: ignore[union-attr]
        if name not in records:
            hints = typing.get_type_hints(kind, include_extras=True)
            records[name] = {}  # holds the place while its own fields are described
            records[name] = {
                "type": "object",
                "description": inspect.cleandoc(kind.__doc__ or ""),
                "properties": {f.name: _schema(hints[f.name], records) for f in fields(kind)},
                "required": [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING],
                "additionalProperties": False,
            }
        return {"$ref": f"#/$defs/{name}"}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(args[1], records)}
    if origin in (tuple, list):
        if origin is tuple and args[-1] is not Ellipsis:
            return {"type": "array", "prefixItems": [_schema(a, records) for a in args], "items": False, "minItems": len(args)}
        return {"type": "array", "items": _schema(args[0], records)}
    names = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
    return {"type": names[kind]}


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value.tolist() if hasattr(value, "tolist") else value  # numbers and arrays of numpy


def _render(value: Any, depth: int) -> str:
    pad = "  " * (depth + 1)
    if isinstance(value, dict) and value:
        lines = [f"{pad}{json.dumps(k, ensure_ascii=False)}: {_render(v, depth + 1)}" for k, v in value.items()]
        return "{\n" + ",\n".join(lines) + "\n" + "  " * depth + "}"
    if isinstance(value, list) and any(isinstance(v, (dict, list)) for v in value):
        flat = json.dumps(value, ensure_ascii=False)
        if len(flat) <= 100 and not any(isinstance(v, dict) for v in value):
            return flat
        return "[\n" + ",\n".join(pad + _render(v, depth + 1) for v in value) + "\n" + "  " * depth + "]"
    return json.dumps(value, ensure_ascii=False)


def _build(kind: Any, raw: Any, where: str, source: str | Path) -> Any:
    """`raw` as a value of the annotated type `kind`; `where` is the dotted key it stands at."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if raw is None and type(None) in args:
            return None
        return _build(next(a for a in args if a is not type(None)), raw, where, source)
    if origin is typing.Literal:
        if raw not in args:
            hint = nearest(raw, map(str, args)) if isinstance(raw, str) else ""
            found = raw if isinstance(raw, str) else shown(raw)
            raise PlanError(f"'{where}' is unknown{hint}", file=source, found=found, allowed=", ".join(map(str, args)))
        return raw
    if is_dataclass(kind):
        return _build_record(kind, raw, where, source)
    if origin is dict:
        _expect(isinstance(raw, dict), "an object", raw, where, source)
        return {k: _build(args[1], v, f"{where}.{k}" if where else k, source) for k, v in raw.items()}
    if origin in (tuple, list):
        _expect(isinstance(raw, list), "a list", raw, where, source)
        inner = args if origin is tuple and args[-1] is not Ellipsis else (args[0],) * len(raw)
        _expect(len(inner) == len(raw), f"{len(inner)} entries", raw, where, source)
        return origin(_build(k, v, f"{where}[{i}]", source) for i, (k, v) in enumerate(zip(inner, raw)))
    if kind is float:
        _expect(isinstance(raw, (int, float)) and not isinstance(raw, bool), "a number", raw, where, source)
        _expect(is_finite(raw), "a finite number", raw, where, source, fault="cannot be used")
        return float(raw)
    _expect(isinstance(raw, kind) and (kind is bool or not isinstance(raw, bool)), kind.__name__, raw, where, source)
    _expect(kind is not int or abs(raw) < _LARGEST_INT, "a number of 64 bits", raw, where, source, fault="cannot be used")
    return raw


def _build_record(kind: Any, raw: Any, where: str, source: str | Path) -> Any:
    _expect(isinstance(raw, dict), "an object", raw, where, source)
    hints = _type_hints(kind)
    declared = {f.name: f for f in fields(kind)}
    prefix = f"{where}." if where else ""
    for key in raw:
        if key not in declared:
            raise PlanError(f"unknown key '{prefix}{key}'{nearest(key, declared)}", file=source, allowed=", ".join(declared))
    for name, field in declared.items():
        if name not in raw and field.default is MISSING and field.default_factory is MISSING:
            raise PlanError(f"missing key '{prefix}{name}'", file=source, fix="add it, or create the file again")
    values = {name: _build(hints[name], raw[name], prefix + name, source) for name in declared if name in raw}
    try:
        return kind(**values)
    except AutosegError as error:  # a record that checks itself knows neither its place nor its file
        place = f"'{where}': " if where else ""
        raise PlanError(place + error.problem, file=source, found=error.found, allowed=error.allowed) from error


@cache
def _type_hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def is_finite(number: float) -> bool:
    """True for a number, whole or not, that a float holds."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def _expect(ok: bool, expected: str, raw: Any, where: str, source: str | Path, *, fault: str = "has the wrong type") -> None:
    if not ok:
        raise PlanError(f"'{where or 'document'}' {fault}", file=source, found=shown(raw), allowed=expected)
