"""what the queue does in the background

Expires what waits where its turn does not come, writes notes, removes segments
that owe nothing, and moves what is left of sparse ones into newer segments.

Bounds   expiry looks at SCAN rows, or at SWEEP rows of a next hop, at a time; compaction reads
         and writes at most RATE octets a second, and starts only when the log
         holds `compact_ratio` times what is queued and `compact_slack` segments
         more.
Why      an old message that is deferred for days would otherwise keep every
         younger segment on the disk: they are removed in order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio
import trio.lowlevel
from msgspec.structs import replace

from tripost.queue.clock import Clock
from tripost.queue.ending import Ender
from tripost.queue.entries import MOVE, Left, Move, encode
from tripost.queue.errors import SpoolError
from tripost.queue.ledger import Ledger
from tripost.queue.log import Log
from tripost.queue.manager import Queue
from tripost.queue.message import Deferred, Envelope
from tripost.queue.pieces import plainly
from tripost.queue.rows import ASIDE, GONE, HELD, LEASED, MOVING, PAUSED, STOPPED, WARNED, segment_of
from tripost.queue.scanning import SCAN, breathe, pieces, scan
from tripost.queue.settling import Decision, expired
from tripost.queue.store import Store
from tripost.queue.values import QueueSettings

EXPIRY_SWEEP = 60.0  # seconds between looks for what is over
LATE = 300.0  # seconds in which a due message that is over may still get its last attempt
SUSPENDED_GRACE = 3600.0  # seconds after a start
NOTE_EVERY = 1.0
SWEEP = 500  # rows looked at without a pause
COMPACT_EVERY = 10.0  # seconds between looks at the log's fullness
RATE = 16 << 20  # octets a second


class Housekeeping:
    def __init__(
        self, queue: Queue, settings: QueueSettings, *, ledger: Ledger, log: Log, store: Store, clock: Clock
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._ledger = ledger
        self._log = log
        self._store = store
        self._clock = clock
        self._schedule = ledger.schedule
        self._began = clock.now()
        self.ask_turn: Callable[[int], None] = lambda segment: None  # have another process leave that segment
        ender = Ender(queue, ledger, clock)
        self.tasks = (self._expire_forever, self._note_forever, self._drop_forever, self._compact_forever, ender.run)

    # --- what is over ---

    async def _expire_forever(self) -> None:
        """What waits for its turn ends when its time is up, wherever the turn does not come; its sender is told when
        it is late."""
        while True:
            await trio.sleep(EXPIRY_SWEEP)
            for name in await self._having(self._clock.now()):
                await self._expire(name, late=False)
            await self._expire_paused()
            if self._settings.warn:
                for name in await self._having(self._late_at(), WARNED):
                    await self._expire(name, late=True)

    def _late_at(self) -> float:
        """What expires before that was accepted `warn` seconds ago, or longer."""
        return self._clock.now() + self._settings.expire - self._settings.warn

    async def _having(self, over: float, mark: int = 0) -> list[str]:
        """Next hops with something due that expires before `over` and has not the mark; a scan that yields."""
        rows, now, hops = self._ledger.rows, self._clock.now(), set[int]()
        for start in range(0, len(rows), SCAN):
            part = rows.expires[start : start + SCAN]
            if min(part) <= over:
                hops |= {
                    rows.hop[row]
                    for row, expires in enumerate(part, start)
                    if expires <= over
                    and rows.due[row] <= now
                    and not rows.attempts[row] & mark
                    and not rows.flags[row] & (GONE | LEASED | HELD)
                }
            await breathe()
        return [self._schedule.name(hop) for hop in hops]

    def _over(self, hop: int, name: str) -> tuple[float, Deferred] | None:
        """Until when what waits there had to be done, and why it was not; None: it is to be tried first.

        A message does not end before it was tried since this start, for which a try of its next hop stands. What is
        suspended cannot be tried: it ends too, but not in the first hour after a start."""
        now, blocks = self._clock.now(), self._schedule.blocks
        back_off, suspension = blocks.back_off(hop), blocks.suspended.get(name)
        if suspension is not None:
            text = f"delivery to {name} is suspended" + (f": {suspension.reason}" if suspension.reason else "")
            return (now, Deferred(451, "4.3.2", text)) if now >= self._began + SUSPENDED_GRACE else None
        if back_off is not None:
            return (now, back_off.last) if back_off.last is not None else None
        why = Deferred(451, "4.4.5", f"more mail waits for {name} than may be sent there")
        return (now - LATE, why) if self._schedule.tried(hop) else None

    async def _expire(self, name: str, *, late: bool) -> None:
        """One look at the hop's whole FIFO, in pieces; `late`: for what is to be told that it is late only."""
        hop = self._schedule.find(name)
        over = self._over(hop, name) if hop is not None else None
        if hop is None or over is None:
            return
        until, mark = (self._late_at(), WARNED) if late else (over[0], 0)
        rows, found = self._ledger.rows, list[int]()

        def ends(row: int) -> bool:
            return rows.expires[row] <= until and not rows.attempts[row] & mark and not rows.flags[row] & STOPPED

        chains = self._schedule.detach(hop)
        try:
            while chains:
                found += self._schedule.sift(chains, SWEEP, ends)
                await breathe()
        finally:
            while chains:
                self._schedule.sift(chains, SWEEP, lambda row: False)
            self._queue.ring()
        await self._fail(found, over[1], late=late)

    async def _expire_paused(self) -> None:
        """What stands aside because of where it comes from ends like what is suspended."""
        rows, now, found = self._ledger.rows, self._clock.now(), list[int]()
        if now < self._began + SUSPENDED_GRACE:
            return
        for start, end in pieces(rows):
            for row, flags in enumerate(rows.flags[start:end], start):
                if flags & STOPPED == PAUSED and flags & ASIDE and rows.expires[row] <= now:
                    rows.flags[row] &= ~ASIDE
                    found.append(row)
            await self._fail(found, Deferred(451, "4.3.2", "mail from this sender is suspended"), late=False)
            found = []
            await breathe()

    async def _fail(self, rows: list[int], why: Deferred, *, late: bool) -> None:
        for row in rows:
            self._ledger.lease(row)
        while rows:
            try:
                replies = await self._store.replies(self._ledger.rows.told[rows[0]])
                lease = await self._queue.lease_of(rows[0])
            except SpoolError as wrong:
                self._queue.trouble("expiry", str(wrong))
                self._ledger.postpone(rows.pop(0), self._clock.now() + EXPIRY_SWEEP, self._clock.now())
                continue
            except BaseException:
                for row in rows:
                    self._ledger.put_back(row)
                raise
            rows.pop(0)
            due = self._ledger.rows.due[lease.row]
            decision = Decision([], [], [], delayed=late, warned=late)
            for one in lease.recipients:
                reply = replies.get(one.id, "")
                last = replace(why, text=f"{why.text}; before: {reply}") if reply else why
                if late:
                    decision.later.append((one, lease.attempt - 1, due, last))
                else:
                    decision.failed.append((one, expired(last, lease.envelope)))
            await self._queue.commit(lease, decision)

    # --- notes ---

    async def _note_forever(self) -> None:
        """Back-offs are worth a record, but not one each."""
        while True:
            await self._queue.noted.wait()
            self._queue.noted = trio.Event()
            await trio.sleep(NOTE_EVERY)
            await self._queue.write_notes()

    # --- segments ---

    async def _drop_forever(self) -> None:
        """Remove segments that owe nothing."""
        while True:
            await self._store.drop_segments(self._log.number)
            await self._queue.emptied.wait()
            self._queue.emptied = trio.Event()

    def _closed(self) -> list[int]:
        """Segments that nobody writes any more, in order."""
        ledger, active = self._ledger, self._log.number
        return [one for one in ledger.live if one != active and one not in ledger.growing]

    async def _compact_forever(self) -> None:
        """Make segments owe nothing."""
        live = self._ledger.live
        while True:
            await trio.sleep(COMPACT_EVERY)
            self._move_on()
            for _ in range(len(live)):
                oldest = next((one for one in self._closed() if live[one]), None)
                if oldest is None or not self._sparse():
                    break
                await self._compact(oldest)
                self._queue.emptied.set()
                if live.get(oldest):
                    break  # something of it is leased: later
                await trio.lowlevel.checkpoint()

    def _move_on(self) -> None:
        """A process that takes little mail would keep all that is younger than the segment it writes."""
        kept = next(iter(self._ledger.live), 0)
        if kept in self._ledger.growing and len(self._closed()) > self._settings.compact_slack:
            self.ask_turn(kept)

    def _sparse(self) -> bool:
        live = self._ledger.live
        queued = sum(self._fullness(segment) for segment in live)
        many = len(live) - len(self._ledger.growing)
        return many > self._settings.compact_ratio * queued + self._settings.compact_slack

    def _fullness(self, segment: int) -> float:
        """How much of the segment is still queued, 0 to 1."""
        return self._ledger.live[segment] / max(1, self._ledger.records.get(segment, 0))

    async def _compact(self, segment: int) -> None:
        """Move what is queued in the oldest segment, but for what is leased: that ends soon by itself."""
        messages: dict[int, list[int]] = {}
        async for row in scan(self._ledger.rows, lambda place: segment_of(place) == segment):
            messages.setdefault(self._ledger.rows.place[row], []).append(row)
        for place in sorted(messages):
            octets = await self._move(place, messages[place])
            await trio.sleep(octets / RATE)

    async def _move(self, place: int, found: list[int]) -> int:
        rows = self._ledger.rows
        async with self._queue.moving:
            queued = [row for row in found if rows.place[row] == place and not rows.flags[row] & GONE]
            if len(queued) != rows.shared.get(place, 1) or any(rows.flags[row] & LEASED for row in queued):
                return 0
            if any(action.names(place) for action in self._ledger.actions.values()):
                return 0  # an action that can be undone yet knows it by its place
            for row in queued:
                rows.flags[row] |= MOVING
            try:
                return await self._copy(place, queued)
            except SpoolError as wrong:
                self._queue.trouble("compaction", str(wrong))
                return RATE  # a second's pause
            finally:
                for row in queued:
                    rows.flags[row] &= ~MOVING
                    self._schedule.let_out(row, self._clock.now())

    async def _copy(self, place: int, queued: list[int]) -> int:
        rows = self._ledger.rows
        message = await self._store.read(place)
        left: list[Left] = []
        hops: dict[int, str] = {}
        whose: dict[int, list[int]] = {}
        for row in queued:
            replies = await self._store.replies(rows.told[row])
            held, name = bool(rows.flags[row] & HELD), self._schedule.name(rows.hop[row])
            for one in self._ledger.chosen(row, message.envelope):
                reply = replies.get(one.id, "")
                left.append(Left(one.id, rows.attempts[row], rows.due[row], reply, held, rows.priority[row]))
                hops[one.id] = name
                whose.setdefault(row, []).append(one.id)
        same = len(queued) == 1 and len(left) == len(message.envelope.recipients)
        moved = replace(message, envelope=sent_by(message.envelope, hops))
        payload = encode(Move(place, moved, tuple(left)))

        def apply(at: int) -> None:
            self._ledger.moved(queued, at, message.file, same=same)
            for row, ids in whose.items():  # next hops are others now: whom a row stands for may have to be said
                if ids != plainly(moved.envelope.recipients, self._schedule.name(rows.hop[row]), len(ids)):
                    rows.subset[row] = tuple(ids)

        await self._log.append(MOVE, payload, apply, essential=True)
        return len(payload)


def sent_by(envelope: Envelope, hops: Mapping[int, str]) -> Envelope:
    """The envelope with the next hops as an operator changed them (recipient id → next hop)."""
    if all(hops.get(one.id, one.next_hop) == one.next_hop for one in envelope.recipients):
        return envelope
    recipients = [replace(one, next_hop=hops.get(one.id, one.next_hop)) for one in envelope.recipients]
    return replace(envelope, recipients=tuple(recipients))
