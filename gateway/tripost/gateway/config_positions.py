"""where in a TOML text each key stands

tomllib says what a text means, not where; an operator wants the line. The text
is valid TOML here, so a scan of its lines is enough: headers, keys, and what
spans lines (strings in three quotes, arrays) is stepped over.
"""

from __future__ import annotations

import re

Path = tuple[str | int, ...]

_HEADER = re.compile(r"\s*(\[\[?)([^\]]+)\]\]?")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")
_STRINGS = re.compile(r'''"""|\'\'\'|"(?:[^"\\]|\\.)*"|'[^']*'|#.*|[\[\]{}]''')


def positions(text: str) -> dict[Path, tuple[int, int]]:
    """Path of a table or key → (line, column), both from 1. Elements of arrays of tables have their number."""
    found: dict[Path, tuple[int, int]] = {}
    table: Path = ()
    counts: dict[Path, int] = {}
    open_quote, depth = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        if not open_quote and not depth:
            header, key = _HEADER.match(line), _KEY.match(line)
            if header is not None:
                table = _table(header, counts)
                found.setdefault(table, (number, header.start(2) + 1))
                continue
            if key is not None:
                path = (*table, *_parts(key[1]))
                for end in range(len(table) + 1, len(path) + 1):
                    found.setdefault(path[:end], (number, key.start(1) + 1))
        open_quote, depth = _spans(line, open_quote, depth)
    return found


def _parts(text: str) -> list[str]:
    return [one.strip("\"'") for one in _PART.findall(text)]


def _table(header: re.Match[str], counts: dict[Path, int]) -> Path:
    path: Path = ()
    names = _parts(header[2])
    for at, name in enumerate(names):
        path = (*path, name)
        if at == len(names) - 1 and header[1] == "[[":
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path


def _spans(line: str, open_quote: str, depth: int) -> tuple[str, int]:
    """Whether a string or an array is still open behind this line."""
    at = 0
    while at < len(line):
        if open_quote:
            end = line.find(open_quote, at)
            if end < 0:
                return open_quote, depth
            at, open_quote = end + 3, ""
            continue
        match = _STRINGS.search(line, at)
        if match is None:
            break
        at = match.end()
        if match[0] in ('"""', "'''"):
            open_quote = match[0]
        elif match[0] in "[{":
            depth += 1
        elif match[0] in "]}":
            depth -= 1
    return open_quote, depth


def nearest(found: dict[Path, tuple[int, int]], path: Path) -> tuple[int, int]:
    """The position of `path`, or of the closest thing around it that has one; (1, 1) for nothing."""
    while path:
        if path in found:
            return found[path]
        path = path[:-1]
    return 1, 1
