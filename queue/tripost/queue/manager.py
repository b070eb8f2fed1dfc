"""the queue: accept, claim, settle

The one owner of what is queued: its log, its ledger, its leases.

Promise  After `accept` returned, every recipient ends in exactly one durable settlement. A DSN is in the same record as
         the settlement that causes it. Attempts and due times survive restarts.
States   a recipient is waiting (in the schedule), held, leased, or settled.
Fails    SpoolError/SpoolFull from `accept`: nothing was accepted; SpoolUnsure:
         nobody knows yet. A settlement waits until the disk takes it.
Why      Decisions are made in sync code between two awaits, and what a record changes is applied in the log's order, so
         that memory and log never tell two stories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import msgspec
import trio

from tripost.queue import events
from tripost.queue.blocks import SUSPEND, Suspension
from tripost.queue.body import Body, BodyReader
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.edit import Edit
from tripost.queue.entries import NOTE, SETTLE, Acceptance, Later, Settlement, encode
from tripost.queue.errors import SpoolError, SpoolFull
from tripost.queue.ids import Ids
from tripost.queue.ledger import Ledger
from tripost.queue.log import Log
from tripost.queue.message import Envelope, Outcome
from tripost.queue.pausing import Pause, Pauses
from tripost.queue.retry import spread
from tripost.queue.rows import IN_SETTLEMENT, TRIES, WARNED, segment_of
from tripost.queue.search import Search
from tripost.queue.settling import Decision, decide, news_of
from tripost.queue.store import Store
from tripost.queue.taking import check_room, take
from tripost.queue.telling import reply_of, tell_accepted, tell_settled
from tripost.queue.values import Counts, Lease, Probes, QueueSettings, QueueStatistics, Reporter

UNREADABLE_DELAY = 300.0  # seconds until a record that could not be read is looked at again
BACK_OFF_JITTER = 0.2


class Queue:
    """Made by `open_queue`."""

    def __init__(
        self,
        settings: QueueSettings,
        *,
        clock: Clock,
        bus: Bus,
        reporter: Reporter,
        random: Callable[[], float],
        log: Log,
        store: Store,
        ledger: Ledger,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._bus = bus
        self._reporter = reporter
        self._random = random
        self._log, self._store = log, store
        self.log_statistics = log.statistics
        self._ledger = ledger
        self._schedule = ledger.schedule
        self._bell: trio.Event | None = None
        self.emptied = trio.Event()  # a segment may owe nothing any more
        self._leased = 0
        self.new_id = Ids(clock.now)
        self._counts = Counts()
        self._recovered = ledger.queued
        self._noting = trio.Lock()
        self.noted = trio.Event()  # a note is to be written
        self.moving = trio.Lock()  # whoever changes messages that are not leased
        self.pauses = Pauses(ledger.notes)
        self.search = Search(ledger, store, clock, settings.expire, self.pauses)
        self.edit = Edit(self.moving, ledger, log, store, clock, self.search, self.ring)

    # --- taking mail in ---

    def new_body(self) -> Body:
        """Content to be filled."""
        return self._store.new_body(self.new_id, self._settings.inline)

    async def accept(self, envelope: Envelope, body: Body) -> None:
        """Make the message durable; returns only then. Raises SpoolError/SpoolFull: nothing was accepted;
        SpoolUnsure: it may have been, so that the client is to get no reply."""
        self.check_room(envelope.size)
        await take(self._log, envelope, body, self._enter)

    def check_room(self, more: int) -> None:
        """Raises SpoolFull when the queue holds as much as the operator allows. For `more` octets."""
        settings, ledger = self._settings, self._ledger
        check_room((settings.most_messages, settings.most_octets), (ledger.messages, ledger.octets), more)

    def enter(self, messages: Iterable[tuple[int, Acceptance]]) -> None:
        """Other processes have made these durable: (place, message)."""
        now = self._clock.now()
        for place, message in messages:
            self._store.recent.keep(place, message)
            self._ledger.enter(place, message, now)
            tell_accepted(self._bus, self._counts, message.envelope, now)
        self.ring()

    def _enter(self, message: Acceptance, place: int) -> None:
        self.enter(((place, message),))

    def ring(self) -> None:
        """Something may be claimable now."""
        if self._bell is not None:
            self._bell.set()
            self._bell = None

    @property
    def accepting(self) -> bool:
        """False while the disk takes nothing."""
        return not self._log.lost

    # --- giving work out ---

    def next_ready(self) -> str | None:
        """A next hop that became claimable since this was last asked; None when all of them were told."""
        now = self._clock.now()
        self._schedule.promote(now)
        hop = self._schedule.next_ready(now)
        return self._schedule.name(hop) if hop is not None else None

    def ready(self) -> list[str]:
        """Every next hop of which something can be claimed now; an explicit scan."""
        now = self._clock.now()
        while self._schedule.promote(now):
            pass
        return [self._schedule.name(hop) for hop in self._schedule.ready(now)]

    def claimable(self, next_hop: str) -> bool:
        hop = self._schedule.find(next_hop)
        return hop is not None and self._schedule.claimable(hop, self._clock.now())

    async def wait_ready(self) -> None:
        """Until `next_ready` has something to tell."""
        await trio.lowlevel.checkpoint()
        while True:
            now = self._clock.now()
            if self._schedule.promote(now) or self._schedule.rung(now):
                return
            if self._bell is None:
                self._bell = trio.Event()
            bell, due = self._bell, self._schedule.next_time()
            with trio.move_on_at(self._clock.to_trio(due)) if due is not None else trio.CancelScope():
                await bell.wait()

    async def claim(self, next_hop: str, most: int) -> list[Lease]:
        """Up to `most` due messages for `next_hop`, the longest due first; one only when it is a probe."""
        await trio.lowlevel.checkpoint_if_cancelled()
        hop = self._schedule.find(next_hop)
        if hop is None:
            return []
        rows = self._schedule.claim(hop, self._clock.now(), most)
        for row in rows:
            self._ledger.lease(row)
        if self._bell is not None and self._schedule.waiting(hop):
            self.ring()
        leases: list[Lease] = []
        while rows:
            try:
                lease = await self.lease_of(rows[0])
            except SpoolError as wrong:  # kept, and told: an operator may bring the file back
                self.trouble("spool", f"{next_hop}: {wrong}")
                self._ledger.postpone(rows.pop(0), self._clock.now() + UNREADABLE_DELAY, self._clock.now())
                self._schedule.unprobe(hop)
                continue
            except BaseException:
                for row in reversed(rows):
                    self._ledger.put_back(row)
                for lease in leases:
                    self.release(lease)
                raise
            rows.pop(0)
            if self.pauses.known and self.pauses.match(lease.envelope, self._clock.now()):
                self._ledger.pause(lease.row)
                self.release(lease)
            else:
                leases.append(lease)
        return leases

    async def lease_of(self, row: int) -> Lease:
        """A lease on a row that was taken out of the schedule. Raises SpoolError."""
        columns = self._ledger.rows
        message = await self._store.read(columns.place[row])
        chosen = self._ledger.chosen(row, message.envelope)
        self._leased += len(chosen)
        next_hop = self._schedule.name(columns.hop[row])
        if any(one.next_hop != next_hop for one in chosen):  # sent another way since
            chosen = tuple([msgspec.structs.replace(one, next_hop=next_hop) for one in chosen])
        tries = columns.attempts[row]
        return Lease(message.envelope, chosen, (tries & TRIES) + 1, next_hop, row, message, bool(tries & WARNED))

    async def open_body(self, lease: Lease) -> BodyReader:
        """The message's content. Raises SpoolError."""
        reader = self._store.open_body(lease.message)
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
        except BaseException:
            reader.close()
            raise
        return reader

    def place(self, lease: Lease) -> int:
        """Where the message stands, until the lease is settled or released: for who reads it himself."""
        return self._ledger.rows.place[lease.row]

    def release(self, lease: Lease) -> None:
        """Claimed but not tried: due again as before."""
        self._schedule.unprobe(self._ledger.rows.hop[lease.row])
        self._leased -= len(lease.recipients)
        self._ledger.put_back(lease.row)
        self.ring()

    # --- what became of it ---

    def _note(self) -> None:
        if self._ledger.notes.pending:
            self.noted.set()

    async def settle(self, lease: Lease, outcomes: Mapping[int, Outcome], probes: Probes | None = None) -> None:
        """One durable record for all that these outcomes end, delay and cause; `probes`: None for the settings'."""
        decision = decide(
            lease.envelope,
            lease.recipients,
            lease.attempt,
            outcomes,
            now=self._clock.now(),
            retry=self._settings.retry,
            random=self._random,
            warn=self._settings.warn,
            warned=lease.warned,
        )
        self._back_off(lease, decision, probes or (self._settings.probe_first, self._settings.probe_longest))
        self._note()
        await self.commit(lease, decision)

    async def commit(self, lease: Lease, decision: Decision) -> None:
        """Make a decision about a lease durable. Raises SpoolUnsure when the queue stops before."""
        report, mark = await self._report(lease, decision), WARNED if decision.warned else 0
        settlement = Settlement(
            self._ledger.rows.place[lease.row],
            tuple([recipient.id for recipient, _ in [*decision.done, *decision.failed]]),
            tuple([Later(one.id, tries | mark, due, reply_of(why)) for one, tries, due, why in decision.later]),
            report,
        )
        apply = partial(self._settled, lease, decision, settlement)
        await self._log.append(SETTLE, encode(settlement), apply, essential=True)
        if decision.gone and lease.message.file:
            await self._store.remove_body(lease.message.file)

    def _settled(self, lease: Lease, decision: Decision, settlement: Settlement, at: int) -> None:
        now, report = self._clock.now(), settlement.report
        self._leased -= len(lease.recipients)
        decision.gone = self._ledger.settle(lease.row, at, len(settlement.done), settlement.later, now)
        report_id = ""
        if report is not None:
            report_id = report.envelope.id
            self._ledger.enter(at | IN_SETTLEMENT, report, now)
            tell_accepted(self._bus, self._counts, report.envelope, now)
        tell_settled(self._bus, self._counts, lease.envelope, lease.attempt, decision, report_id, now)
        if decision.gone and self._store.empty(self._log.number, segment_of(settlement.place)):
            self.emptied.set()
        self.ring()

    async def _report(self, lease: Lease, decision: Decision) -> Acceptance | None:
        news, ret = news_of(lease.envelope, decision), lease.envelope.ret or self._settings.ret
        if not news:
            return None
        full = ret == "FULL" and bool(decision.failed)  # RFC 3461 §6.2: of failures only
        original = await self._store.original(lease.message, self._settings.most_original, full=full)
        made = self._reporter(lease.envelope, news, original)
        return Acceptance(made[0], made[1]) if made is not None else None

    def _back_off(self, lease: Lease, decision: Decision, probes: Probes) -> None:
        """Note for the next hop whether it could be spoken to."""
        hop = self._ledger.rows.hop[lease.row]
        down = [why for *_, why in decision.later if why.destination]
        if not down or decision.done:
            self._schedule.unblock(hop)
            return
        now = self._clock.now()
        known = self._schedule.blocks.back_off(hop)
        if known is not None and known.until > now and not known.probing:
            return  # a lease from before the failure that is already counted
        failures = known.failures if known is not None else 0
        plain = min(probes[1], probes[0] * 2.0 ** min(failures, 32))
        delay = spread(plain, BACK_OFF_JITTER, self._random())
        self._schedule.block(hop, now + delay, down[0])
        event, hop_name = events.BackedOff, lease.next_hop
        self._bus.emit(event(time=now, next_hop=hop_name, failures=failures + 1, delay=delay, reply=reply_of(down[0])))

    # --- operators ---

    async def suspend(self, next_hop: str, until: float = 0.0, reason: str = "") -> None:
        """Try nothing for the next hop, neither what waits nor what comes, until then (wall seconds; 0: until
        `resume`). Durable. Raises SpoolFull when there is no room for one more."""
        self._schedule.blocks.suspend(next_hop, Suspension(until, reason))
        if not self._ledger.notes[SUSPEND + next_hop]:
            self._schedule.blocks.suspended.pop(next_hop)
            raise SpoolFull("too many suspensions and back-offs are kept")
        await self.write_notes()
        self._bus.emit(events.Suspended(time=self._clock.now(), next_hop=next_hop, until=until, reason=reason))
        self.ring()

    async def resume(self, next_hop: str) -> bool:
        """False when it was not suspended. Durable."""
        if not self._schedule.resume(next_hop):
            return False
        await self.write_notes()
        self._bus.emit(events.Resumed(time=self._clock.now(), next_hop=next_hop))
        self.ring()
        return True

    async def pause(self, kind: str, what: str, until: float = 0.0, reason: str = "") -> None:
        """As `suspend`, by where mail comes from: see tripost.queue.pausing. Durable. Raises ValueError, SpoolFull."""
        self.pauses.add(kind, what, Pause(until, reason))
        self.edit.news.set()
        await self.write_notes()
        self._bus.emit(events.Suspended(time=self._clock.now(), next_hop=f"{kind} {what}", until=until, reason=reason))

    async def unpause(self, *ended: tuple[str, str]) -> bool:
        """Ends pauses; False when there was none of them. Durable."""
        found = [one for one in ended if self.pauses.end(*one)]
        if found:
            await self.write_notes()
            await self.edit.resume_all()
        for kind, what in found:
            self._bus.emit(events.Resumed(time=self._clock.now(), next_hop=f"{kind} {what}"))
        return bool(found)

    @property
    def suspensions(self) -> Mapping[str, Suspension]:
        return self._schedule.blocks.suspended

    def down(self, next_hop: str) -> tuple[str, float]:
        """Of a next hop with a back-off: what was last said, and when it is probed next (0: now); ("", 0) without."""
        hop = self._schedule.find(next_hop)
        one = self._schedule.blocks.back_off(hop) if hop is not None else None
        if one is None:
            return "", 0.0
        return reply_of(one.last) if one.last is not None else "before the last start", one.until

    def probe(self, next_hop: str) -> bool:
        """Try a next hop that could not be spoken to now, with one message; False where it is not that."""
        hop = self._schedule.find(next_hop)
        hurried = hop is not None and self._schedule.blocks.hurry(hop, self._clock.now())
        self.ring()
        return hurried

    def note(self, name: str, value: bytes) -> bool:
        """Keep a small value over restarts, b"" for none; durable within a second. False: there is no room for it."""
        fits = self._ledger.notes.put(name, value)
        self._note()
        return fits

    def note_of(self, name: str) -> bytes:
        """b"" for none."""
        return self._ledger.notes[name]

    def reopen(self, next_hop: str) -> None:
        """Another next hop of the same hosts has shown that it can be spoken to: its back-off is over."""
        if (hop := self._schedule.find(next_hop)) is not None:
            self._schedule.unblock(hop)
            self._note()
            self.ring()

    async def write_notes(self) -> None:
        """Make every pending note durable."""
        async with self._noting:
            payload = self._ledger.notes.take()
            if payload:
                await self._log.append(NOTE, payload, partial(self._ledger.note, payload), essential=True)

    def trouble(self, where: str, reason: str) -> None:
        self._bus.emit(events.Trouble(time=self._clock.now(), where=where, reason=reason))

    def statistics(self) -> QueueStatistics:
        return QueueStatistics(
            recovered=self._recovered,
            messages=self._ledger.messages,
            queued=self._ledger.queued,
            octets=self._ledger.octets,
            leased=self._leased,
            hops=self._schedule.hops(),
            **msgspec.structs.asdict(self._counts),
        )
