"""tripost history: what became of messages

Asks the running gateway, which has the last tenth of a second too; without one
the history's file is read.

Fails    exit code 1 where nothing fits, 2 for what cannot be meant, 3 when no
         gateway answers and there is no history to read.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
import time
from collections.abc import Iterator

import msgspec

from tripost.gateway import units
from tripost.gateway.config import Config
from tripost.gateway.control.client import ControlError, NotRunning, ask
from tripost.gateway.observe.history_store import FILE, read_only
from tripost.gateway.observe.past import About, Past, past_of, words


def run(config: Config, options: argparse.Namespace) -> int:
    try:
        since = time.time() - units.duration(options.since) if options.since else 0.0
        if options.limit < 0:
            raise ValueError("--limit is not negative")
    except ValueError as wrong:
        print(f"tripost: {wrong}", file=sys.stderr)
        return 2
    count, last = 0, ""
    try:
        for one in _rows(config, About(about=options.about, since=since, limit=options.limit)):
            count += 1
            if options.json:
                print(msgspec.json.encode(one).decode())
            else:
                _show(one, headed=one.id != last)
            last = one.id
    except ControlError as wrong:
        print(f"tripost: {wrong}", file=sys.stderr)
        return wrong.exit
    except sqlite3.Error as wrong:
        print(f"tripost: the history cannot be read: {wrong}", file=sys.stderr)
        return 1
    if not count:
        print(f"tripost: the history has nothing about {options.about}", file=sys.stderr)
    return 0 if count else 1


def _rows(config: Config, about: About) -> Iterator[Past]:
    """Raises ControlError, sqlite3.Error."""
    try:
        for row in ask(config.state, "history", **msgspec.to_builtins(about)):
            if "sum" not in row:
                yield msgspec.convert(row, Past)
        return
    except NotRunning as wrong:
        path = os.path.join(config.state, FILE)
        if not os.path.exists(path):
            raise
        print(f"tripost: {wrong} This is what its file says:", file=sys.stderr)
    with read_only(path) as db:
        yield from past_of(db, about)


def _show(one: Past, *, headed: bool) -> None:
    if headed:
        came = f" accepted {_clock(one.accepted)}" if one.accepted else ""
        size = f", {one.size} octets" if one.accepted else ""
        state = f"ended {_clock(one.ended)}" if one.ended else f"{one.open} recipients open" if one.accepted else ""
        sender = f" from {one.sender or '<>'}" if one.accepted else ""
        print(f"{one.id}{came}{sender}{size}{'; ' if state else ''}{state}")
    for attempt in one.attempts:
        number = f" #{attempt.attempt}" if attempt.attempt else ""
        to = f" {attempt.recipient}" if attempt.recipient else ""
        print(f"    {_clock(attempt.time)}{number}{to}: {words(attempt)}")


def _clock(wall: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(wall))
