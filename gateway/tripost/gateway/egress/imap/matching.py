"""does a message match a SEARCH program?

`compile_key` makes one function of a program; what it costs is asked for lazily:
first what is in memory, then what was kept of a message (`facts`), the message
itself only for BODY, TEXT and headers that are too long to be kept.
"""

from __future__ import annotations

import datetime
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Protocol

from tripost.delivery.mailbox.cache import Entry
from tripost.gateway.egress.imap.facts import DATE, SENT, SENT_DAY, field_mark, folded, has_field
from tripost.gateway.egress.imap.search_keys import Key

_EPOCH_DAY = datetime.date(1970, 1, 1).toordinal()
DAY = 86_400


class Candidate(Protocol):
    """One message, looked at."""

    @property
    def number(self) -> int: ...
    @property
    def uid(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def mask(self) -> int: ...
    @property
    def modseq(self) -> int: ...
    @property
    def recent(self) -> bool: ...
    @property
    def id(self) -> str: ...
    def entry(self) -> Entry: ...
    def texts(self) -> bytes:
        """The header as `facts.searched` has it."""
        ...

    def text(self, *, header: bool) -> str:
        """The text parts as SEARCH looks at them; with the header where asked for."""
        ...


Test = Callable[[Candidate], bool]
Spans = Callable[[Key], Sequence[tuple[int, int]]]


class Compiler:
    """`bit(flag)` its bit, 0 for a keyword that no message has; `spans(key)` of set and uid; `now` in seconds."""

    def __init__(self, bit: Callable[[str], int], spans: Spans, now: float) -> None:
        self._bit = bit
        self._spans = spans
        self._now = now

    def compile(self, key: Key) -> Test:
        kind = key.kind
        if kind in ("and", "or", "not"):
            return _joined(kind, [self.compile(one) for one in sorted(key.keys, key=cost)])
        if kind == "all":
            return lambda one: True
        if kind == "flag":
            return self._flag(key.name)
        if kind in ("set", "uid"):
            return _among(self._spans(key), uid=kind == "uid")
        if kind == "number":
            return self._number(key.name, key.number)
        if kind == "date":
            return _date(key.name, key.number)
        if kind == "modseq":
            return lambda one: one.modseq >= key.number
        if kind == "id":
            wanted = key.text
            return (lambda one: one.id == wanted) if key.name == "EMAILID" else (lambda one: False)
        if kind == "header":
            return _header(key.name, key.text)
        return _text(key.name, key.text)

    def _flag(self, name: str) -> Test:
        if name == "\\Recent":
            return lambda one: one.recent
        bit = self._bit(name)
        return lambda one: bool(one.mask & bit)

    def _number(self, name: str, number: int) -> Test:
        if name == "LARGER":
            return lambda one: one.size > number
        if name == "SMALLER":
            return lambda one: one.size < number
        since = self._now - number
        if name == "YOUNGER":
            return lambda one: one.entry().numbers[DATE] >= since
        return lambda one: one.entry().numbers[DATE] <= since


_COSTS = {"header": 3, "date": 2, "id": 1}


def cost(key: Key) -> int:
    """What is cheap is asked first."""
    if key.keys:
        return max(map(cost, key.keys))
    if key.kind == "text":
        return 9 if key.name in ("BODY", "TEXT") else 2
    return _COSTS.get(key.kind, 2 if key.name in ("YOUNGER", "OLDER") else 0)


def _joined(kind: str, tests: list[Test]) -> Test:
    if kind == "not":
        inner = tests[0]
        return lambda one: not inner(one)
    if kind == "or":
        first, second = tests
        return lambda one: first(one) or second(one)

    def every(one: Candidate) -> bool:
        return all(test(one) for test in tests)

    return every


def _among(spans: Sequence[tuple[int, int]], *, uid: bool) -> Test:
    if len(spans) == 1:
        low, high = spans[0]
        if uid:
            return lambda one: low <= one.uid <= high
        return lambda one: low <= one.number <= high
    lows, highs = [low for low, _ in spans], [high for _, high in spans]

    def among(one: Candidate) -> bool:
        number = one.uid if uid else one.number
        at = bisect_right(lows, number) - 1
        return at >= 0 and number <= highs[at]

    return among


def _date(name: str, day: int) -> Test:
    """Days in UTC for when a message came, and in the sender's zone for its Date (RFC 9051 §6.4.4)."""
    begin, end = (day - _EPOCH_DAY) * DAY, (day + 1 - _EPOCH_DAY) * DAY
    if name == "BEFORE":
        return lambda one: one.entry().numbers[DATE] < begin
    if name == "SINCE":
        return lambda one: one.entry().numbers[DATE] >= begin
    if name == "ON":
        return lambda one: begin <= one.entry().numbers[DATE] < end

    def sent(one: Candidate) -> int:
        numbers = one.entry().numbers
        return numbers[SENT_DAY] or (numbers[DATE] // DAY + _EPOCH_DAY if not numbers[SENT] else 0)

    if name == "SENTBEFORE":
        return lambda one: sent(one) < day
    if name == "SENTSINCE":
        return lambda one: sent(one) >= day
    return lambda one: sent(one) == day


def _text(name: str, text: str) -> Test:
    if name not in ("BODY", "TEXT"):
        return _header(name, text)
    wanted = folded(text)
    return lambda one: wanted in one.text(header=name == "TEXT")


def _header(name: str, text: str) -> Test:
    mark, wanted = field_mark(name), octets_of(text)
    return lambda one: has_field(one.texts(), mark, wanted)


def octets_of(text: str) -> bytes:
    """What is looked for, as it stands in what was kept."""
    return folded(text).encode("utf-8", "replace")


def one_field(key: Key) -> tuple[bytes, bytes] | None:
    """For a program that asks for one field and nothing else: its mark, and what is to be in it."""
    if key.kind == "header" or (key.kind == "text" and key.name not in ("BODY", "TEXT")):
        return field_mark(key.name), octets_of(key.text)
    return None


def needles(key: Key) -> bytes | None:
    """Octets that what was kept of every message that matches must hold; None where nothing is known of it."""
    if key.kind == "and":
        found = [one for one in map(needles, key.keys) if one]
        return max(found, key=len, default=None)
    field = one_field(key)
    return field[1] or None if field is not None else None
