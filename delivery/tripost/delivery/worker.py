"""one delivery slot of one next hop

Claims a message, delivers it, settles, claims the next; keeps its connection
while there is work, and a little longer.

Promise  every lease that was claimed is settled or released, once.
Fails    what goes wrong with a message is an outcome; what goes wrong with the
         destination is a deferral of the destination.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec
import trio

from tripost.delivery.connection import Connection, Down
from tripost.delivery.forwarding import OpenReader, by_alias, circle, goes_in_circles, marked
from tripost.delivery.hosts import Dial, Dialler, Spare
from tripost.delivery.resolver import Names, Unroutable
from tripost.delivery.settings import DeliverySettings
from tripost.delivery.targets import Target, parse
from tripost.delivery.verdicts import down
from tripost.queue.body import BodyReader
from tripost.queue.clock import Clock
from tripost.queue.errors import SpoolError
from tripost.queue.events import Attempted, Bus, Resolved, Trouble
from tripost.queue.manager import Queue
from tripost.queue.message import Deferred, Delivered, Envelope, Failed, Outcome, Recipient
from tripost.queue.values import Lease

SETTLE_PAUSE = 5.0  # seconds after the spool could not take a settlement


class LocalDelivery(Protocol):
    """The local destination."""

    async def deliver(
        self, envelope: Envelope, recipients: tuple[Recipient, ...], open_reader: OpenReader
    ) -> dict[int, Outcome]: ...


class Site:
    """What the workers of one next hop share: who idles, and the event that wakes them."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.workers = 0
        self.lot = trio.lowlevel.ParkingLot()


class Outside(msgspec.Struct, frozen=True):
    """The world that workers act on."""

    queue: Queue
    settings: DeliverySettings
    resolver: Names
    local: LocalDelivery
    dialler: Dialler
    bus: Bus
    clock: Clock
    stopping: Callable[[], bool]


def _parsed(next_hop: str) -> Target:
    """`kind` is "" for a name that says nothing."""
    try:
        return parse(next_hop)
    except ValueError:
        return Target("")


class Worker:
    """`run` until there is nothing left to do."""

    def __init__(self, next_hop: str, site: Site, outside: Outside) -> None:
        self._next_hop = next_hop
        self._target = _parsed(next_hop)
        self._terms = outside.settings.literal if self._target.literal else outside.settings.default
        self._site = site
        self._out = outside
        self._connection: Connection | None = None

    async def run(self) -> None:
        try:
            while not self._out.stopping():
                leases = await self._out.queue.claim(self._next_hop, 1)
                if leases:
                    await self._one(leases[0])
                elif self._out.stopping() or self._connection is None or not await self._idle():
                    return
        finally:
            self._site.workers -= 1
            if self._connection is not None:
                await self._close(self._connection)

    async def _idle(self) -> bool:
        """Keep the connection for a while; True when there may be work."""
        with trio.move_on_after(self._terms.idle):
            await self._site.lot.park()
            return True
        return False

    async def _close(self, connection: Connection) -> None:
        self._connection = None
        await connection.close()

    async def _one(self, lease: Lease) -> None:
        outcomes: Mapping[int, Outcome]
        try:
            outcomes = await self._try(lease)
        except SpoolError as wrong:  # the content cannot be read now
            self._trouble("delivery", f"{lease.envelope.id}: {wrong}")
            outcomes = {one.id: Deferred(451, "4.3.0", wrong.text) for one in lease.recipients}
        except Exception as wrong:  # the worker boundary: one of the two places that catch everything
            self._trouble("delivery", f"{lease.envelope.id}: {type(wrong).__name__}: {wrong}")
            outcomes = {one.id: Deferred(451, "4.3.0", "internal trouble") for one in lease.recipients}
        except BaseException:
            self._out.queue.release(lease)
            raise
        try:
            await self._out.queue.settle(lease, outcomes)
        except SpoolError as wrong:
            self._trouble("settlement", f"{lease.envelope.id}: {wrong}")
            await trio.sleep(SETTLE_PAUSE)

    def _trouble(self, where: str, reason: str) -> None:
        self._out.bus.emit(Trouble(time=self._out.clock.now(), where=where, reason=reason))

    async def _try(self, lease: Lease) -> dict[int, Outcome]:
        envelope, hop = lease.envelope, self._next_hop

        async def open_reader() -> BodyReader:
            return await self._out.queue.open_body(lease)

        if hop == "local":
            return await self._out.local.deliver(envelope, lease.recipients, open_reader)
        if hop == "discard":
            return {one.id: Delivered("discarded") for one in lease.recipients}
        if hop == "reject":
            return {one.id: Failed(550, "5.7.1", "mail to this domain is refused here") for one in lease.recipients}
        if self._target.kind:
            return await self._each_alias(lease, open_reader)
        return {one.id: Failed(554, "5.4.0", f"no way to deliver to {hop}") for one in lease.recipients}

    async def _each_alias(self, lease: Lease, open_reader: OpenReader) -> dict[int, Outcome]:
        """What an alias forwards carries a line of it."""
        outcomes: dict[int, Outcome] = {}
        for alias, some in by_alias(lease.recipients).items():
            if alias and await goes_in_circles(open_reader, alias):
                outcomes |= {one.id: circle(alias) for one in some}
                continue
            part = lease if len(some) == len(lease.recipients) else msgspec.structs.replace(lease, recipients=some)
            outcomes |= await self._relay(part, marked(open_reader, alias) if alias else open_reader)
        return outcomes

    async def _relay(self, lease: Lease, open_reader: OpenReader) -> dict[int, Outcome]:
        """Each recipient is sent to once, over as many connections as the host's limits and a stale one make it."""
        outcomes: dict[int, Outcome] = {}
        while left := tuple(one for one in lease.recipients if one.id not in outcomes):
            try:
                connection = await self._connected(lease)
            except Unroutable as wrong:
                if wrong.permanent:
                    return outcomes | {one.id: Failed(550, wrong.enhanced, wrong.text) for one in left}
                return outcomes | {one.id: down(wrong.text, enhanced=wrong.enhanced) for one in left}
            except Down as wrong:
                return outcomes | {one.id: down(str(wrong), wrong.host, enhanced=wrong.enhanced) for one in left}
            most = self._terms.recipients_per_message
            part = left[: min(most, connection.recipients or most)]
            try:
                found = await connection.deliver(lease.envelope, part, open_reader, self._out.clock.now())
            except SpoolError as wrong:  # what was sent before stays sent
                await self._close_when_done(connection)
                return outcomes | {one.id: Deferred(451, "4.3.0", wrong.text) for one in left}
            if connection.stale:  # closed by the peer while it idled: that says nothing about the destination
                await self._close(connection)
                continue
            outcomes |= found
            lost = not connection.usable
            await self._close_when_done(connection)
            if lost:
                break  # who was not tried is tried again: the queue knows
        return outcomes

    async def _close_when_done(self, connection: Connection) -> None:
        most = self._terms.messages_per_connection
        if not connection.usable or connection.spent or connection.messages >= most:
            await self._close(connection)

    # --- getting a connection ---

    async def _connected(self, lease: Lease) -> Connection:
        """The open connection, or a new one. Raises Unroutable, Down."""
        level = "verify" if lease.envelope.require_tls else ""
        if self._connection is not None and (not level or self._connection.verified):
            self._attempted(lease, self._connection.host)
            return self._connection
        if self._connection is not None:
            await self._close(self._connection)
        wrong: Down | Unroutable = Down("no host")
        dial = self._dial(level)
        for host, port in await self._hosts():
            self._attempted(lease, host)
            try:
                self._connection = await self._out.dialler.open(host, port, dial, Spare())
            except Down as down_now:
                wrong = down_now
            except Unroutable as unroutable:  # a host without an address: that is not the domain's end
                wrong = Down(unroutable.text, enhanced="4.4.4", host=host)
            else:
                return self._connection
        raise wrong

    def _dial(self, level: str) -> Dial:
        settings, target = self._out.settings, self._target
        return Dial(
            hostname=settings.hostname,
            timeout=self._terms.connect_timeout,
            level=level or target.tls or self._terms.tls,
            lmtp=target.kind == "lmtp",
            auth=target.auth,
        )

    async def _hosts(self) -> list[tuple[str, int]]:
        target, port = self._target, self._out.settings.port
        if target.path:
            return [(target.path, 0)]
        if target.hosts:
            return list(target.hosts)
        if target.domain.startswith("["):
            return [(target.domain, port)]
        hosts = await self._out.resolver.mx(target.domain)
        self._out.bus.emit(Resolved(time=self._out.clock.now(), domain=target.domain, hosts=hosts))
        return [(host, port) for host in hosts]

    def _attempted(self, lease: Lease, host: str) -> None:
        self._out.bus.emit(
            Attempted(time=self._out.clock.now(), id=lease.envelope.id, next_hop=self._next_hop, host=host)
        )
