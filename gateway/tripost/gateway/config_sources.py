"""the files of a configuration, read and put together

The file named, then those that its `include` names, in the order of their names: scalars and lists override, tables
merge, arrays of tables append. Every key remembers in which file and where it stands.

Promise  nothing is guessed: a file that cannot be read, or is no TOML, is an error with its place. All files are looked
         at before anybody is told.
Bounds   an included file includes nothing itself; at most `MOST_FILES`, each of at most `MOST_OCTETS`.
"""

from __future__ import annotations

import glob
import os
import re
import tomllib
from typing import Any, cast

import msgspec

from tripost.gateway.config_positions import Path, positions

MOST_FILES = 1000
MOST_OCTETS = 16 << 20


class Place(msgspec.Struct, frozen=True, order=True):
    """`line` and `column` from 1; 0 for the file as a whole."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


class Problem(msgspec.Struct, frozen=True):
    """What is wrong, or to be looked at: `key` as it is written, "" for a file as a whole."""

    place: Place
    key: str
    reason: str

    def __str__(self) -> str:
        return ": ".join(part for part in (str(self.place), self.key, self.reason) if part)


def dotted(key: Path) -> str:
    """As people read it: listen[1].address."""
    text = ""
    for part in key:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else part
    return text


class Sources:
    """`table`: what the files say together; `files` in the order read; `problems` of reading them."""

    def __init__(self, path: str | None) -> None:
        self.table: dict[str, Any] = {}
        self.files: list[str] = []
        self.problems: list[Problem] = []
        self._places: dict[Path, Place] = {}
        if path is not None:
            self._start(path)

    def place(self, key: Path) -> Place:
        """Where it stands, or the closest thing around it that stands somewhere."""
        while key:
            if key in self._places:
                return self._places[key]
            key = key[:-1]
        return Place(self.files[0] if self.files else "built-in", 1, 1)

    def written(self, key: Path) -> Place | None:
        """Where this very key is written; None where it is not."""
        return self._places.get(key)

    def problem(self, key: Path, reason: str) -> Problem:
        return Problem(self.place(key), dotted(key) or "file", reason)

    def _start(self, path: str) -> None:
        table, places = self._read(path)
        self.table, self._places = table, places
        seen = {os.path.realpath(path)}
        for number, pattern in enumerate(self._patterns()):
            for one in self._matching(path, pattern, number):
                if os.path.realpath(one) not in seen:
                    seen.add(os.path.realpath(one))
                    self._include(one)

    def _patterns(self) -> list[str]:
        """The types are checked later, with all others."""
        value = self.table.get("include", [])
        items = cast("list[object]", value if isinstance(value, list) else [])
        return [one for one in items if isinstance(one, str)]

    def _matching(self, path: str, pattern: str, number: int) -> list[str]:
        whole = os.path.join(os.path.dirname(path), pattern)
        if not glob.has_magic(whole):
            return [whole]
        found = sorted(glob.glob(whole))
        if len(found) > MOST_FILES:
            self.problems.append(self.problem(("include", number), f"names {len(found)} files; {MOST_FILES} at most"))
        return found[:MOST_FILES]

    def _include(self, path: str) -> None:
        table, places = self._read(path)
        if "include" in table:
            where = places.get(("include",), Place(path))
            self.problems.append(Problem(where, "include", "only the main file includes; name it there"))
            del table["include"]
        self._merge(self.table, table, (), (), places)

    def _read(self, path: str) -> tuple[dict[str, Any], dict[Path, Place]]:
        self.files.append(path)
        text = ""
        try:
            with open(path, "rb") as file:
                data = file.read(MOST_OCTETS + 1)
            if len(data) > MOST_OCTETS:
                raise ValueError(f"larger than {MOST_OCTETS >> 20} MiB")
            text = data.decode("utf-8")
            table = tomllib.loads(text)
        except OSError as wrong:
            self.problems.append(Problem(Place(path), "", wrong.strerror or str(wrong)))
        except UnicodeDecodeError as wrong:
            self.problems.append(Problem(Place(path), "", f"not UTF-8 at octet {wrong.start}"))
        except tomllib.TOMLDecodeError as wrong:
            self.problems.append(_no_toml(path, text, str(wrong)))
        except RecursionError:
            self.problems.append(Problem(Place(path), "", "lists or tables nested too deeply"))
        except ValueError as wrong:
            self.problems.append(Problem(Place(path), "", str(wrong)))
        else:
            return table, {key: Place(path, *at) for key, at in positions(text).items()}
        return {}, {}

    def _merge(
        self, into: dict[str, Any], more: dict[str, Any], at: Path, theirs: Path, places: dict[Path, Place]
    ) -> None:
        """`at` and `theirs` are the same place: as it is numbered in the whole, and in the file."""
        for name, value in more.items():
            old: object = into.get(name)
            here, there = (*at, name), (*theirs, name)
            ours, more_rows = _table(old), _table(value)
            if ours is not None and more_rows is not None:
                self._merge(ours, more_rows, here, there, places)
            elif (before := _tables(old)) and (added := _tables(value)):
                for number in range(len(added)):
                    self._take((*here, len(before) + number), (*there, number), places)
                into[name] = [*before, *added]
            else:
                for key in [key for key in self._places if key[: len(here)] == here]:
                    del self._places[key]
                self._take(here, there, places)
                into[name] = value

    def _take(self, here: Path, there: Path, places: dict[Path, Place]) -> None:
        for key, place in places.items():
            if key[: len(there)] == there:
                self._places[(*here, *key[len(there) :])] = place


def _table(value: object) -> dict[str, Any] | None:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _tables(value: object) -> list[object]:
    """An array of tables, of which a file may add more; nothing for anything else."""
    items = cast("list[object]", value if isinstance(value, list) else [])
    return items if all(isinstance(one, dict) for one in items) else []


def _no_toml(path: str, text: str, said: str) -> Problem:
    where = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)", said)
    reason = said.replace(where[0], "") if where else said
    if where and where[1]:
        line, column = int(where[1]), int(where[2])
    else:
        line, column = text.count("\n") + 1, len(text.rpartition("\n")[2]) + 1
    rest = text.split("\n")[line - 1][column - 1 :].partition("#")[0].strip()
    return Problem(Place(path, line, column), "", reason + _toml_hint(reason, rest))


def _toml_hint(reason: str, rest: str) -> str:
    """For the slips that are made most."""
    if reason == "Invalid value" and rest:
        return f'; a text is written in quotes: "{rest}"'
    if reason.startswith("Cannot declare"):
        return "; a table is written once, its keys together"
    if reason.startswith("Cannot overwrite"):
        return "; a key is written once"
    if "after a statement" in reason:
        return "; a duration, a size and an address are written in quotes"
    return ""
