"""the JSON Schema of a configuration file, made from its types

For editors (Even Better TOML and taplo take it), which then complete keys, show what they are for, and mark what is
wrong. It says what types can say; `tripost check` says the rest.
"""

from __future__ import annotations

from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from tripost.gateway.config_help import help_of
from tripost.gateway.config_reader import UNITS, table_of
from tripost.gateway.config_values import text
from tripost.gateway.settings import Config

DRAFT = "http://json-schema.org/draft-07/schema#"  # what editors know
_DURATION = r"^(0|[0-9]+(\.[0-9]+)? ?(ms|s|m|min|h|d))$"
_SIZE = r"^(0|[0-9]+(\.[0-9]+)? ?(B|KiB|MiB|GiB|TiB))$"
_PATTERNS = {
    "duration": _DURATION,
    "size": _SIZE,
    "rate": r"^([1-9][0-9]* ?/ ?[0-9]* ?(s|m|min|h|d))?$",
    "octets a second": r"^(0|[0-9]+(\.[0-9]+)? ?(B|KiB|MiB|GiB|TiB) ?/ ?s)$",
}
_PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer", "minimum": 0},
    float: {"type": "number", "minimum": 0},
}


def schema() -> dict[str, Any]:
    made = _table(Config, "")
    return {"$schema": DRAFT, "title": "tripost.toml", "description": "The configuration of a tripost gateway."} | made


def _table(kind: type[Any], at: str) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    properties: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        key = f"{at}.{field.name}" if at else field.name
        hint = hints[field.name]
        made = _value(hint, key)
        told = help_of(key)
        if told is not None:
            made = made | {"description": told.text}
        default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
        if default not in (msgspec.NODEFAULT, None) and table_of(hint) is None:
            made = made | {"default": _written(hint, default)}
        properties[field.name] = made
    required = [field.name for field in msgspec.structs.fields(kind) if field.required]
    table: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": properties}
    return table | ({"required": required} if required else {})


def _value(hint: Any, key: str) -> dict[str, Any]:
    marks = getattr(hint, "__metadata__", ())
    if marks:
        if marks[0] == "path":
            return {"type": "string", "format": "path"}
        if marks[0] == "processes":
            return {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 64}, {"const": "auto"}]}
        pattern = _PATTERNS[marks[0]]
        return {"type": "string", "pattern": pattern, "examples": [UNITS[marks[0]][1].strip('"')]}
    origin = get_origin(hint)
    if origin is UnionType or origin is Union:
        return _value(get_args(hint)[0], key)
    if origin is Literal:
        return {"enum": list(get_args(hint))}
    if origin is list:
        return {"type": "array", "items": _value(get_args(hint)[0], key)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _value(get_args(hint)[1], f"{key}.NAME")}
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return _table(hint, key)
    return dict(_PLAIN[hint])


def _written(hint: Any, value: Any) -> Any:
    """A default as it would stand in a file."""
    marks = getattr(hint, "__metadata__", ())
    if marks and marks[0] == "processes":
        return value or "auto"
    return text(hint, value).strip('"') if marks else value
