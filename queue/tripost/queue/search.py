"""queued mail, looked at

Finds messages at any depth without stalling anything: the columns are passed in
pieces of SCAN rows; of the records only those are decoded in whose segment the
octets that are wanted were found, by a thread that reads BLOCK at a time.

Promise  every message that is queued during the whole search is told once; one
         that comes, goes or moves meanwhile may be missed or told as it was.
Bounds   one segment's offsets, one BLOCK and one batch of records in memory.
Fails    ValueError for what cannot be meant; a record that cannot be read is
         skipped: `tripost queue verify` tells of it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

import msgspec
import trio

from tripost.queue import records
from tripost.queue.body import BodyReader
from tripost.queue.clock import Clock
from tripost.queue.entries import Acceptance, message_of
from tripost.queue.errors import SpoolError
from tripost.queue.files import Handle
from tripost.queue.finding import ACTIVE, DEFERRED, DOWN, ENDING, HELD, READY, SUSPENDED, Wanted
from tripost.queue.ledger import Ledger
from tripost.queue.message import Envelope, Recipient
from tripost.queue.pausing import Pauses
from tripost.queue.rows import DOOMED, GONE, LEASED, PAUSED, TRIES, offset_of, segment_of
from tripost.queue.rows import HELD as HELD_FLAG
from tripost.queue.scanning import scan
from tripost.queue.store import Store, read_record

SCAN = 10_000
BLOCK = 1 << 20
BATCH = 200  # records read in one hop into a thread


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One recipient that is queued. `due` is when it may be tried next, `reply` what was last said to it."""

    recipient: str
    next_hop: str
    state: str
    attempts: int
    due: float
    reply: str = ""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One queued message, with those of its recipients that are wanted. Times in wall-clock seconds."""

    id: str
    sender: str
    size: int
    accepted: float
    expires: float
    client: str
    account: str
    priority: int
    deliveries: list[Delivery]
    place: int


class Match:
    """A message that is wanted: which of its recipients, by row; `whole`: rows of which all are."""

    __slots__ = ("deliveries", "message", "place", "replies", "whole")

    def __init__(self, place: int, message: Acceptance) -> None:
        self.place = place
        self.message = message
        self.deliveries: list[tuple[int, list[Recipient]]] = []
        self.replies: dict[int, str] = {}
        self.whole = 0


AGES = (5, 10, 20, 40, 80, 160, 320, 640, 1280)  # minutes, as qshape has them
_LIMITS = [minutes * 60 for minutes in AGES]


class Hop(msgspec.Struct, kw_only=True):
    """What waits for a next hop; `ages`: deliveries by age, see AGES."""

    next_hop: str
    state: str
    deliveries: int = 0
    recipients: int = 0
    octets: int = 0
    oldest: float = 0.0
    next_due: float = 0.0
    ages: list[int] = msgspec.field(default_factory=lambda: [0] * (len(AGES) + 1))


class Search:
    """Of one queue."""

    def __init__(self, ledger: Ledger, store: Store, clock: Clock, expire: float, pauses: Pauses) -> None:
        self._ledger = ledger
        self._rows = ledger.rows
        self._store = store
        self._clock = clock
        self._expire = expire
        self._pauses = pauses

    # --- columns ---

    def state(self, row: int, now: float, envelope: Envelope | None = None) -> str:
        """Without the envelope: as far as the columns tell, which know of a pause only once it was met."""
        rows = self._rows
        flags = rows.flags[row]
        if flags & LEASED:
            return ACTIVE
        if flags & DOOMED:
            return ENDING
        if flags & HELD_FLAG:
            return HELD
        if flags & PAUSED or (envelope is not None and self._pauses.known and self._pauses.match(envelope, now)):
            return SUSPENDED
        hop = self._hop_state(rows.hop[row], now)
        return DEFERRED if hop != SUSPENDED and rows.due[row] > now else hop

    async def _rows_of(self, wanted: Wanted) -> AsyncGenerator[int]:
        """Rows that the columns do not exclude; yields to other tasks every SCAN rows."""
        rows, schedule = self._rows, self._ledger.schedule
        hops: dict[int, bool] = {}
        for start in range(0, len(rows), SCAN):
            now = self._clock.now()
            for row in range(start, min(start + SCAN, len(rows))):
                if rows.flags[row] & GONE or rows.attempts[row] & TRIES < wanted.attempts:
                    continue
                if wanted.larger and rows.size[row] <= wanted.larger:
                    continue
                if wanted.next_hop:
                    hop = rows.hop[row]
                    if hop not in hops:
                        hops[hop] = wanted.fits_hop(schedule.name(hop))
                    if not hops[hop]:
                        continue
                if wanted.states and not self._pauses.known and self.state(row, now) not in wanted.states:
                    continue
                yield row
            await trio.lowlevel.checkpoint()
            hops.clear()  # numbers of forgotten hops are used again

    async def summary(self) -> list[Hop]:
        """By next hop, the fullest first. Ages follow from the time that a message has until it expires."""
        found: dict[str, Hop] = {}
        for start in range(0, len(self._rows), SCAN):
            self._sum_up(start, start + SCAN, found)
            await trio.lowlevel.checkpoint()
        return sorted(found.values(), key=lambda hop: -hop.deliveries)

    def _sum_up(self, start: int, end: int, found: dict[str, Hop]) -> None:
        rows, names, now = self._rows, self._ledger.schedule, self._clock.now()
        by_number: dict[int, Hop] = {}
        accepted = now + self._expire  # a message that came now expires then
        columns = rows.flags, rows.hop, rows.expires, rows.size, rows.recipients, rows.due
        for flags, hop, expires, size, recipients, due in zip(*[one[start:end] for one in columns], strict=True):
            if flags & GONE:
                continue
            one = by_number.get(hop)
            if one is None:
                name = names.name(hop)
                one = found.get(name) or Hop(next_hop=name, state=self._hop_state(hop, now), next_due=due)
                by_number[hop] = found[name] = one
            one.deliveries += 1
            one.recipients += recipients
            one.octets += size
            age = max(0.0, accepted - expires)
            if age > one.oldest:
                one.oldest = age
            if due < one.next_due:
                one.next_due = due
            one.ages[bisect_right(_LIMITS, age)] += 1

    def _hop_state(self, hop: int, now: float) -> str:
        blocks = self._ledger.schedule.blocks
        suspension = blocks.suspended.get(self._ledger.schedule.name(hop)) if blocks.suspended else None
        if suspension is not None and not 0.0 < suspension.until <= now:
            return SUSPENDED
        return DOWN if blocks.back_off(hop) is not None else READY

    async def ids_at(self, next_hop: str, most: int) -> set[str] | None:
        """The messages for a next hop; None when they are more than `most`. A scan that yields. Raises SpoolError."""
        hop, rows = self._ledger.schedule.find(next_hop), self._rows
        places = {rows.place[row] async for row in scan(rows, lambda _: True) if rows.hop[row] == hop}
        if len(places) > most:
            return None
        return {(await self._store.read(place)).envelope.id for place in places}

    # --- records ---

    async def find(self, wanted: Wanted) -> AsyncGenerator[Message]:
        """Every message that is wanted, in the order of its place. Raises ValueError."""
        async with aclosing(self.matches(wanted)) as found:
            async for match in found:
                yield self.shown(match)

    async def matches(self, wanted: Wanted) -> AsyncGenerator[Match]:
        """As `find`. Raises ValueError."""
        wanted.check()
        twins: dict[int, list[int]] = {}  # of what comes apart meanwhile
        self._rows.watchers.append(twins)
        try:
            async with aclosing(self._matches(wanted, twins)) as found:
                async for match in found:
                    yield match
        finally:
            self._rows.watchers.remove(twins)

    async def _matches(self, wanted: Wanted, twins: dict[int, list[int]]) -> AsyncGenerator[Match]:
        by_segment: dict[int, tuple[array[int], array[int]]] = {}
        async for row in self._rows_of(wanted):
            offsets, rows = by_segment.setdefault(segment_of(self._rows.place[row]), (array("Q"), array("I")))
            offsets.append(self._rows.place[row])
            rows.append(row)
        needle = wanted.needle()
        for segment in sorted(by_segment):
            by_place: dict[int, list[int]] = {}
            for place, row in zip(*by_segment.pop(segment), strict=True):
                by_place.setdefault(place, []).append(row)
            places = sorted(by_place)
            if needle:
                places = await self._holding(segment, places, needle)
            for start in range(0, len(places), BATCH):
                batch = places[start : start + BATCH]
                for place, message in zip(batch, await self._read(segment, batch), strict=True):
                    if message is not None and wanted.fits(message.envelope, self._clock.now()):
                        match = await self._match(place, message, by_place[place], twins, wanted)
                        if match.deliveries:
                            yield match
                await trio.lowlevel.checkpoint()

    async def _holding(self, segment: int, places: list[int], needle: bytes) -> list[int]:
        """Those places in whose record the needle stands."""
        offsets = [offset_of(place) for place in places]
        hits: set[int] = set()
        at = offsets[0]
        while True:
            try:
                data, found = await self._store.in_thread(segment, partial(_occurrences, needle, at))
            except (OSError, SpoolError):
                return []  # nothing of it is queued any more
            hits.update(bisect_right(offsets, one) - 1 for one in found)
            if data < BLOCK:
                return [places[number] for number in sorted(hits)]
            at += BLOCK - len(needle)

    async def _read(self, segment: int, places: list[int]) -> list[Acceptance | None]:
        try:
            return await self._store.in_thread(segment, partial(_messages, [offset_of(place) for place in places]))
        except (OSError, SpoolError):
            return [None] * len(places)

    async def _match(
        self, place: int, message: Acceptance, found: list[int], twins: dict[int, list[int]], wanted: Wanted
    ) -> Match:
        match, rows, envelope = Match(place, message), self._rows, message.envelope
        for row in [*found, *twins[place]] if place in twins else found:
            if rows.flags[row] & GONE or rows.place[row] != place:
                continue
            if wanted.states and self.state(row, self._clock.now(), envelope) not in wanted.states:
                continue
            queued = self._ledger.chosen(row, envelope)
            chosen = [one for one in queued if wanted.fits_recipient(one)]
            if chosen and (rows.told[row] or wanted.error):
                replies = await self._store.replies(rows.told[row])
                chosen = [one for one in chosen if wanted.error.lower() in replies.get(one.id, "").lower()]
                match.replies |= replies
                if rows.flags[row] & GONE or rows.place[row] != place:
                    continue  # it ended while its replies were read
            if chosen:
                match.deliveries.append((row, chosen))
                match.whole += len(chosen) == len(queued)
        return match

    def whole(self, match: Match) -> bool:
        """All that is queued of the message is wanted."""
        return match.whole == self._rows.shared.get(match.place, 1)

    def reader(self, match: Match) -> BodyReader:
        """The message's content. Raises SpoolError."""
        return self._store.open_body(match.message)

    async def header(self, match: Match, most: int) -> bytes:
        """The message's header. Raises SpoolError."""
        return await self._store.original(match.message, most, full=False)

    def shown(self, match: Match) -> Message:
        envelope, rows, now = match.message.envelope, self._rows, self._clock.now()
        return Message(
            id=envelope.id,
            sender=envelope.sender,
            size=envelope.size,
            accepted=envelope.accepted,
            expires=envelope.expires,
            client=envelope.client,
            account=envelope.account,
            priority=rows.priority[match.deliveries[0][0]],
            deliveries=[
                Delivery(
                    recipient=one.address,
                    next_hop=self._ledger.schedule.name(rows.hop[row]),
                    state=self.state(row, now, envelope),
                    attempts=rows.attempts[row] & TRIES,
                    due=rows.due[row],
                    reply=match.replies.get(one.id, ""),
                )
                for row, chosen in match.deliveries
                for one in chosen
            ],
            place=match.place,
        )


def _occurrences(needle: bytes, at: int, key: bytes, handle: Handle) -> tuple[int, list[int]]:
    """Of the needle in one block: (octets read, offsets). Lower case stands for both."""
    data = handle.read_at(at, BLOCK)
    lower, found, one = data.lower(), list[int](), -1
    while (one := lower.find(needle, one + 1)) >= 0:
        found.append(at + one)
    return len(data), found


def _messages(offsets: list[int], key: bytes, handle: Handle) -> list[Acceptance | None]:
    return [_message_at(offset, key, handle) for offset in offsets]


def _message_at(offset: int, key: bytes, handle: Handle) -> Acceptance | None:
    """None where there is none (any more)."""
    good = records.decode_at(key, read_record(handle, offset), 0, offset)
    return message_of(good.kind, good.payload) if good is not None else None
