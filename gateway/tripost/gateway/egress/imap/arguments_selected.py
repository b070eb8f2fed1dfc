"""how the arguments of IMAP's commands are read: those of a selected mailbox

`Bad` for what is malformed, `Impossible` for what is well formed and cannot be.
"""

from __future__ import annotations

import re

from tripost.gateway.egress.imap.cursor import Bad, Cursor
from tripost.gateway.egress.imap.fetch_items import read_items
from tripost.gateway.egress.imap.search_keys import CHARSETS, Program
from tripost.gateway.egress.imap.sets import NumberSet, parse_set
from tripost.gateway.egress.imap.values import (
    SYSTEM_FLAGS,
    Copy,
    Fetch,
    Impossible,
    Search,
    Set,
    Sort,
    Store,
    Thread,
)

MOST_FLAGS = 100
MOST_MODSEQ = 0x7FFFFFFFFFFFFFFF
_SET = re.compile(rb"[0-9*:,]+|\$")


def number_set(cursor: Cursor) -> Set:
    cursor.space()
    return Set(read_set(cursor))


def read_set(cursor: Cursor) -> NumberSet:
    found = cursor.match(_SET)
    numbers = parse_set(found[0]) if found is not None else None
    if numbers is None:
        raise Bad("expected a set of numbers")
    return numbers


def flag_list(cursor: Cursor) -> tuple[str, ...]:
    """In parentheses, or (STORE) without."""
    if not cursor.take(b"("):
        alone = [_flag(cursor)]
        while cursor.take(b" "):
            alone.append(_flag(cursor))
        return _once(alone)
    found: list[str] = []
    while not cursor.take(b")"):
        if found:
            cursor.space()
        found.append(_flag(cursor))
    return _once(found)


def _once(flags: list[str]) -> tuple[str, ...]:
    if len(flags) > MOST_FLAGS:
        raise Bad(f"more than {MOST_FLAGS} flags")
    return tuple(dict.fromkeys(flags))


def _flag(cursor: Cursor) -> str:
    if not cursor.take(b"\\"):
        return cursor.atom()
    name = cursor.atom().lower()
    for flag in SYSTEM_FLAGS:
        if flag[1:].lower() == name:
            return flag
    raise Bad(f"\\{name[:40]} cannot be set")


def fetch(cursor: Cursor) -> Fetch:
    return _fetch(cursor, uid=False)


def uid_fetch(cursor: Cursor) -> Fetch:
    return _fetch(cursor, uid=True)


def _fetch(cursor: Cursor, *, uid: bool) -> Fetch:
    """RFC 9051 §6.4.5, RFC 7162 §3.1.4 and §3.2.6."""
    cursor.space()
    numbers = read_set(cursor)
    cursor.space()
    items = read_items(cursor)
    since, vanished = None, False
    if cursor.take(b" ("):
        while True:
            word = cursor.keyword()
            if word == "CHANGEDSINCE":
                cursor.space()
                since = cursor.number(MOST_MODSEQ)
            elif word == "VANISHED" and uid:
                vanished = True
            else:
                raise Bad(f"unknown modifier {word[:40]}")
            if cursor.take(b")"):
                break
            cursor.space()
    if vanished and since is None:
        raise Bad("VANISHED needs CHANGEDSINCE")
    return Fetch(numbers, items, since, vanished)


def store(cursor: Cursor) -> Store:
    cursor.space()
    numbers = read_set(cursor)
    cursor.space()
    unchanged = None
    if cursor.take(b"(UNCHANGEDSINCE "):
        unchanged = cursor.number(MOST_MODSEQ)
        cursor.need(b")")
        cursor.space()
    how = "+" if cursor.take(b"+") else "-" if cursor.take(b"-") else ""
    cursor.need(b"FLAGS")
    silent = cursor.take(b".SILENT")
    cursor.space()
    return Store(numbers, how, silent, flag_list(cursor), unchanged)


def copy(cursor: Cursor) -> Copy:
    cursor.space()
    numbers = read_set(cursor)
    cursor.space()
    return Copy(numbers, cursor.astring())


_RETURNS = frozenset({"MIN", "MAX", "COUNT", "ALL", "SAVE"})


def search(cursor: Cursor) -> Search:
    """RFC 9051 §6.4.4, RFC 4731, RFC 5182."""
    cursor.space()
    returns: frozenset[str] | None = None
    if cursor.take(b"RETURN "):
        returns = frozenset(cursor.words()) or frozenset({"ALL"})
        if not returns <= _RETURNS:
            raise Bad("unknown return option")
        cursor.space()
    charset = "UTF-8"
    if cursor.take(b"CHARSET "):
        charset = _charset(cursor)
        cursor.space()
    return Search(Program(cursor, charset).read(), returns)


def _charset(cursor: Cursor) -> str:
    name = cursor.text_string().upper()
    if name not in CHARSETS:
        raise Impossible(f"[BADCHARSET ({' '.join(CHARSETS)})] that charset is not known here")
    return name


_SORT = frozenset({"ARRIVAL", "CC", "DATE", "FROM", "SIZE", "SUBJECT", "TO"})


def sort(cursor: Cursor) -> Sort:
    """RFC 5256."""
    cursor.space()
    order: list[tuple[str, bool]] = []
    backwards = False
    for word in cursor.words():
        if word == "REVERSE":
            backwards = True
        elif word in _SORT:
            order.append((word, backwards))
            backwards = False
        else:
            raise Bad(f"unknown sort key {word[:40]}")
    if not order or backwards:
        raise Bad("a sort key is missing")
    cursor.space()
    charset = _charset(cursor)
    cursor.space()
    return Sort(tuple(order), Program(cursor, charset).read())


def thread(cursor: Cursor) -> Thread:
    """RFC 5256."""
    cursor.space()
    algorithm = cursor.keyword()
    if algorithm not in ("ORDEREDSUBJECT", "REFERENCES"):
        raise Bad("that algorithm is not known here")
    cursor.space()
    charset = _charset(cursor)
    cursor.space()
    return Thread(algorithm, Program(cursor, charset).read())
