"""queued mail, changed by an operator

Hold, release, try now. Each message's change is one durable record; messages are
changed BATCH at a time, so that they share syncs and nothing else waits long.

Promise  what is leased (being tried) is not touched by `retry`; a hold lets the
         lease end and keeps what it leaves. A change of many messages that is cut
         off has been made for some of them, each wholly.
Fails    SpoolUnsure when the queue stops before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import trio

from tripost.queue.clock import Clock
from tripost.queue.entries import HOLD, SETTLE, Hold, Later, Settlement, encode
from tripost.queue.errors import SpoolError
from tripost.queue.ledger import Ledger
from tripost.queue.log import Log
from tripost.queue.rows import GONE, LEASED, MOVING
from tripost.queue.rows import HELD as HELD_FLAG
from tripost.queue.scanning import scan
from tripost.queue.store import Store

BATCH = 256


class Edit:
    """Of one queue; `moving` is held by whoever changes messages that are not leased."""

    def __init__(
        self, moving: trio.Lock, ledger: Ledger, log: Log, store: Store, clock: Clock, ring: Callable[[], None]
    ) -> None:
        self._moving = moving
        self._ledger = ledger
        self._log = log
        self._store = store
        self._clock = clock
        self._ring = ring

    async def hold(self, places: Collection[int], held: bool) -> int:
        """Keep the messages at `places` from being tried, or let them go on; how many were changed."""
        async with self._moving:
            found = await self._rows_at(set(places))
            todo = [place for place in found if any(self._is_held(row) != held for row in found[place])]
            apart: set[int] = set()
            for batch in _batches(todo):
                async with trio.open_nursery() as nursery:
                    for place in batch:
                        nursery.start_soon(self._hold, place, found[place], held, apart)
            while apart:
                apart = await self._mark_strays(apart, held)
        return len(todo)

    async def _mark_strays(self, apart: set[int], held: bool) -> set[int]:
        """Rows that came into being after the look at their messages: what is durable holds for them too. The places
        where there were some."""
        left: set[int] = set()
        for place, rows in (await self._rows_at(apart)).items():
            strays = [row for row in rows if self._is_at(row, place) and self._is_held(row) != held]
            if strays:
                self._ledger.mark(strays, held, self._clock.now())
                left.add(place)
        return left

    def _is_held(self, row: int) -> bool:
        return bool(self._ledger.rows.flags[row] & HELD_FLAG)

    async def _hold(self, place: int, rows: list[int], held: bool, apart: set[int]) -> None:
        def apply(at: int) -> None:
            left = [row for row in rows if self._is_at(row, place)]
            self._ledger.hold(left, at, held, self._clock.now())
            if len(left) < self._ledger.rows.shared.get(place, 1):  # some may have come since they were counted
                apart.add(place)
            self._ring()

        await self._log.append(HOLD, encode(Hold(place, held)), apply, essential=True)

    def _is_at(self, row: int, place: int) -> bool:
        """The row still stands for the message: it may have been settled since."""
        rows = self._ledger.rows
        return rows.place[row] == place and not rows.flags[row] & GONE

    async def _rows_at(self, places: set[int]) -> dict[int, list[int]]:
        """The queued deliveries of messages; one scan that yields."""
        found: dict[int, list[int]] = {}
        rows = self._ledger.rows
        async for row in scan(rows, places.__contains__):
            found.setdefault(rows.place[row], []).append(row)
        return found

    async def next_hops(self, places: Collection[int]) -> set[str]:
        """Where the messages at `places` are to go."""
        found = await self._rows_at(set(places))
        hops = {self._ledger.rows.hop[row] for rows in found.values() for row in rows}
        return {self._ledger.schedule.name(hop) for hop in hops}

    async def retry(self, places: Collection[int]) -> int:
        """What is deferred of the messages at `places` is due now; attempts are kept. How many deliveries."""
        async with self._moving:
            found = await self._rows_at(set(places))
            now = self._clock.now()
            todo = [row for rows in found.values() for row in rows if self._waits(row, now)]
            for batch in _batches(todo):
                await self._hurry(batch)
        return len(todo)

    def _waits(self, row: int, now: float) -> bool:
        rows = self._ledger.rows
        return rows.due[row] > now and not rows.flags[row] & (LEASED | MOVING)

    async def _hurry(self, batch: list[int]) -> None:
        flags, now, told = self._ledger.rows.flags, self._clock.now(), set[int]()
        for row in batch:
            flags[row] |= MOVING  # whoever claims it meanwhile puts it aside
        try:
            async with trio.open_nursery() as nursery:
                for row in batch:
                    nursery.start_soon(self._tell, row, now, told)
        finally:
            self._ledger.hurry(told, now, self._clock.now())
            for row in batch:
                flags[row] &= ~MOVING
                self._ledger.schedule.let_out(row, self._clock.now())
            self._ring()

    async def _tell(self, row: int, now: float, told: set[int]) -> None:
        rows, place = self._ledger.rows, self._ledger.rows.place[row]
        try:
            message = await self._store.read(place)
            replies = await self._store.replies(rows.told[row])
        except SpoolError:
            return  # it cannot be read now, and so not be tried either
        chosen = self._ledger.chosen(row, message.envelope)
        later = tuple([Later(one.id, rows.attempts[row], now, replies.get(one.id, "")) for one in chosen])
        whole = len(chosen) == len(message.envelope.recipients) and place not in rows.shared

        def apply(at: int) -> None:
            self._ledger.told_to_hurry(row, at, now, whole=whole)
            told.add(row)

        await self._log.append(SETTLE, encode(Settlement(place, (), later)), apply, essential=True)


def _batches(items: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]
