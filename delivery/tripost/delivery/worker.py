"""one delivery slot of one site

Claims a message, delivers it, settles, claims the next; keeps its connection
while there is work, and a little longer.

Promise  Every lease that was claimed is settled or released, once. A transaction
         begins only when the site's rate allows it, at that moment.
Fails    What goes wrong with a message is an outcome. What goes wrong with the
         destination is a deferral of it, where no other connection to the site
         is good; else it takes fewer connections than we thought, the message
         goes back untried, and this slot ends.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import trio

from tripost.delivery.classify import classify
from tripost.delivery.dialling import Dial
from tripost.delivery.forwarding import OpenReader, by_alias, circle, goes_in_circles, marked
from tripost.delivery.gate import Crowded, Gate
from tripost.delivery.links import Cargo, Down, Interrupted, Link, Unroutable
from tripost.delivery.outside import Outside
from tripost.delivery.site import Site
from tripost.delivery.telling import tell_adapted, tell_attempted, tell_closed, tell_opened, tell_unreachable
from tripost.delivery.verdicts import down
from tripost.delivery.ways import Way
from tripost.queue.body import BodyReader
from tripost.queue.dialogue import DELIVERY
from tripost.queue.errors import SpoolError
from tripost.queue.events import Limited, Trouble
from tripost.queue.message import Deferred, Delivered, Failed, Outcome, Recipient
from tripost.queue.values import Lease

SETTLE_PAUSE = 5.0  # seconds after the spool could not take a settlement


class Worker:
    """`run` until there is nothing left to do."""

    def __init__(self, site: Site, outside: Outside) -> None:
        self._site = site
        self._out = outside
        self._terms = site.terms
        self._gate = Gate(site, outside)
        self._connection: Link | None = None
        self._most = 0  # messages that it is to carry
        self._way: Way
        self._next_hop = ""
        self._pending = False
        self._ended = False

    async def run(self) -> None:
        try:
            while (lease := await self._next()) is not None:
                await self._one(lease)
        finally:
            await self._close()

    # --- the next message ---

    async def _next(self) -> Lease | None:
        """None when this slot is to end."""
        site, out = self._site, self._out
        while not (self._ended or out.stopping() or site.surplus or out.crowd.wanted(site)):
            by, _ = site.binding(out.clock.now(), self._connection is not None)
            if by:
                return None
            hop = site.next_hop()
            if hop is None:
                if self._connection is None or not await self._idle():
                    return None
                continue
            way = out.ways.known(hop)
            if way is None or way.site != site.name:
                out.crowd.found(hop)
                continue
            leases = await out.queue.claim(hop, 1)
            if out.queue.claimable(hop):
                site.hops[hop] = None
            if leases:
                self._way, self._next_hop = way, hop
                if site.hops:
                    out.crowd.serve(site)
                return leases[0]
        return None

    async def _idle(self) -> bool:
        """Keep the connection for a while; True when there may be work."""
        site = self._site
        with trio.move_on_after(self._terms.idle), self._out.crowd.idling(site):
            await site.lot.park()
            if site.leave:
                site.leave -= 1
                return False
            return True
        return False

    async def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close()
            finally:
                self._site.open -= 1
                tell_closed(self._out, self._site, connection)

    # --- one message ---

    async def _one(self, lease: Lease) -> None:
        outcomes: Mapping[int, Outcome]
        self._begin_pending()
        try:
            outcomes = await self._try(lease)
        except Crowded:
            self._ended = True
            self._out.queue.release(lease)
            return
        except Interrupted:
            self._out.queue.release(lease)
            await self._close()
            return
        except SpoolError as wrong:  # the content cannot be read now
            self._trouble("delivery", f"{lease.envelope.id}: {wrong}")
            outcomes = {one.id: Deferred(451, "4.3.0", wrong.text) for one in lease.recipients}
        except Exception as wrong:  # the worker boundary: one of the two places that catch everything
            self._trouble("delivery", f"{lease.envelope.id}: {type(wrong).__name__}: {wrong}")
            outcomes = {one.id: Deferred(451, "4.3.0", "internal trouble") for one in lease.recipients}
        except BaseException:
            self._out.queue.release(lease)
            raise
        finally:
            self._end_pending()
        if self._way.network:
            self._learn(outcomes)
        try:
            await self._out.queue.settle(lease, outcomes, self._terms.probes)
        except SpoolError as wrong:
            self._trouble("settlement", f"{lease.envelope.id}: {wrong}")
            await trio.sleep(SETTLE_PAUSE)

    def _begin_pending(self) -> None:
        self._pending = True
        self._site.pending += 1

    def _end_pending(self) -> None:
        if self._pending:
            self._pending = False
            self._site.pending -= 1

    def _trouble(self, where: str, reason: str) -> None:
        self._out.bus.emit(Trouble(time=self._out.clock.now(), where=where, reason=reason))

    def _learn(self, outcomes: Mapping[int, Outcome]) -> None:
        """What these outcomes say about the site."""
        site, out, now = self._site, self._out, self._out.clock.now()
        reached = False
        for outcome in outcomes.values():
            if isinstance(outcome, Delivered):
                reached = True
                continue
            if isinstance(outcome, Deferred) and outcome.destination:
                continue
            reached = True
            if outcome.host:
                self._slow(f"{outcome.code} {outcome.enhanced} {outcome.text}", now)
        if reached:
            for hop in site.succeeded():
                out.queue.reopen(hop)
        elif outcomes and not site.open:
            self._ended = True
            site.blocked[self._next_hop] = None
            tell_adapted(out, site, site.failed(now))

    def _slow(self, reply: str, now: float) -> None:
        kind = classify(reply)
        if not kind.pause:
            return
        rest = self._site.slowed(kind, now)
        if rest:
            why = f"{kind.name}: {reply}"
            self._out.bus.emit(Limited(time=now, site=self._site.name, by="rest", wait=rest, reason=why))

    async def _try(self, lease: Lease) -> dict[int, Outcome]:
        envelope, kind = lease.envelope, self._way.target.kind

        async def open_reader() -> BodyReader:
            return await self._out.queue.open_body(lease)

        if kind == "local":
            return await self._out.local.deliver(envelope, lease.recipients, open_reader)
        if kind == "discard":
            return {one.id: Delivered("discarded") for one in lease.recipients}
        if kind == "reject":
            return {one.id: Failed(550, "5.7.1", "mail to this domain is refused here") for one in lease.recipients}
        return await self._each_alias(lease, open_reader)

    async def _each_alias(self, lease: Lease, open_reader: OpenReader) -> dict[int, Outcome]:
        """What an alias forwards carries a line of it."""
        if not any(one.via for one in lease.recipients):
            return await self._relay(lease, open_reader)
        outcomes: dict[int, Outcome] = {}
        for alias, some in by_alias(lease.recipients).items():
            if alias and await goes_in_circles(open_reader, alias):
                outcomes |= {one.id: circle(alias) for one in some}
                continue
            part = lease if len(some) == len(lease.recipients) else msgspec.structs.replace(lease, recipients=some)
            try:
                outcomes |= await self._relay(part, marked(open_reader, alias) if alias else open_reader, alias)
            except (Crowded, Interrupted):
                if not outcomes:
                    raise
                self._ended = True  # what was sent is sent, the rest keeps its place
        return outcomes

    async def _relay(self, lease: Lease, open_reader: OpenReader, alias: str = "") -> dict[int, Outcome]:
        """Each recipient is sent to once, over as many connections as the host's limits and a stale one make it."""
        outcomes: dict[int, Outcome] = {}
        while left := tuple(one for one in lease.recipients if one.id not in outcomes):
            try:
                connection = await self._connected(lease)
            except Unroutable as wrong:
                if wrong.permanent:
                    return outcomes | {one.id: Failed(550, wrong.enhanced, wrong.text) for one in left}
                return outcomes | {one.id: down(wrong.text, enhanced=wrong.enhanced) for one in left}
            except (Crowded, Interrupted):
                if outcomes:
                    self._ended = True
                    return outcomes  # what was sent is sent, the rest keeps its place
                raise
            except Down as wrong:
                if self._site.open:
                    self._refused(str(wrong), self._gate.begun)
                    if outcomes:
                        return outcomes
                    raise Crowded from None
                return outcomes | {one.id: down(str(wrong), wrong.host, enhanced=wrong.enhanced) for one in left}
            most = self._terms.recipients_per_message
            part = left[: min(most, connection.recipients or most)]
            try:
                found = await connection.deliver(self._cargo(lease, part, open_reader, alias), self._turn)
            except Interrupted:
                if outcomes:
                    self._ended = True
                    return outcomes
                raise
            except SpoolError as wrong:  # what was sent before stays sent
                await self._close_when_done(connection)
                return outcomes | {one.id: Deferred(451, "4.3.0", wrong.text) for one in left}
            if connection.stale:  # closed by the peer while it idled: that says nothing about the destination
                await self._close()
                continue
            lost = not connection.usable
            await self._close_when_done(connection)
            outcomes |= self._own(found) if lost else found
            if lost:
                break  # who was not tried is tried again: the queue knows
        return outcomes

    def _cargo(self, lease: Lease, part: tuple[Recipient, ...], open_reader: OpenReader, alias: str) -> Cargo:
        now, paced = self._out.clock.now(), bool(self._site.terms.rate.count)
        return Cargo(lease.envelope, part, open_reader, now, self._out.queue.place(lease), alias, paced)

    def _own(self, found: dict[int, Outcome]) -> dict[int, Outcome]:
        """A connection ended in a transaction while others are good: it is this message's trouble, or they are too
        many. The message has its own retry, so that one that breaks connections does not come back at once."""
        gone = [one for one in found.values() if isinstance(one, Deferred) and one.destination]
        if not gone or not self._site.open:
            return found
        self._refused(gone[0].text, None)
        self._ended = True
        return {
            id: msgspec.structs.replace(one, destination=False) if isinstance(one, Deferred) else one
            for id, one in found.items()
        }

    def _refused(self, reply: str, begun: int | None) -> None:
        tell_adapted(self._out, self._site, f"{self._site.refused(self._out.clock.now(), begun)}: {reply}")

    async def _close_when_done(self, connection: Link) -> None:
        if not connection.usable or connection.spent or connection.messages >= self._most:
            await self._close()

    async def _turn(self) -> None:
        """Until one transaction more may begin; it is counted as begun."""
        site, now = self._site, self._out.clock.now
        if not site.terms.rate.count:
            self._end_pending()
            return
        async with site.turn:
            waited = False
            while (wait := site.pace.wait(now())) > 0:
                waited = True
                await trio.sleep(wait)
            site.pace.take(now(), waited=waited)
            if site.pace.slow:
                await self._out.crowd.remember(site)
        self._end_pending()

    # --- getting a connection ---

    async def _connected(self, lease: Lease) -> Link:
        """The open connection, or a new one. Raises Unroutable, Down, Crowded."""
        level = "verify" if lease.envelope.require_tls else ""
        if (connection := self._connection) is not None:
            if connection.usable and (connection.verified or not level) and self._way.has(connection.host):
                self._attempted(lease, connection.host)
                connection.dialogue.also(self._next_hop)
                return connection
            await self._close()
        await self._out.dialler.opener.ready()
        async with self._gate.attempt():
            return await self._new(lease, self._dial(level))

    async def _new(self, lease: Lease, dial: Dial) -> Link:
        wrong: Down | None = None
        hopeless: Unroutable | None = None
        for host, port in self._way.hosts:
            self._attempted(lease, host)
            try:
                opened = await self._out.dialler.open(host, port, dial, self._gate)
            except Down as down_now:
                wrong = down_now
                tell_unreachable(self._out, lease, self._site, host, down_now)
            except Unroutable as unroutable:  # a host without an address is not the domain's end
                if unroutable.enhanced == "5.4.6":  # it is we: whoever is less preferred would send it back
                    raise
                hopeless = unroutable
                if not unroutable.permanent:
                    wrong = Down(unroutable.text, enhanced=unroutable.enhanced, host=host, phase="dns")
            else:
                self._connection, self._most = opened, self._site.messages()
                self._opened(opened)
                return opened
        if wrong is None and hopeless is not None:  # RFC 5321 §5.1: none of the hosts exists
            raise Unroutable("5.4.4", hopeless.text)
        raise wrong or Down("no host")

    def _dial(self, level: str) -> Dial:
        return Dial(
            hostname=self._out.settings.hostname,
            timeout=self._terms.connect_timeout,
            level=level or self._terms.tls,
            lmtp=self._way.target.kind == "lmtp",
            auth=self._way.target.auth,
            ip=self._terms.ip,
            sources=self._terms.sources,
            ours=self._out.settings.hostname if self._way.target.kind == "mx" else "",
            dialogue=self._out.bus.tracing.session(DELIVERY, names=(self._site.name, self._next_hop)),
        )

    def _opened(self, connection: Link) -> None:
        site = self._site
        reason = site.opened(self._out.clock.now())
        tell_opened(self._out, site, connection)
        if reason:
            tell_adapted(self._out, site, reason)
        if site.hops:
            self._out.crowd.serve(site)

    def _attempted(self, lease: Lease, host: str) -> None:
        tell_attempted(self._out, lease, self._next_hop, host)
