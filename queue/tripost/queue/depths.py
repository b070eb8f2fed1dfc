"""how deep the queue is, for whoever watches it all the time

Counts by next hop are there at any time; ages and octets need a look at every
queued delivery, which `sample` takes slowly.

Promise  `fullest` looks at next hops only, and both rest for so much longer than they
         work as they are told: a backlog of millions costs a few per cent of a core
         while it is watched, and nothing when it is not.
Bounds   figures are kept of the next hops that are asked for, and of all together.
"""

from __future__ import annotations

import heapq
import time
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import msgspec
import trio

from tripost.queue.clock import Clock
from tripost.queue.ledger import Ledger
from tripost.queue.rows import DOOMED, GONE, HELD, LEASED, PAUSED
from tripost.queue.scanning import PAUSE, PIECE, pieces

AGES = (5, 10, 20, 40, 80, 160, 320, 640, 1280)  # minutes, as qshape has them
_LIMITS = [minutes * 60 for minutes in AGES]
STATES: tuple[str, ...] = ("held", "active", "ending", "suspended", "deferred")
_SOME = 20_000  # next hops compared without a pause


class Depth(msgspec.Struct):
    """Of one next hop, or of all; `ages`: deliveries by age, see AGES; `oldest` in seconds."""

    deliveries: int = 0
    recipients: int = 0
    octets: int = 0
    oldest: float = 0.0
    next_due: float = 0.0
    ages: list[int] = msgspec.field(default_factory=lambda: [0] * (len(AGES) + 1))


class Sampled(msgspec.Struct):
    """`states`: deliveries held, active, ending, suspended (by where they come from), deferred; `took`: seconds of
    work."""

    time: float
    took: float
    total: Depth
    hops: dict[str, Depth]
    states: dict[str, int]


class Depths:
    """Of one queue. `expire`: seconds that a message has, from which its age follows."""

    def __init__(self, ledger: Ledger, clock: Clock, expire: float) -> None:
        self._rows = ledger.rows
        self._schedule = ledger.schedule
        self._clock = clock
        self._expire = expire

    def count(self, next_hop: str) -> int:
        """Deliveries that are queued for it now."""
        hop = self._schedule.find(next_hop)
        return self._schedule.queued(hop) if hop is not None else 0

    @property
    def total(self) -> int:
        """Deliveries that are queued now."""
        return self._rows.used

    @property
    def down(self) -> int:
        """Next hops that could not be spoken to."""
        return self._schedule.blocks.down

    async def fullest(self, most: int, ease: float = 0.0) -> list[str]:
        """The next hops with the most deliveries, those first; `ease` as in `sample`."""
        best: list[tuple[int, str]] = []
        start = 0
        while True:
            began = time.perf_counter()
            some = self._schedule.numbered(start, start + _SOME)
            if some is None:
                break
            best = heapq.nlargest(most, [*best, *some])
            start += _SOME
            await trio.sleep(max(PAUSE, (time.perf_counter() - began) * ease))
        return [name for _, name in best]

    async def sample(self, next_hops: Sequence[str], ease: float = 0.0) -> Sampled:
        """Look at every delivery once; `ease`: seconds of rest for each second of work."""
        total, found = Depth(), {name: Depth() for name in next_hops}
        states: dict[str, int] = dict.fromkeys(STATES, 0)
        worked = 0.0
        for start, end in pieces(self._rows, PIECE):
            began = time.perf_counter()
            self._look(start, end, total, found, states)
            took = time.perf_counter() - began
            worked += took
            await trio.sleep(max(PAUSE, took * ease))
        return Sampled(self._clock.now(), worked, total, found, states)

    def _look(self, start: int, end: int, total: Depth, found: dict[str, Depth], states: dict[str, int]) -> None:
        rows, now = self._rows, self._clock.now()
        flags = rows.flags[start:end]
        columns = [one[start:end] for one in (rows.hop, rows.expires, rows.size, rows.recipients, rows.due)]
        live = [row for row, flag in zip(zip(*columns, strict=True), flags, strict=True) if not flag & GONE]
        _states(flags.tobytes(), rows.due[start:end].tolist(), now, states)
        self._add(total, live, now)
        numbers = {hop: one for name, one in found.items() if (hop := self._schedule.find(name)) is not None}
        if numbers:
            mine: dict[int, list[Any]] = {}
            for row in live:
                if row[0] in numbers:
                    mine.setdefault(row[0], []).append(row)
            for hop, some in mine.items():
                self._add(numbers[hop], some, now)

    def _add(self, depth: Depth, live: list[Any], now: float) -> None:
        if not live:
            return
        accepted = now + self._expire  # a message that came now expires then
        limits = [accepted - limit for limit in reversed(_LIMITS)]  # what expires before has a greater age
        _, expires, sizes, recipients, due = zip(*live, strict=True)
        first = min(due)
        depth.next_due = min(depth.next_due, first) if depth.deliveries else first
        depth.deliveries += len(live)
        depth.recipients += sum(recipients)
        depth.octets += sum(sizes)
        depth.oldest = max(depth.oldest, accepted - min(expires))
        for one in expires:
            depth.ages[len(AGES) - bisect_left(limits, one)] += 1


def _states(flags: bytes, due: list[float], now: float, states: dict[str, int]) -> None:
    """As Search.state has them, as far as the columns tell."""
    for flag in set(flags):
        count = flags.count(flag)
        if flag & GONE:
            continue
        if flag & LEASED:
            states["active"] += count
        elif flag & DOOMED:
            states["ending"] += count
        elif flag & HELD:
            states["held"] += count
        elif flag & PAUSED:
            states["suspended"] += count
    states["deferred"] += sum([not flag and when > now for flag, when in zip(flags, due, strict=True)])
