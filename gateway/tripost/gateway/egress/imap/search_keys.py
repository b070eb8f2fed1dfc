"""what SEARCH, SORT and THREAD look for, as a tree

Limits   `MOST_KEYS` keys, `MOST_DEPTH` levels: a program of any shape costs at most
         so many looks at each message.
Source   RFC 9051 §6.4.4, RFC 7162 §3.1.5 (MODSEQ), RFC 5032 (YOUNGER, OLDER), RFC 8474 §5.4.
"""

from __future__ import annotations

import datetime
import re
from typing import Literal

import msgspec

from tripost.gateway.egress.imap.cursor import Bad, Cursor, as_text
from tripost.gateway.egress.imap.sets import NumberSet, parse_set

MOST_KEYS = 500
MOST_DEPTH = 30
MOST_TEXT = 10_000  # octets of one string
_SET = re.compile(rb"[0-9*:,]+(?=[ )]|\Z)|\$(?=[ )]|\Z)")
_DATE = re.compile(r"([0-9]{1,2})-([A-Za-z]{3})-([0-9]{4})\Z")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
CHARSETS = ("US-ASCII", "UTF-8", "ISO-8859-1", "ISO-8859-15", "WINDOWS-1252")

Kind = Literal["and", "or", "not", "all", "set", "uid", "flag", "text", "header", "number", "date", "modseq", "id"]


class Key(msgspec.Struct, frozen=True):
    """One node. `name` says which of its kind: the flag, the header's field, LARGER, BEFORE …; `keys` are those
    inside of and, or, not."""

    kind: Kind
    name: str = ""
    text: str = ""
    number: int = 0
    set: NumberSet = NumberSet()
    keys: tuple[Key, ...] = ()


_FLAGS = {
    "ANSWERED": "\\Answered",
    "DELETED": "\\Deleted",
    "DRAFT": "\\Draft",
    "FLAGGED": "\\Flagged",
    "SEEN": "\\Seen",
    "RECENT": "\\Recent",
}
_TEXTS = ("BCC", "BODY", "CC", "FROM", "SUBJECT", "TEXT", "TO")
_DATES = ("BEFORE", "ON", "SINCE", "SENTBEFORE", "SENTON", "SENTSINCE")
_NUMBERS = ("LARGER", "SMALLER", "YOUNGER", "OLDER")
_ALL = Key("all")
_WITH_VALUE = frozenset(
    (*_TEXTS, *_DATES, *_NUMBERS, "NOT", "OR", "HEADER", "KEYWORD", "UNKEYWORD", "UID", "MODSEQ", "EMAILID", "THREADID")
)


class Program:
    """A parser for one program."""

    def __init__(self, cursor: Cursor, charset: str = "UTF-8") -> None:
        self._cursor = cursor
        self._charset = charset
        self._count = 0

    def read(self) -> Key:
        """All keys to the end of the command. Raises Bad."""
        keys = [self._key(0)]
        while not self._cursor.ended:
            self._cursor.space()
            keys.append(self._key(0))
        return keys[0] if len(keys) == 1 else Key("and", keys=tuple(keys))

    def _key(self, depth: int) -> Key:
        cursor = self._cursor
        self._count += 1
        if depth > MOST_DEPTH:
            raise Bad(f"search keys nested deeper than {MOST_DEPTH}")
        if self._count > MOST_KEYS:
            raise Bad(f"more than {MOST_KEYS} search keys")
        if cursor.take(b"("):
            keys = [self._key(depth + 1)]
            while not cursor.take(b")"):
                cursor.space()
                keys.append(self._key(depth + 1))
            return Key("and", keys=tuple(keys))
        found = cursor.match(_SET)
        if found is not None:
            return Key("set", set=_set(found[0]))
        return self._named(cursor.keyword(), depth)

    def _named(self, name: str, depth: int) -> Key:
        cursor = self._cursor
        if name == "ALL":
            return _ALL
        if name in _FLAGS:
            return Key("flag", _FLAGS[name])
        if name.startswith("UN") and name[2:] in _FLAGS and name != "UNRECENT":
            return Key("not", keys=(Key("flag", _FLAGS[name[2:]]),))
        if name == "OLD":
            return Key("not", keys=(Key("flag", "\\Recent"),))
        if name == "NEW":
            return Key("and", keys=(Key("flag", "\\Recent"), Key("not", keys=(Key("flag", "\\Seen"),))))
        if name not in _WITH_VALUE:
            raise Bad(f"unknown search key {name[:40]}")
        cursor.space()
        if name == "NOT":
            return Key("not", keys=(self._key(depth + 1),))
        if name == "OR":
            one = self._key(depth + 1)
            cursor.space()
            return Key("or", keys=(one, self._key(depth + 1)))
        return self._with_value(name)

    def _with_value(self, name: str) -> Key:
        cursor = self._cursor
        if name in _TEXTS:
            return Key("text", name, self._text())
        if name == "HEADER":
            field = self._text()
            cursor.space()
            return Key("header", field, self._text())
        if name in ("KEYWORD", "UNKEYWORD"):
            key = Key("flag", cursor.atom())
            return key if name == "KEYWORD" else Key("not", keys=(key,))
        if name in _NUMBERS:
            return Key("number", name, number=cursor.number(0x7FFFFFFFFFFFFFFF))
        if name in _DATES:
            return Key("date", name, number=date_of(cursor))
        if name == "UID":
            found = cursor.match(_SET)
            if found is None:
                raise Bad("UID needs a set of numbers")
            return Key("uid", set=_set(found[0]))
        if name == "MODSEQ":
            return self._modseq()
        return Key("id", name, cursor.text_string())

    def _modseq(self) -> Key:
        cursor = self._cursor
        if cursor.peek() == b'"':  # RFC 7162 §3.1.5: the flag's own number is the message's here
            cursor.string()
            cursor.space()
            cursor.keyword()
            cursor.space()
        return Key("modseq", number=cursor.number(0x7FFFFFFFFFFFFFFF))

    def _text(self) -> str:
        octets = self._cursor.astring()
        if len(octets) > MOST_TEXT:
            raise Bad("the text looked for is too long")
        if self._charset in ("UTF-8", "US-ASCII"):
            return as_text(octets)
        return octets.decode(self._charset, "replace")


def _set(text: bytes) -> NumberSet:
    found = parse_set(text)
    if found is None:
        raise Bad("not a set of numbers")
    return found


def date_of(cursor: Cursor) -> int:
    """A date as the number of its day (1 is 1 January of year 1)."""
    text = cursor.text_string()
    found = _DATE.match(text)
    if found is None or found[2].title() not in MONTHS:
        raise Bad("expected a date such as 1-Feb-2026")
    try:
        return datetime.date(int(found[3]), MONTHS.index(found[2].title()) + 1, int(found[1])).toordinal()
    except ValueError:
        raise Bad("there is no such date") from None
