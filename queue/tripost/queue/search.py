"""queued mail, looked at

Finds messages at any depth without stalling anything: the columns are passed in
pieces; of the records only those are decoded in which the octets that are wanted
were found, by a thread (tripost.queue.looking).

Promise  every message that is queued during the whole search is told once; one
         that comes, goes or moves meanwhile may be missed or told as it was.
Bounds   places and rows of what the columns do not exclude, 16 octets each, and
         one block of records in memory.
Fails    ValueError for what cannot be meant; a record that cannot be read is
         skipped: `tripost queue verify` tells of it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import Any

import msgspec

from tripost.queue.body import BodyReader
from tripost.queue.clock import Clock
from tripost.queue.depths import AGES, Depths
from tripost.queue.entries import Acceptance
from tripost.queue.errors import SpoolError
from tripost.queue.finding import ACTIVE, DEFERRED, DOWN, ENDING, HELD, READY, SUSPENDED, Wanted
from tripost.queue.ledger import Ledger
from tripost.queue.looking import Places
from tripost.queue.message import Envelope, Recipient
from tripost.queue.pausing import Pauses
from tripost.queue.rows import DOOMED, GONE, LEASED, OFFSET_BITS, PAUSED, TRIES
from tripost.queue.rows import HELD as HELD_FLAG
from tripost.queue.scanning import PIECE, breathe, pieces, scan
from tripost.queue.store import Store


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


HEADER = 64 << 10  # octets of a header that are looked at
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
        self.depths = Depths(ledger, clock, expire)
        # what only delivery knows: a next hop's site, "" for unknown, and the class of a reply
        self.site_of: Callable[[str], str] = lambda next_hop: ""
        self.class_of: Callable[[str], str] = lambda reply: ""

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

    async def _rows_of(self, wanted: Wanted) -> AsyncGenerator[list[int]]:
        """Rows that the columns do not exclude, in pieces; other tasks run between them."""
        rows, hops = self._rows, dict[int, bool]()
        plain = not wanted.attempts and not wanted.larger and not (wanted.next_hop or wanted.site) and not wanted.states
        for start, end in pieces(rows):
            if plain:
                yield [row for row, flags in enumerate(rows.flags[start:end], start) if not flags & GONE]
            else:
                now = self._clock.now()
                yield [row for row in range(start, end) if self._is_like(row, wanted, hops, now)]
            await breathe()
            hops.clear()  # numbers of forgotten hops are used again

    def _is_like(self, row: int, wanted: Wanted, hops: dict[int, bool], now: float) -> bool:
        rows = self._rows
        if rows.flags[row] & GONE or rows.attempts[row] & TRIES < wanted.attempts:
            return False
        if wanted.larger and rows.size[row] <= wanted.larger:
            return False
        if wanted.next_hop or wanted.site:
            hop = rows.hop[row]
            if hop not in hops:
                name = self._ledger.schedule.name(hop)
                hops[hop] = wanted.fits_hop(name, self.site_of(name) if wanted.site else "")
            if not hops[hop]:
                return False
        return not wanted.states or bool(self._pauses.known) or self.state(row, now) in wanted.states

    async def summary(self) -> list[Hop]:
        """By next hop, the fullest first. Ages follow from the time that a message has until it expires."""
        found: dict[str, Hop] = {}
        for start, end in pieces(self._rows, 2 * PIECE):
            self._sum_up(start, end, found)
            await breathe()
        return sorted(found.values(), key=lambda hop: -hop.deliveries)

    def _sum_up(self, start: int, end: int, found: dict[str, Hop]) -> None:
        """In lists and local names: a million rows in less than a second."""
        rows, now = self._rows, self._clock.now()
        accepted = now + self._expire  # a message that came now expires then
        limits = [accepted - limit for limit in reversed(_LIMITS)]  # what expires before has a greater age
        sums: dict[int, list[Any]] = {}
        columns = rows.flags, rows.hop, rows.expires, rows.size, rows.recipients, rows.due
        for flags, hop, expires, size, recipients, due in zip(*[one[start:end] for one in columns], strict=True):
            if flags & GONE:
                continue
            one = sums.get(hop)
            if one is None:
                one = sums[hop] = [0, 0, 0, expires, due, [0] * (len(AGES) + 1)]
            one[0] += 1
            one[1] += recipients
            one[2] += size
            if expires < one[3]:
                one[3] = expires
            if due < one[4]:
                one[4] = due
            one[5][bisect_left(limits, expires)] += 1
        for hop, (deliveries, recipients, octets, expires, due, ages) in sums.items():
            name = self._ledger.schedule.name(hop)
            whole = found.get(name)
            if whole is None:
                whole = found[name] = Hop(next_hop=name, state=self._hop_state(hop, now), next_due=due)
            whole.deliveries += deliveries
            whole.recipients += recipients
            whole.octets += octets
            whole.oldest = max(whole.oldest, accepted - expires)
            whole.next_due = min(whole.next_due, due)
            whole.ages = [before + more for before, more in zip(whole.ages, reversed(ages), strict=True)]

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
        segments: dict[int, Places] = {}
        async with aclosing(self._rows_of(wanted)) as found:
            async for piece in found:
                for row in piece:
                    place = self._rows.place[row]
                    number = place >> OFFSET_BITS
                    if number not in segments:
                        segments[number] = Places()
                    segments[number].add(place, row, self._rows.size[row])
        needle = wanted.needle()
        for segment in sorted(segments):
            async with aclosing(self._messages(segment, segments.pop(segment), needle)) as messages:
                async for place, rows, message in messages:
                    if wanted.fits(message.envelope, self._clock.now()):
                        match = await self._match(place, message, rows, twins, wanted)
                        if match.deliveries:
                            yield match

    async def _messages(
        self, segment: int, places: Places, needle: bytes
    ) -> AsyncGenerator[tuple[int, list[int], Acceptance]]:
        """Those of a segment in whose record the needle stands: (place, rows, message)."""
        at = 0
        try:
            await self._store.in_thread(segment, lambda _, handle: places.sort())
            while at < len(places.offsets):
                at, found = await self._store.in_thread(segment, partial(places.look, needle, at))
                for number, message in found:
                    yield segment << OFFSET_BITS | places.offsets[number], places.rows_of(number), message
        except (OSError, SpoolError):
            return  # nothing of it is queued any more

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
                if wanted.error:
                    chosen = [one for one in chosen if self._fits_error(replies.get(one.id, ""), wanted)]
                match.replies |= replies
                if rows.flags[row] & GONE or rows.place[row] != place:
                    continue  # it ended while its replies were read
            if chosen:
                match.deliveries.append((row, chosen))
                match.whole += len(chosen) == len(queued)
        if match.deliveries and wanted.header and not wanted.fits_header(await self.header(match, HEADER)):
            match.deliveries.clear()
        return match

    def _fits_error(self, reply: str, wanted: Wanted) -> bool:
        return bool(reply) and wanted.fits_error(reply, self.class_of(reply))

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
