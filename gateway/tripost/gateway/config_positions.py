"""where in a TOML text each key and each element of a list stands

tomllib says what a text means, not where; an operator wants the line and the column. The text is valid TOML here, so
a scan that knows brackets, quotes and comments is enough. What is no TOML gives wrong positions, never an error.
"""

from __future__ import annotations

import bisect
import re

Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_PART = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")
_STRING = re.compile(
    r'''"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|'[^'\n]*\'''',
    re.DOTALL,
)
_PLAIN = re.compile(r"[^,\]}#\n]*")
DEPTH = 100  # tomllib itself gives up not far beyond


def positions(text: str) -> dict[Path, tuple[int, int]]:
    """Path of a table, key or element → (line, column), both from 1. Elements are numbered from 0."""
    return _Scan(text).run()


class _Scan:
    """`_at` only goes forward."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._found: dict[Path, tuple[int, int]] = {}
        self._counts: dict[Path, int] = {}
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def run(self) -> dict[Path, tuple[int, int]]:
        table: Path = ()
        while self._skip(_BLANK) < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
                continue
            began = self._at
            if not self._pair(table, 0):
                self._at = max(self._line_end(), began + 1)
        return self._found

    def _header(self) -> Path:
        many = self._text.startswith("[[", self._at)
        self._at += 1 + many
        start = self._skip(_SPACE)
        names = self._names()
        path: Path = ()
        for number, name in enumerate(names):
            path = (*path, name)
            if many and number == len(names) - 1:
                self._counts[path] = self._counts.get(path, -1) + 1
            if path in self._counts:
                path = (*path, self._counts[path])
        self._mark(path, start)
        self._at = self._line_end()
        return path

    def _names(self) -> list[str]:
        names: list[str] = []
        while (match := _PART.match(self._text, self._skip(_SPACE))) is not None:
            names.append(_plain(match[0]))
            self._at = match.end()
            if not self._text.startswith(".", self._skip(_SPACE)):
                break
            self._at += 1
        return names

    def _pair(self, table: Path, depth: int) -> bool:
        """key = value; False where there is none."""
        start = self._at
        path = table
        names = self._names()
        if not names or not self._text.startswith("=", self._at):
            return False
        for name in names:
            path = (*path, name)
            self._mark(path, start)
        self._at += 1
        self._skip(_SPACE)
        self._value(path, depth)
        return True

    def _value(self, path: Path, depth: int) -> None:
        if depth < DEPTH and self._text.startswith(("[", "{"), self._at):
            self._inside(path, self._text[self._at] == "[", depth + 1)
            return
        match = _STRING.match(self._text, self._at) or _PLAIN.match(self._text, self._at)
        if match is not None:
            self._at = match.end()

    def _inside(self, path: Path, array: bool, depth: int) -> None:
        """The elements of an array, or the pairs of an inline table, and the bracket that ends them."""
        self._at += 1
        number = 0
        while self._skip(_BLANK) < len(self._text):
            began, char = self._at, self._text[self._at]
            if char in "]}":
                self._at += 1
                return
            if char == ",":
                self._at += 1
                continue
            if array:
                self._mark((*path, number), self._at)
                self._value((*path, number), depth)
                number += 1
            else:
                self._pair(path, depth)
            if self._at == began:
                self._at += 1

    def _skip(self, what: re.Pattern[str]) -> int:
        match = what.match(self._text, self._at)
        if match is not None:
            self._at = match.end()
        return self._at

    def _line_end(self) -> int:
        end = self._text.find("\n", self._at)
        return len(self._text) if end < 0 else end

    def _mark(self, path: Path, at: int) -> None:
        line = bisect.bisect_right(self._starts, at)
        self._found.setdefault(path, (line, at - self._starts[line - 1] + 1))


def _plain(part: str) -> str:
    """A key as it is meant. Escapes stay as they are: nobody names a table so."""
    return part[1:-1] if part[0] in "\"'" else part
