"""one delivery slot of one next hop

Claims a message, delivers it, settles, claims the next; keeps its connection
while there is work, and a little longer.

Promise  every lease that was claimed is settled or released, once.
Fails    what goes wrong with a message is an outcome; what goes wrong with the
         destination is a deferral of the destination.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec
import trio

from tripost.delivery.connection import Connect, Connection, Down
from tripost.delivery.forwarding import OpenReader, by_alias, circle, goes_in_circles, marked
from tripost.delivery.resolver import Names, Unroutable
from tripost.delivery.verdicts import down
from tripost.queue.body import BodyReader
from tripost.queue.clock import Clock
from tripost.queue.errors import SpoolError
from tripost.queue.events import Attempted, Bus, Resolved, Trouble
from tripost.queue.manager import Queue
from tripost.queue.message import Deferred, Delivered, Envelope, Failed, Outcome, Recipient
from tripost.queue.values import Lease

MOST_ADDRESSES = 10  # tried in one attempt
RECIPIENTS = 100  # in one transaction
SETTLE_PAUSE = 5.0  # seconds after the spool could not take a settlement


class DeliverySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds; `port` is for mx routes."""

    hostname: str
    port: int = 25
    connections: int = 20
    messages_per_connection: int = 100
    idle: float = 5.0
    connect_timeout: float = 30.0
    most_workers: int = 2000


class LocalDelivery(Protocol):
    """The local destination."""

    async def deliver(
        self, envelope: Envelope, recipients: tuple[Recipient, ...], open_reader: OpenReader
    ) -> dict[int, Outcome]: ...


class Site:
    """What the workers of one next hop share: who idles, and the event that wakes them."""

    def __init__(self) -> None:
        self.workers = 0
        self.lot = trio.lowlevel.ParkingLot()


class Outside(msgspec.Struct, frozen=True):
    """The world that workers act on."""

    queue: Queue
    settings: DeliverySettings
    resolver: Names
    local: LocalDelivery
    connect: Connect
    bus: Bus
    clock: Clock
    stopping: Callable[[], bool]


class Worker:
    """`run` until there is nothing left to do."""

    def __init__(self, next_hop: str, site: Site, outside: Outside) -> None:
        self._next_hop = next_hop
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
        with trio.move_on_after(self._out.settings.idle):
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
        if hop.startswith(("mx:", "smtp://")):
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
                return outcomes | {one.id: down(str(wrong)) for one in left}
            part = left[: min(RECIPIENTS, connection.recipients or RECIPIENTS)]
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
        most = self._out.settings.messages_per_connection
        if not connection.usable or connection.spent or connection.messages >= most:
            await self._close(connection)

    # --- getting a connection ---

    async def _connected(self, lease: Lease) -> Connection:
        """The open connection, or a new one. Raises Unroutable, Down."""
        settings, wrong = self._out.settings, Down("no host")
        if self._connection is not None:
            self._attempted(lease, self._connection.host)
            return self._connection
        tried = 0
        for host, port in await self._hosts():
            try:
                addresses = await self._addresses(host)
            except Unroutable as unroutable:
                wrong = Down(unroutable.text)
                continue
            for address in addresses[: MOST_ADDRESSES - tried]:
                tried += 1
                self._attempted(lease, host)
                try:
                    self._connection = await Connection.open(
                        self._out.connect,
                        address,
                        port,
                        host=host,
                        hostname=settings.hostname,
                        timeout=settings.connect_timeout,
                    )
                except Down as down_now:
                    wrong = down_now
                else:
                    return self._connection
        raise wrong

    async def _hosts(self) -> list[tuple[str, int]]:
        port = self._out.settings.port
        if self._next_hop.startswith("smtp://"):
            host, _, literal_port = self._next_hop.removeprefix("smtp://").rpartition(":")
            return [(host, int(literal_port))]
        domain = self._next_hop.removeprefix("mx:")
        if domain.startswith("["):
            return [(domain, port)]
        hosts = await self._out.resolver.mx(domain)
        self._out.bus.emit(Resolved(time=self._out.clock.now(), domain=domain, hosts=hosts))
        return [(host, port) for host in hosts]

    async def _addresses(self, host: str) -> list[str]:
        literal = host.strip("[]").removeprefix("IPv6:")
        try:
            return [str(ipaddress.ip_address(literal))]
        except ValueError:
            return await self._out.resolver.addresses(host)

    def _attempted(self, lease: Lease, host: str) -> None:
        self._out.bus.emit(
            Attempted(time=self._out.clock.now(), id=lease.envelope.id, next_hop=self._next_hop, host=host)
        )
