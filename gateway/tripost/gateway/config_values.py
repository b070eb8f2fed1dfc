"""a configuration as a list of keys with their values, and where each value comes from

API      `values(config)`: every key that has a value, as it would be written. `origin(…)`: the file and line, or what
         else it comes from. `differences(one, other)`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from types import UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

import msgspec

from tripost.gateway import units
from tripost.gateway.config_positions import Path
from tripost.gateway.config_reader import table_of
from tripost.gateway.config_sources import Sources, dotted
from tripost.gateway.settings import AUTO, Config

_TEXTS: dict[str, Callable[[Any], str]] = {
    "duration": units.duration_text,
    "size": units.size_text,
    "rate": units.rate_text,
    "octets a second": units.byte_rate_text,
    "path": str,
}
# what is filled in where nothing is written: key → from where
_FILLED: dict[Path, str] = {
    ("hostname",): "the machine's name",
    ("auth", "file"): "default, in state",
    ("local", "domains"): "default, the hostname",
}


def values(config: Config) -> dict[Path, str]:
    """Key → value as TOML. What is absent, and is then as in another table, is left out."""
    return dict(_walk(Config, config, ()))


def _walk(hint: Any, value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    inner = table_of(hint)
    origin = get_origin(hint)
    if value is None:
        return
    if origin is dict:
        for name, one in value.items():
            yield from _walk(get_args(hint)[1], one, (*path, name))
    elif origin is list and inner is not None:
        for number, one in enumerate(value):
            yield from _walk(inner, one, (*path, number))
    elif inner is not None:
        for name, each in get_type_hints(inner, include_extras=True).items():
            yield from _walk(each, getattr(value, name), (*path, name))
    else:
        yield path, text(hint, value)


def text(hint: Any, value: Any) -> str:
    """One value as TOML."""
    marks = getattr(hint, "__metadata__", ())
    if marks and marks[0] == "processes":
        return str(value) if value != AUTO else _quoted("auto")
    if marks:
        return _quoted(_TEXTS[marks[0]](value))
    origin = get_origin(hint)
    if origin is UnionType or origin is Union:
        return text(get_args(hint)[0], value)
    if origin is list:
        item = get_args(hint)[0]
        return f"[{', '.join(text(item, one) for one in cast('list[Any]', value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return _quoted(value) if isinstance(value, str) else str(value)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)  # what JSON escapes, TOML's basic strings escape alike


class Origin(msgspec.Struct, frozen=True):
    """`source`: "FILE:LINE", "default", or what else it is; `file` and `line` where it is written in one."""

    source: str
    file: str = ""
    line: int = 0


def origin(key: Path, sources: Sources, environment: Mapping[str, str]) -> Origin:
    place = sources.written(key)
    if place is not None:
        return Origin(f"{place.file}:{place.line}", place.file, place.line)
    if not sources.files and key[0] == "listen":
        return Origin("built-in")
    if key == ("state",):
        name = next((one for one in ("STATE_DIRECTORY", "XDG_STATE_HOME") if environment.get(one)), "")
        return Origin(f"environment: {name}" if name else "default, in the home directory")
    return Origin(_FILLED.get(key, "default"))


def differences(one: Mapping[str, str], other: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(key, value in `one`, value in `other`), "" for none, of what is not the same."""
    keys = [*one, *(key for key in other if key not in one)]
    rows = [(key, one.get(key, ""), other.get(key, "")) for key in keys]
    return [row for row in rows if row[1] != row[2]]


def named(config: Config) -> dict[str, str]:
    """`values` by their keys as people read them."""
    return {dotted(key): value for key, value in values(config).items()}
