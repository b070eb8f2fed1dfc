"""tripost check: is the configuration right, and is there something to look at?

Everything that is wrong is told at once, each with file, line and column; then what an operator should look at though
it is no error. `--json`: one row for each of both.
"""

from __future__ import annotations

import sys

from tripost.gateway.cli.printing import print_row
from tripost.gateway.config import Loaded, read
from tripost.gateway.config_files import Found, suspicious, unusable
from tripost.gateway.config_sources import Problem


def run(path: str | None, *, as_json: bool) -> int:
    """0 when a gateway could start with it."""
    found = read(path)
    errors = found.problems or _told(found, unusable(found.config))
    warnings = [] if found.problems else _told(found, suspicious(found.config))
    if as_json:
        for level, problems in (("error", errors), ("warning", warnings)):
            for one in problems:
                print_row(_row(level, one))
        return 2 if errors else 0
    for one in errors:
        print(f"tripost: {one}", file=sys.stderr)
    for one in warnings:
        print(f"tripost: warning: {one}", file=sys.stderr)
    if not errors:
        print("ok")
    return 2 if errors else 0


def _told(found: Loaded, problems: Found) -> list[Problem]:
    rows = [found.sources.problem(key, reason) for key, reason in problems]
    return sorted(rows, key=lambda one: (one.place, one.key))


def _row(level: str, one: Problem) -> dict[str, object]:
    place = one.place
    return {
        "level": level,
        "file": place.file,
        "line": place.line,
        "column": place.column,
        "key": one.key,
        "reason": one.reason,
    }
