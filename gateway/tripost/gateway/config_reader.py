"""from tables to typed settings, telling everything that does not fit

Walks the types and the table side by side. What does not fit is complained of and stands as its default, so that the
rest can be looked at as well; `broken` are the keys of which that is so.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import msgspec

from tripost.gateway import units
from tripost.gateway.config_positions import Path
from tripost.gateway.settings import Config

NAMES: dict[Any, str] = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
UNITS: dict[str, tuple[Callable[[str], Any], str]] = {
    "duration": (units.duration, '"5m"'),
    "size": (units.size, '"50MiB"'),
    "rate": (units.rate, '"100/min"'),
    "octets a second": (units.byte_rate, '"100B/s"'),
}
# what systemd gives a service: places that only it knows
VARIABLES = (
    *("CREDENTIALS_DIRECTORY", "STATE_DIRECTORY", "CONFIGURATION_DIRECTORY", "RUNTIME_DIRECTORY", "LOGS_DIRECTORY"),
)
_VARIABLE = re.compile(r"\$\{([^}]*)\}")


class Reader:
    """`folder(key)`: that of the file in which a key is written, from which its relative paths count."""

    def __init__(self, folder: Callable[[Path], str], environment: Mapping[str, str]) -> None:
        self.errors: list[tuple[Path, str]] = []
        self.broken: set[Path] = set()
        self._folder = folder
        self._environment = environment

    def error(self, path: Path, reason: str) -> None:
        self.errors.append((path, reason))
        self.broken.add(path)

    def config(self, table: dict[str, Any]) -> Config:
        read: Config = self.struct(Config, table, ())
        return read

    def is_broken(self, path: Path) -> bool:
        """Was it, what is around it, or something in it, complained of already?"""
        return any(one[: len(path)] == path or path[: len(one)] == one for one in self.broken)

    def struct(self, kind: type[Any], table: object, path: Path) -> Any:
        if not isinstance(table, dict):
            self.error(path, f"must be a table, not {shown(table)}")
            table = {}
        rows = {str(key): value for key, value in cast("dict[str, object]", table).items()}
        hints = get_type_hints(kind, include_extras=True)
        for key in rows:
            if key not in hints:
                self.error((*path, key), f"unknown key{_unknown(key, hints, rows)}")
        values: dict[str, Any] = {}
        for field in msgspec.structs.fields(kind):
            hint, here = hints[field.name], (*path, field.name)
            if field.name in rows:
                values[field.name] = self.value(hint, rows[field.name], here)
                if here in self.broken and not field.required and not values[field.name]:
                    del values[field.name]
            elif field.required:
                if path not in self.broken:
                    self.errors.append((path, f'"{field.name}" is missing'))
                self.broken.add(here)
                values[field.name] = _stand_in(hint)
        return kind(**values)

    def value(self, hint: Any, value: object, path: Path) -> Any:
        marks = getattr(hint, "__metadata__", ())
        if marks:
            if marks[0] == "processes":
                return self._processes(value, path)
            return self._path(value, path) if marks[0] == "path" else self._unit(marks[0], value, path)
        origin = get_origin(hint)
        if origin is UnionType or origin is Union:  # X | None: what is absent is None
            return self.value(get_args(hint)[0], value, path)
        if origin is dict:
            return self._table(get_args(hint)[1], value, path)
        if origin is list:
            return self._list(get_args(hint)[0], value, path)
        if origin is Literal:
            return self._choice(get_args(hint), value, path)
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            return self.struct(hint, value, path)
        if hint is float and type(value) is int:
            value = float(value)
        if type(value) is not hint:
            self.error(path, f"must be {NAMES[hint]}, not {shown(value)}{_quoted(hint, value)}")
            return _stand_in(hint)
        if isinstance(value, (int, float)) and value < 0:
            self.error(path, "must not be negative")
        return value

    def _list(self, item: Any, value: object, path: Path) -> Any:
        if not isinstance(value, list):
            one = f"; write [{shown(value)}]" if item is str and isinstance(value, str) else ""
            table = f"; write [[{path[-1]}]]" if type(value) is dict else ""
            self.error(path, f"must be a list, not {shown(_anything(value))}{one}{table}")
            return []
        return [self.value(item, one, (*path, number)) for number, one in enumerate(cast("list[object]", value))]

    def _table(self, item: Any, value: object, path: Path) -> Any:
        if not isinstance(value, dict):
            self.error(path, f"must be a table, not {shown(value)}")
            return {}
        rows = cast("dict[str, object]", value)
        return {str(key): self.value(item, one, (*path, str(key))) for key, one in rows.items()}

    def _choice(self, choices: tuple[Any, ...], value: object, path: Path) -> Any:
        if value in choices:
            return value
        close = difflib.get_close_matches(str(value), [one for one in choices if one], 1)
        also = f'; did you mean "{close[0]}"?' if close else ""
        self.error(path, f"must be one of {', '.join(one for one in choices if one)}, not {shown(value)}{also}")
        return choices[0]

    def _processes(self, value: object, path: Path) -> int:
        try:
            return units.processes(cast("str | int", value))
        except ValueError as wrong:
            self.error(path, f"{wrong}, not {shown(value)}")
            return 1

    def _unit(self, unit: str, value: object, path: Path) -> Any:
        parse, example = UNITS[unit]
        if not isinstance(value, str):
            self.error(path, f"must be {_article(unit)} such as {example}, not {shown(value)}")
            return parse("0" if unit != "rate" else "")
        try:
            return parse(value)
        except ValueError as wrong:
            self.error(path, str(wrong))
            return parse("0" if unit != "rate" else "")

    def _path(self, value: object, path: Path) -> str:
        """Absolute, its variables filled in as far as they are set: the commands of an operator see fewer of them than
        the service does."""
        if not isinstance(value, str):
            self.error(path, f"must be a path, not {shown(value)}")
            return ""
        for name in _VARIABLE.findall(value):
            if name not in VARIABLES:
                known = ", ".join(VARIABLES)
                self.error(path, f"${{{name}}} is not one of {known}")
                return value
        if not value:
            return ""
        text = _VARIABLE.sub(lambda match: self._environment.get(match[1], match[0]).partition(":")[0], value)
        return text if text.startswith("${") else os.path.normpath(os.path.join(self._folder(path), text))


def unset(path: str) -> str:
    """The variable that a path begins with and that is not set here; "" for none."""
    match = _VARIABLE.match(path)
    return match[1] if match else ""


def shown(value: object) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, bool):
        return str(value).lower()
    return "a table" if isinstance(value, dict) else repr(value)


def _anything(value: Any) -> object:
    return value


def _article(unit: str) -> str:
    return unit if " " in unit else f"a {unit}"


def _quoted(hint: Any, value: object) -> str:
    """A hint for true and numbers that were put into quotes."""
    if isinstance(value, str) and hint in (int, float, bool):
        try:
            bare = value in ("true", "false") if hint is bool else hint(value) >= 0
        except ValueError:
            return ""
        return "; write it without quotes" if bare else ""
    return ""


def _stand_in(hint: Any) -> Any:
    """Something of the type, where what is required is missing or wrong."""
    origin = get_origin(hint)
    if origin is Literal:
        return get_args(hint)[0]
    return [] if origin is list else "" if getattr(hint, "__metadata__", ()) else hint() if origin is None else None


def _unknown(key: str, hints: dict[str, Any], rows: dict[str, object]) -> str:
    """What may have been meant: a key of that name elsewhere, else one of about that name here."""
    places = homes().get(key, [])
    if "" in places:
        return f'; "{key}" stands at the top, before the first [table]'
    if places:
        return f"; it is a key of {' and '.join(f'[{one}]' for one in places[:3])}"
    close = sorted(difflib.get_close_matches(key, hints, 3), key=lambda one: one in rows)  # what is there is meant less
    return f'; did you mean "{close[0]}"?' if close else ""


def homes() -> dict[str, list[str]]:
    """Key → the tables that have it; "" for the top."""
    found: dict[str, list[str]] = {}

    def walk(kind: type[Any], at: str) -> None:
        for name, hint in get_type_hints(kind, include_extras=True).items():
            found.setdefault(name, []).append(at)
            inner = table_of(hint)
            if inner is not None:
                many = get_origin(hint) is list
                below = f"{at}.{name}" if at else name
                walk(inner, f"[{below}]" if many else f"{below}.NAME" if get_origin(hint) is dict else below)

    walk(Config, "")
    return found


def table_of(hint: Any) -> type[Any] | None:
    """The table that a key is, or holds."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct) and not getattr(hint, "__metadata__", ()):
        return cast("type[Any]", hint)
    if get_origin(hint) in (list, dict):
        return table_of(get_args(hint)[-1])
    return None
