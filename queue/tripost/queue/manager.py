"""the queue: accept, claim, settle

The one owner of what is queued: its log, its schedule, its leases.

Promise  After `accept` returned, every recipient ends in exactly one durable
         settlement. A DSN is in the same record as the settlement that causes
         it. Attempts and due times survive restarts.
States   a recipient is waiting (in the schedule), leased, or settled.
Fails    SpoolError/SpoolFull from `accept` and `settle`; a failed settle puts
         the lease's recipients back, so that they are tried again.
Why      Decisions are made in sync code between two awaits, so that the
         schedule is never half-changed.
"""

from __future__ import annotations

import os
import random as stdlib_random
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial

import msgspec
import trio

from tripost.queue import events
from tripost.queue.body import Body, BodyReader
from tripost.queue.clock import Clock
from tripost.queue.errors import SpoolError
from tripost.queue.events import Bus
from tripost.queue.files import Files, RealFiles
from tripost.queue.log import Log, RunSync, translate
from tripost.queue.message import Deferred, Envelope, Failed, Outcome
from tripost.queue.recovery import (
    ACCEPT,
    SETTLE,
    Acceptance,
    Entry,
    Later,
    Recovered,
    Settlement,
    recover,
    settle_entry,
)
from tripost.queue.retry import spread
from tripost.queue.schedule import Hop
from tripost.queue.settling import Decision, decide, expired
from tripost.queue.store import Store
from tripost.queue.telling import tell_accepted, tell_settled
from tripost.queue.values import Counts, Lease, QueueSettings, QueueStatistics, Reporter

HEADER_LIMIT = 50 * 1024  # octets of the original's header that a DSN may quote
EXPIRY_SWEEP = 60.0  # seconds between looks for what expired behind a blocked hop
UNREADABLE_DELAY = 300.0  # seconds until a record that could not be read is looked at again
BACK_OFF_JITTER = 0.2
_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [high + low for high in _DIGITS for low in _DIGITS]
_encode = msgspec.msgpack.Encoder().encode


class _Work:
    """One entry of the schedule: the recipients of one message that share next hop and due time."""

    __slots__ = ("entry", "recipients")

    def __init__(self, entry: Entry, recipients: tuple[int, ...]) -> None:
        self.entry = entry
        self.recipients = recipients


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
        recovered: Recovered,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._bus = bus
        self._reporter = reporter
        self._random = random
        self._log = log
        self._store = store
        self._entries = recovered.entries
        self._hops: dict[str, Hop[_Work]] = {}
        self._changed = trio.Event()
        self._looked = 0.0  # when `ready` was last asked: what became due since is news
        self._leased = 0
        self._queued = 0  # recipients without a final outcome
        self._ids = 0
        self._run = secrets.randbits(24)
        self._counts = Counts()
        for entry in self._entries.values():
            self._store.enter(entry)
            self._schedule(entry)
            self._queued += len(entry.recipients)
        self._recovered = self._queued

    # --- taking mail in ---

    def new_id(self) -> str:
        """Unique across restarts: microseconds, a counter and this start's random part, 18 characters of base 32."""
        self._ids += 1
        number = (int(self._clock.now() * 1e6) << 36) | ((self._ids & 0xFFF) << 24) | self._run
        return "".join([_PAIRS[(number >> shift) & 1023] for shift in range(80, -1, -10)])

    def new_body(self) -> Body:
        """Content to be filled."""
        return self._store.new_body(f"b{self.new_id()}", self._settings.inline)

    async def accept(self, envelope: Envelope, body: Body) -> None:
        """Make the message durable; returns only then. Raises SpoolError/SpoolFull: nothing was accepted."""
        content, file = await body.finish()
        message = Acceptance(envelope, content, file)
        location = await self._log.append(ACCEPT, _encode(message))
        body.kept()
        self._enter(message, Entry(message, location, in_settlement=False))
        self._wake()

    def _enter(self, message: Acceptance, entry: Entry) -> None:
        self._entries[entry.id] = entry
        self._queued += len(entry.recipients)
        self._store.enter(entry)
        self._schedule(entry)
        tell_accepted(self._bus, self._counts, message.envelope, self._clock.now())

    def _schedule(self, entry: Entry, only: frozenset[int] | None = None) -> None:
        """Put the entry's waiting recipients into their hops, those of equal due time and attempts together."""
        groups: dict[tuple[str, float, int], list[int]] = {}
        for recipient, (attempts, due, hop) in entry.recipients.items():
            if only is None or recipient in only:
                groups.setdefault((hop, due, attempts), []).append(recipient)
        for (hop, due, _), recipients in groups.items():
            self._hops.setdefault(hop, Hop[_Work]()).add(_Work(entry, tuple(recipients)), due)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # --- giving work out ---

    def ready(self) -> list[str]:
        """The next hops of which something can be claimed now."""
        now = self._looked = self._clock.now()
        return [name for name, hop in self._hops.items() if (due := hop.next_due()) is not None and due <= now]

    async def wait_ready(self) -> None:
        """Until something was accepted, settled or released, or became due since `ready` was last asked."""
        dues = [due for hop in self._hops.values() if (due := hop.next_due()) is not None and due > self._looked]
        changed = self._changed
        with trio.move_on_at(self._clock.to_trio(min(dues))) if dues else trio.CancelScope():
            await changed.wait()

    async def claim(self, next_hop: str, most: int) -> list[Lease]:
        """Up to `most` due messages for `next_hop`, the longest due first; one only when it is a probe."""
        await trio.lowlevel.checkpoint_if_cancelled()
        hop = self._hops.get(next_hop)
        if hop is None:
            return []
        leases: list[Lease] = []
        for work in hop.claim(self._clock.now(), most):
            try:
                leases.append(self._lease(work, next_hop))
            except SpoolError as wrong:  # kept, and told: an operator may bring the file back
                self._trouble("spool", f"{work.entry.id}: {wrong}")
                hop.add(work, self._clock.now() + UNREADABLE_DELAY)
                hop.probing = False
        return leases

    def _lease(self, work: _Work, next_hop: str) -> Lease:
        message = self._store.read(work.entry)
        chosen = tuple(one for one in message.envelope.recipients if one.id in work.recipients)
        attempt = work.entry.recipients[work.recipients[0]][0] + 1
        self._leased += len(chosen)
        return Lease(message.envelope, chosen, attempt, next_hop)

    async def open_body(self, lease: Lease) -> BodyReader:
        """The message's content. Raises SpoolError."""
        reader = self._store.open_body(self._store.read(self._entries[lease.envelope.id]))
        try:
            await trio.lowlevel.checkpoint()
        except BaseException:
            reader.close()
            raise
        return reader

    def release(self, lease: Lease) -> None:
        """Claimed but not tried: due again as before."""
        self._hops.setdefault(lease.next_hop, Hop[_Work]()).probing = False
        self._put_back(lease)

    def _put_back(self, lease: Lease) -> None:
        self._leased -= len(lease.recipients)
        self._schedule(self._entries[lease.envelope.id], frozenset(one.id for one in lease.recipients))
        self._wake()

    # --- what became of it ---

    async def settle(self, lease: Lease, outcomes: Mapping[int, Outcome]) -> None:
        """One durable record for all that these outcomes end, delay and cause. Raises SpoolError."""
        entry = self._entries[lease.envelope.id]
        decision = decide(
            lease.envelope,
            lease.recipients,
            lease.attempt,
            outcomes,
            now=self._clock.now(),
            retry=self._settings.retry,
            random=self._random,
        )
        self._back_off(lease.next_hop, decision)
        try:
            await self._commit(entry, lease.envelope, decision)
        except SpoolError:
            self._put_back(lease)
            raise
        self._leased -= len(lease.recipients)
        self._schedule(entry, frozenset(recipient.id for recipient, *_ in decision.later))
        self._forget_hop(lease.next_hop)
        self._wake()

    async def _commit(self, entry: Entry, envelope: Envelope, decision: Decision) -> None:
        report = await self._report(entry, envelope, decision)
        settlement = Settlement(
            entry.id,
            tuple(recipient.id for recipient, _ in [*decision.done, *decision.failed]),
            tuple(Later(recipient.id, attempts, due) for recipient, attempts, due, _ in decision.later),
            report,
        )
        location = await self._log.append(SETTLE, _encode(settlement), essential=True)
        gone = settle_entry(self._entries, settlement)
        self._queued -= len(settlement.done)
        if report is not None:
            self._enter(report, Entry(report, location, in_settlement=True))
        report_id = report.envelope.id if report is not None else ""
        tell_settled(self._bus, self._counts, entry.id, decision, report_id, self._clock.now())
        if gone is not None:
            await self._store.let_go(gone, self._log.number)

    async def _report(self, entry: Entry, envelope: Envelope, decision: Decision) -> Acceptance | None:
        if not decision.failed or not envelope.sender:
            return None
        header = await self._store.header(self._store.read(entry), HEADER_LIMIT)
        made = self._reporter(envelope, decision.failed, header)
        return Acceptance(made[0], made[1]) if made is not None else None

    def _back_off(self, next_hop: str, decision: Decision) -> None:
        """Note for the next hop whether it could be spoken to."""
        hop = self._hops.setdefault(next_hop, Hop[_Work]())
        down = [why for *_, why in decision.later if why.destination]
        if not down or decision.done:
            hop.unblock()
            return
        now = self._clock.now()
        if hop.failures and hop.blocked_until > now and not hop.probing:
            return  # a lease from before the failure that is already counted
        plain = min(self._settings.probe_longest, self._settings.probe_first * 2.0 ** min(hop.failures, 32))
        delay = spread(plain, BACK_OFF_JITTER, self._random())
        hop.block(now + delay)
        hop.last = down[0]
        reply = f"{down[0].code} {down[0].enhanced} {down[0].text}"
        self._bus.emit(events.BackedOff(time=now, next_hop=next_hop, failures=hop.failures, delay=delay, reply=reply))

    def _forget_hop(self, name: str) -> None:
        """Names of next hops come from senders: one that holds nothing, and no back-off, is not remembered."""
        hop = self._hops.get(name)
        if hop is not None and not len(hop) and not hop.probing and hop.blocked_until <= self._clock.now():
            del self._hops[name]

    async def expire_blocked(self) -> None:
        """Forever: what waits behind a hop that cannot be spoken to still ends when its time is up.

        The hop was tried since this start (it has failures), which stands for an attempt of each of its messages.
        """
        while True:
            await trio.sleep(EXPIRY_SWEEP)
            for name, hop in list(self._hops.items()):
                if hop.failures and hop.last is not None:
                    await self._expire_hop(name, hop, hop.last)
                self._forget_hop(name)

    async def _expire_hop(self, name: str, hop: Hop[_Work], last: Deferred) -> None:
        now = self._clock.now()
        over = [work for work in hop.entries() if work.entry.expires <= now]
        hop.remove({id(work) for work in over})
        for at, work in enumerate(over):
            try:
                lease = self._lease(work, name)
                await self._expire(lease, expired(last))
            except SpoolError as wrong:
                self._trouble("expiry", f"{work.entry.id}: {wrong}")
                for one in over[at:]:
                    hop.add(one, now)
                return
            await trio.lowlevel.checkpoint()

    async def _expire(self, lease: Lease, failure: Failed) -> None:
        failed = [(one, failure) for one in lease.recipients]
        try:
            await self._commit(self._entries[lease.envelope.id], lease.envelope, Decision([], failed, []))
        finally:
            self._leased -= len(lease.recipients)
        self._wake()

    def _trouble(self, where: str, reason: str) -> None:
        self._bus.emit(events.Trouble(time=self._clock.now(), where=where, reason=reason))

    def statistics(self) -> QueueStatistics:
        return QueueStatistics(
            recovered=self._recovered,
            messages=len(self._entries),
            queued=self._queued,
            leased=self._leased,
            hops=sum(1 for hop in self._hops.values() if len(hop)),
            **msgspec.structs.asdict(self._counts),
        )


@asynccontextmanager
async def open_queue(
    folder: str,
    settings: QueueSettings,
    *,
    clock: Clock,
    bus: Bus,
    reporter: Reporter,
    files: Files | None = None,
    run_sync: RunSync | None = None,
    random: Callable[[], float] = stdlib_random.random,
) -> AsyncGenerator[Queue, None]:
    """Lock the folder, recover what it holds, run the committer. Raises SpoolLocked, SpoolDamaged, SpoolError."""
    disk: Files = files if files is not None else RealFiles()
    hop: RunSync = run_sync if run_sync is not None else trio.to_thread.run_sync
    log_folder = os.path.join(folder, "log")
    try:
        for path in (log_folder, os.path.join(folder, "bodies")):
            disk.make_folder(path)
        lock = disk.lock(os.path.join(folder, "lock"))
    except OSError as wrong:
        raise translate(wrong) from wrong

    def trouble(where: str, reason: str) -> None:
        bus.emit(events.Trouble(time=clock.now(), where=where, reason=reason))

    store = Store(disk, folder, hop, trouble)
    try:
        recovered: Recovered = await hop(partial(recover, disk, log_folder))
        number = max(recovered.segments, default=0) + 1
        sizes = {"segment_size": settings.segment_size, "min_free": settings.min_free}
        log = Log(disk, log_folder, run_sync=hop, next_number=number, **sizes)
        queue = Queue(
            settings, clock=clock, bus=bus, reporter=reporter, random=random, log=log, store=store, recovered=recovered
        )
        await store.clean_up(recovered, number)
        async with trio.open_nursery() as nursery:
            await nursery.start(log.run)
            nursery.start_soon(queue.expire_blocked)
            try:
                yield queue
            finally:
                nursery.cancel_scope.cancel()
        log.close()
    finally:
        store.close()
        lock.close()
