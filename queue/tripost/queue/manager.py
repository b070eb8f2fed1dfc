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
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import msgspec
import trio

from tripost.queue import events, records
from tripost.queue.body import Body, BodyReader
from tripost.queue.clock import Clock
from tripost.queue.errors import SpoolError
from tripost.queue.events import Bus
from tripost.queue.files import Files, Handle, RealFiles
from tripost.queue.log import Log, RunSync, segment_name, translate
from tripost.queue.message import Deferred, Envelope, Failed, Outcome, Recipient
from tripost.queue.recovery import (
    ACCEPT,
    SETTLE,
    Acceptance,
    Entry,
    Later,
    Recovered,
    Settlement,
    read_acceptance,
    recover,
    settle_entry,
)
from tripost.queue.retry import Schedule, spread
from tripost.queue.schedule import Hop
from tripost.queue.settling import Decision, decide, expired

Reporter = Callable[[Envelope, list[tuple[Recipient, Failed]], bytes], tuple[Envelope, bytes] | None]

HEADER_LIMIT = 50 * 1024  # of the original that a DSN may quote
EXPIRY_SWEEP = 60.0  # seconds between looks for what expired behind a blocked hop
RECORD_READ = 64 * 1024  # one read takes in most records whole
_encode = msgspec.msgpack.Encoder().encode


class QueueSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds and octets."""

    retry: Schedule = Schedule()
    expire: float = 432_000.0
    inline: int = 32_768
    segment_size: int = 64 << 20
    probe_first: float = 60.0
    probe_longest: float = 1800.0
    min_free: int = 1 << 30


class Lease(msgspec.Struct, frozen=True):
    """The right, and the duty, to try `recipients` of one message once; `attempt` is 1-based."""

    envelope: Envelope
    recipients: tuple[Recipient, ...]
    attempt: int
    next_hop: str


class QueueStatistics(msgspec.Struct, frozen=True):
    """Recipients since this start, but for `messages`, `queued`, `leased`, `hops`, which are now.

    accepted + recovered = relayed + delivered + discarded + reported + suppressed + queued.
    """

    recovered: int
    accepted: int
    relayed: int
    delivered: int
    discarded: int
    reported: int
    suppressed: int
    deferrals: int
    messages: int
    queued: int
    leased: int
    hops: int


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
        folder: str,
        settings: QueueSettings,
        *,
        clock: Clock,
        bus: Bus,
        reporter: Reporter,
        files: Files,
        run_sync: RunSync,
        random: Callable[[], float],
        log: Log,
        recovered: Recovered,
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._clock = clock
        self._bus = bus
        self._reporter = reporter
        self._files = files
        self._run_sync = run_sync
        self._random = random
        self._log = log
        self._entries = recovered.entries
        self._segments: dict[int, int] = dict.fromkeys(recovered.segments, 0)  # live messages in each
        self._readers: dict[int, Handle] = {}
        self._hops: dict[str, Hop[_Work]] = {}
        self._changed = trio.Event()
        self._leased: dict[str, int] = {}
        self._id_count = 0
        self._counts = dict.fromkeys(
            ("accepted", "relayed", "delivered", "discarded", "reported", "suppressed", "deferrals"), 0
        )
        for entry in self._entries.values():
            self._count_in(entry)
            self._schedule(entry)
        self._recovered = sum(len(entry.recipients) for entry in self._entries.values())

    # --- taking mail in ---

    def new_id(self) -> str:
        """Unique across restarts: microseconds, a counter and randomness, 18 characters of base 32."""
        self._id_count += 1
        number = (int(self._clock.now() * 1e6) << 36) | ((self._id_count & 0xFFF) << 24) | secrets.randbits(24)
        digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
        return "".join(digits[(number >> shift) & 31] for shift in range(85, -1, -5))

    def new_body(self) -> Body:
        """Content to be filled; its file, if it needs one, is named by `accept`'s id later."""
        return Body(self._files, self._bodies, f"b{self.new_id()}", self._settings.inline, self._run_sync)

    @property
    def _bodies(self) -> str:
        return os.path.join(self._folder, "bodies")

    async def accept(self, envelope: Envelope, body: Body) -> None:
        """Make the message durable; returns only then. Raises SpoolError/SpoolFull: nothing was accepted."""
        content, file = await body.finish()
        message = Acceptance(envelope, content, file)
        location = await self._log.append(ACCEPT, _encode(message))
        body.kept()
        self._enter(message, Entry(message, location, in_settlement=False))
        self._wake()

    def _enter(self, message: Acceptance, entry: Entry) -> None:
        envelope = message.envelope
        self._entries[entry.id] = entry
        self._counts["accepted"] += len(envelope.recipients)
        self._count_in(entry)
        self._schedule(entry)
        self._bus.emit(
            events.Accepted(
                time=self._clock.now(),
                id=envelope.id,
                sender=envelope.sender,
                recipients=[one.address for one in envelope.recipients],
                size=envelope.size,
                client=envelope.client,
            )
        )

    def _count_in(self, entry: Entry) -> None:
        segment = entry.location.segment
        self._segments[segment] = self._segments.get(segment, 0) + 1

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
        now = self._clock.now()
        return [name for name, hop in self._hops.items() if (due := hop.next_due()) is not None and due <= now]

    async def wait_ready(self) -> None:
        """Until something was accepted, settled or released, or the next due time is reached."""
        now = self._clock.now()
        dues = [due for hop in self._hops.values() if (due := hop.next_due()) is not None and due > now]
        changed = self._changed
        with trio.move_on_at(self._clock.to_trio(min(dues))) if dues else trio.CancelScope():
            await changed.wait()

    async def claim(self, next_hop: str, most: int) -> list[Lease]:
        """Up to `most` due messages for `next_hop`, the longest due first; one only when it is a probe."""
        hop = self._hops.get(next_hop)
        works = hop.claim(self._clock.now(), most) if hop is not None else []
        leases: list[Lease] = []
        for work in works:
            self._lease(work, 1)
            leases.append(self._make_lease(work, next_hop))
        await trio.lowlevel.checkpoint_if_cancelled()
        return leases

    def _make_lease(self, work: _Work, next_hop: str) -> Lease:
        message = self._read(work.entry)
        chosen = tuple(one for one in message.envelope.recipients if one.id in work.recipients)
        attempt = work.entry.recipients[work.recipients[0]][0] + 1
        return Lease(message.envelope, chosen, attempt, next_hop)

    def _lease(self, work: _Work, change: int) -> None:
        count = self._leased.get(work.entry.id, 0) + change * len(work.recipients)
        if count:
            self._leased[work.entry.id] = count
        else:
            self._leased.pop(work.entry.id, None)

    def _read(self, entry: Entry) -> Acceptance:
        """The message's record; from the page cache, so not worth a thread hop."""
        segment, offset = entry.location.segment, entry.location.offset
        path = os.path.join(self._folder, "log", segment_name(segment))
        handle = self._readers.get(segment)
        if handle is None:
            handle = self._readers[segment] = self._files.open(path)
        key = records.segment_key(handle.read_at(0, records.SEGMENT_HEADER))
        assert key is not None
        data = handle.read_at(offset, RECORD_READ)
        good = records.decode_at(key, data, 0, offset)
        if good is None:  # longer than one read, or damaged since
            data = handle.read_at(offset, records.length_at(data))
            good = records.decode_at(key, data, 0, offset)
        if good is None:
            raise SpoolError(f"{path}: the record of {entry.id} at {offset} is damaged")
        return read_acceptance(good.payload, entry.in_settlement)

    async def open_body(self, lease: Lease) -> BodyReader:
        """The message's content. Raises SpoolError."""
        message = self._read(self._entries[lease.envelope.id])
        handle: Handle | None = None
        size = len(message.body)
        if message.file:
            try:
                handle = self._files.open(os.path.join(self._bodies, message.file))
            except OSError as wrong:
                raise translate(wrong) from wrong
            size = handle.size()
        await trio.lowlevel.checkpoint()
        return BodyReader(message.body, handle, size, self._run_sync)

    def release(self, lease: Lease) -> None:
        """Claimed but not tried: due again as before."""
        self._put_back(lease)
        hop = self._hops[lease.next_hop]
        hop.probing = False
        self._wake()

    def _put_back(self, lease: Lease) -> None:
        entry = self._entries[lease.envelope.id]
        ids = frozenset(one.id for one in lease.recipients)
        self._lease(_Work(entry, tuple(ids)), -1)
        self._schedule(entry, ids)

    # --- what became of it ---

    async def settle(self, lease: Lease, outcomes: dict[int, Outcome]) -> None:
        """One durable record for all that these outcomes end, delay and cause. Raises SpoolError."""
        entry = self._entries[lease.envelope.id]
        entry.tried = True
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
            self._wake()
            raise
        self._lease(_Work(entry, tuple(one.id for one in lease.recipients)), -1)
        self._schedule(entry, frozenset(recipient.id for recipient, *_ in decision.later))
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
        if report is not None:
            self._enter(report, Entry(report, location, in_settlement=True))
        self._tell(entry, decision, report.envelope.id if report is not None else "")
        if gone is not None:
            await self._let_go(gone)

    async def _report(self, entry: Entry, envelope: Envelope, decision: Decision) -> Acceptance | None:
        if not decision.failed or not envelope.sender:
            return None
        message = self._read(entry)
        head = message.body[:HEADER_LIMIT]
        if message.file:
            path = os.path.join(self._bodies, message.file)
            try:
                head = await self._run_sync(partial(_read_head, self._files, path))
            except OSError as wrong:
                head = b""  # the failure must be reported even when the content cannot be read
                self._trouble("report", f"{entry.id}: {wrong.strerror}")
        made = self._reporter(envelope, decision.failed, head.partition(b"\r\n\r\n")[0] + b"\r\n")
        return Acceptance(made[0], made[1]) if made is not None else None

    async def _let_go(self, entry: Entry) -> None:
        """The message is done: its file and, once nothing before them is owed, its segments go."""
        paths = [os.path.join(self._bodies, entry.file)] if entry.file else []
        self._segments[entry.location.segment] -= 1
        if paths:
            await self._run_sync(partial(self._unlink, paths))
        await self._drop_segments()

    async def _drop_segments(self) -> None:
        # Oldest first, each removal durable before the next, and only while empty: what a segment says about
        # others it says about older ones, so none may outlive a newer one.
        gone: list[str] = []
        for number in sorted(self._segments):
            if self._segments[number] or number >= self._log.number:
                break
            del self._segments[number]
            if (handle := self._readers.pop(number, None)) is not None:
                handle.close()
            gone.append(os.path.join(self._folder, "log", segment_name(number)))
        for path in gone:
            await self._run_sync(partial(self._unlink, [path], sync=True))

    def _unlink(self, paths: list[str], sync: bool = False) -> None:
        for path in paths:
            try:
                self._files.unlink(path)
                if sync:
                    self._files.sync_folder(os.path.dirname(path))
            except OSError as wrong:  # it stays until the next start looks for orphans
                self._trouble("unlink", f"{os.path.basename(path)}: {wrong.strerror}")

    def _trouble(self, where: str, reason: str) -> None:
        self._bus.emit(events.Trouble(time=self._clock.now(), where=where, reason=reason))

    def _back_off(self, next_hop: str, decision: Decision) -> None:
        hop = self._hops[next_hop]
        down = [why for *_, why in decision.later if why.destination]
        if not down or decision.done:
            hop.unblock()
            return
        plain = min(self._settings.probe_longest, self._settings.probe_first * 2.0 ** min(hop.failures, 32))
        delay = spread(plain, 0.2, self._random())
        now = self._clock.now()
        if hop.failures and hop.blocked_until > now and not hop.probing:
            return  # a lease from before the failure that is already counted
        hop.block(now + delay)
        hop.last = down[0]
        self._bus.emit(
            events.BackedOff(
                time=now, next_hop=next_hop, failures=hop.failures, delay=delay, reply=f"{down[0].code} {down[0].text}"
            )
        )

    def _tell(self, entry: Entry, decision: Decision, report: str) -> None:
        """One event and one count per recipient, after the record is durable."""
        now, counts = self._clock.now(), self._counts
        for recipient, outcome in decision.done:
            counts[outcome.how] += 1
            if outcome.how == "delivered":
                self._bus.emit(events.DeliveredLocally(time=now, id=entry.id, recipient=recipient.address))
            else:
                self._bus.emit(
                    events.Relayed(
                        time=now,
                        id=entry.id,
                        recipient=recipient.address,
                        next_hop=recipient.next_hop,
                        host=outcome.host,
                        reply=outcome.reply,
                    )
                )
        for recipient, failure in decision.failed:
            counts["reported" if report else "suppressed"] += 1
            reply = f"{failure.code} {failure.enhanced} {failure.text}"
            self._bus.emit(
                events.Bounced(time=now, id=entry.id, recipient=recipient.address, reply=reply, report=report)
            )
        for recipient, attempts, due, why in decision.later:
            counts["deferrals"] += 1
            self._bus.emit(
                events.DeferredUntil(
                    time=now,
                    id=entry.id,
                    recipient=recipient.address,
                    next_hop=recipient.next_hop,
                    attempt=attempts,
                    due=due,
                    delay=max(0.0, due - now),
                    reply=f"{why.code} {why.enhanced} {why.text}",
                )
            )

    async def expire_blocked(self) -> None:
        """Forever: what waits behind a hop that cannot be spoken to still ends when its time is up.

        The hop was tried since this start (it has failures), which stands for an attempt of each of its messages.
        """
        while True:
            await trio.sleep(EXPIRY_SWEEP)
            for name, hop in list(self._hops.items()):
                if hop.failures and hop.last is not None:
                    await self._expire_hop(name, hop)

    async def _expire_hop(self, name: str, hop: Hop[_Work]) -> None:
        now = self._clock.now()
        over = [work for work in hop.entries() if work.entry.expires <= now]
        hop.remove({id(work) for work in over})
        for work in over:
            self._lease(work, 1)
            lease = self._make_lease(work, name)
            last = hop.last or Deferred(451, "4.4.1", "the destination cannot be reached", destination=True)
            failed = [(one, expired(last)) for one in lease.recipients]
            try:
                await self._commit(work.entry, lease.envelope, Decision([], failed, []))
            except SpoolError as wrong:
                self._put_back(lease)
                self._trouble("expiry", f"{work.entry.id}: {wrong}")
                return
            self._lease(work, -1)

    async def clean_up(self, recovered: Recovered) -> None:
        """Report damage; remove body files that no message names and segments that owe nothing."""
        for damage in recovered.damage:
            self._trouble("recovery", damage)
        named = {entry.file for entry in self._entries.values()}
        orphans = [name for name in self._files.names(self._bodies) if name not in named]
        await self._run_sync(partial(self._unlink, [os.path.join(self._bodies, name) for name in orphans]))
        await self._drop_segments()

    def close(self) -> None:
        for handle in self._readers.values():
            handle.close()
        self._readers.clear()

    def statistics(self) -> QueueStatistics:
        return QueueStatistics(
            recovered=self._recovered,
            messages=len(self._entries),
            queued=sum(len(entry.recipients) for entry in self._entries.values()),
            leased=sum(self._leased.values()),
            hops=sum(1 for hop in self._hops.values() if len(hop)),
            **self._counts,
        )


def _read_head(files: Files, path: str) -> bytes:
    handle = files.open(path)
    try:
        return handle.read_at(0, HEADER_LIMIT)
    finally:
        handle.close()


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
) -> AsyncIterator[Queue]:
    """Lock the folder, recover what it holds, run the committer. Raises SpoolLocked, SpoolDamaged, SpoolError."""
    disk: Files = files if files is not None else RealFiles()
    hop: RunSync = run_sync if run_sync is not None else trio.to_thread.run_sync
    log_folder, bodies = os.path.join(folder, "log"), os.path.join(folder, "bodies")
    try:
        for path in (log_folder, bodies):
            disk.make_folder(path)
        lock = disk.lock(os.path.join(folder, "lock"))
    except OSError as wrong:
        raise translate(wrong) from wrong
    try:
        recovered: Recovered = await hop(partial(recover, disk, log_folder))
        log = Log(
            disk,
            log_folder,
            run_sync=hop,
            segment_size=settings.segment_size,
            min_free=settings.min_free,
            next_number=max(recovered.segments, default=0) + 1,
        )
        queue = Queue(
            folder,
            settings,
            clock=clock,
            bus=bus,
            reporter=reporter,
            files=disk,
            run_sync=hop,
            random=random,
            log=log,
            recovered=recovered,
        )
        await queue.clean_up(recovered)
        async with trio.open_nursery() as nursery:
            await nursery.start(log.run)
            nursery.start_soon(queue.expire_blocked)
            try:
                yield queue
            finally:
                nursery.cancel_scope.cancel()
        log.close()
        queue.close()
    finally:
        lock.close()
