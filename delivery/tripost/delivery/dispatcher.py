"""the nursery of workers

Looks which next hops have something due, finds out which site each is, and
gives sites workers, one more whenever one found work, up to their limits.

Promise  Never more than its limit for a site, nor more than `max_connections` in
         all; when those are all taken, whoever has more than an equal share
         gives back, one after each message. A slow or dead destination holds its
         own slots only. Name servers that do not answer hold none: at most
         LOOKERS next hops are looked up at a time.
States   running → stopping (`stop`: nothing more is claimed for what has no
         worker; workers end with what they have) → ended; cancelling is hard.
"""

from __future__ import annotations

import math
import random
from collections.abc import Generator, Mapping
from contextlib import contextmanager

import trio

from tripost.delivery.alarms import Alarms
from tripost.delivery.client_tls import ClientTls
from tripost.delivery.dialling import Dialler
from tripost.delivery.fast_stream import Connect, connect_tcp
from tripost.delivery.hosts import Here
from tripost.delivery.links import Opener, Unroutable
from tripost.delivery.outside import LocalDelivery, Outside
from tripost.delivery.resolver import Names
from tripost.delivery.settings import DeliverySettings
from tripost.delivery.site import NOTE, SAID, Said, Site, decode_said, encode_said
from tripost.delivery.verdicts import down
from tripost.delivery.ways import Way, Ways
from tripost.delivery.worker import Worker
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.errors import SpoolError
from tripost.queue.events import Adapted, Limited, Resolved, Trouble
from tripost.queue.manager import Queue
from tripost.queue.message import Failed, Outcome

LOOKERS = 100
SITES = 10_000  # remembered without work
LOOK_AGAIN = 0.25  # seconds, at least, where a site may have time for more connections
UNROUTABLE = 64  # messages claimed at a time for a next hop that has no way


class Dispatcher:
    """Delivers what `queue` gives."""

    def __init__(
        self,
        queue: Queue,
        settings: DeliverySettings,
        *,
        resolver: Names,
        local: LocalDelivery,
        bus: Bus,
        clock: Clock,
        connect: Connect = connect_tcp,
        tls: ClientTls | None = None,
        opener: Opener | None = None,
    ) -> None:
        """`opener`: who holds the connections; without one this process does, by `connect` and `tls`."""
        self._queue = queue
        self._settings = settings
        self._bus = bus
        self._clock = clock
        self._sites: dict[str, Site] = {}
        self._stop = trio.Event()
        self._used = 0  # slots
        self._busy = 0  # sites that have some
        self._unserved: dict[str, Site] = {}  # those that found all slots taken
        self._idle: dict[str, Site] = {}  # those with workers that wait
        self._looking: dict[str, None] = {}
        self._to_look: dict[str, None] = {}
        self._hurried: dict[str, bool] = {}
        self._alarms = Alarms(clock, self._ring)
        self._workers: trio.Nursery | None = None
        self._ways = Ways(settings, resolver, clock.now, self._resolved)
        self._opener = opener or Here(connect, tls or ClientTls(clock.now))
        self._outside = Outside(
            queue,
            settings,
            self._ways,
            local,
            Dialler(self._opener, resolver, random.random),
            bus,
            clock,
            stopping=self._stop.is_set,
            crowd=self,
        )

    def configure(self, settings: DeliverySettings) -> None:
        """From now on; what is under way ends as it began."""
        self._settings = settings
        self._ways.configure(settings)

    def stop(self) -> None:
        """Start nothing more; `run` returns when the deliveries under way are settled."""
        self._stop.set()
        self._opener.stop()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as self._workers:
            async with trio.open_nursery() as looking:
                looking.start_soon(self._until_stopped, looking.cancel_scope)
                looking.start_soon(self._alarms.run)
                task_status.started()
                while not self._stop.is_set():
                    await self._queue.wait_ready()
                    while (next_hop := self._queue.next_ready()) is not None:
                        self.found(next_hop)
            for site in self._sites.values():
                site.lot.unpark_all()
        for site in self._sites.values():
            self._queue.note(NOTE + site.name, site.learned(clean=True))
        await self._queue.write_notes()

    async def _until_stopped(self, scope: trio.CancelScope) -> None:
        await self._stop.wait()
        scope.cancel()

    # --- next hop → site ---

    def found(self, next_hop: str) -> None:
        """It has something to claim."""
        way = self._ways.known(next_hop)
        if way is not None:
            self._join(next_hop, way)
        elif next_hop not in self._looking and self._workers is not None:
            if len(self._looking) < LOOKERS:
                self._looking[next_hop] = None
                self._workers.start_soon(self._look, next_hop)
            else:
                self._to_look[next_hop] = None

    def _join(self, next_hop: str, way: Way) -> None:
        site = self._sites.get(way.site)
        if site is None:
            note = self._queue.note_of(NOTE + way.site)
            site = self._sites[way.site] = Site(way, note, self._clock.now(), random.random)
            site.renew(way, self._queue.note_of(SAID + way.site), self._clock.now())
            self._forget_some()
        elif not site.is_of(way):
            site.renew(way, self._queue.note_of(SAID + way.site), self._clock.now())
        if self._hurried.pop(next_hop, False):
            site.hurry()
        site.hops[next_hop] = None
        self.serve(site)

    def _forget_some(self) -> None:
        """The sites that were not used for longest, when they are many."""
        if len(self._sites) <= SITES:
            return
        now = self._clock.now()
        for name in list(self._sites)[: len(self._sites) - SITES // 2]:
            site = self._sites[name]
            if site.forgettable(now):
                del self._sites[name]
                self._queue.note(NOTE + name, b"")

    async def _look(self, next_hop: str) -> None:
        while True:
            try:
                way = await self._ways.find(next_hop)
            except Unroutable as wrong:
                await self._end(next_hop, wrong)
            except Exception as wrong:  # nothing about one name may stop the others
                self._trouble(f"{next_hop}: {type(wrong).__name__}: {wrong}")
                await self._end(next_hop, Unroutable("4.4.3", "internal trouble while looking for the host"))
            else:
                self._join(next_hop, way)
            del self._looking[next_hop]
            if not self._to_look or self._stop.is_set():
                return
            next_hop = next(iter(self._to_look))
            del self._to_look[next_hop]
            self._looking[next_hop] = None

    async def _end(self, next_hop: str, wrong: Unroutable) -> None:
        """No way: the end of all that waits for it, or a back-off by one of them."""
        probes = self._settings.probes(next_hop)
        while not self._stop.is_set():
            leases = await self._queue.claim(next_hop, UNROUTABLE if wrong.permanent else 1)
            for number, lease in enumerate(leases):
                outcome: Outcome = (
                    Failed(550, wrong.enhanced, wrong.text)
                    if wrong.permanent
                    else down(wrong.text, enhanced=wrong.enhanced)
                )
                try:
                    await self._queue.settle(lease, {one.id: outcome for one in lease.recipients}, probes)
                except SpoolError as trouble:
                    self._trouble(f"{lease.envelope.id}: {trouble}")
                except BaseException:
                    for rest in leases[number:]:
                        self._queue.release(rest)
                    raise
            if not leases or not wrong.permanent:
                return

    def _resolved(self, domain: str, hosts: tuple[str, ...]) -> None:
        self._bus.emit(Resolved(time=self._clock.now(), domain=domain, hosts=list(hosts)))

    def _trouble(self, reason: str) -> None:
        self._bus.emit(Trouble(time=self._clock.now(), where="delivery", reason=reason))

    # --- what an operator asks ---

    def bound(self, next_hop: str) -> tuple[str, str, float] | None:
        """(site, what keeps more from being sent there now as the event `limited` has it, seconds or 0)."""
        if next_hop in self._looking or next_hop in self._to_look:
            return next_hop, "dns", 0.0
        way = self._ways.known(next_hop)
        site = self._sites.get(way.site) if way is not None else None
        if site is None:
            return None
        by, wait = site.binding(self._clock.now(), bool(site.open))
        by = by or site.room() or ("max_connections" if self._used >= self._settings.max_connections else "")
        return (site.name, by, wait) if by else None

    async def limit(self, name: str, said: Said) -> bool:
        """An operator's limits for a site (by its name or one of its next hops), or with an empty word again those that
        are configured. Durable. False where no such site is known, or there is no room for one more."""
        site_name = name if name in self._sites else await self._site_named(name)
        if not site_name or not self._queue.note(SAID + site_name, b"" if said.empty else encode_said(said)):
            return False
        await self._queue.write_notes()
        site = self._sites.get(site_name)
        if site is not None:
            site.bind(said, self._clock.now())
            site.lot.unpark_all()
            self.serve(site)
        return True

    async def _site_named(self, next_hop: str) -> str:
        """Its site, "" for what is no next hop."""
        try:
            return (await self._ways.find(next_hop)).site
        except Unroutable:
            return ""

    def limits(self) -> dict[str, Said]:
        """What operators said, by site."""
        return {name: decode_said(value) for name, value in self._queue.edit.notes(SAID).items()}

    def site_of(self, next_hop: str) -> str:
        """"" where nobody has asked for its hosts yet."""
        way = self._ways.known(next_hop)
        return way.site if way is not None else ""

    @property
    def sites(self) -> Mapping[str, Site]:
        """Those that are remembered, by name; to be looked at."""
        return self._sites

    def hurry(self, next_hop: str) -> None:
        """Its site has rested enough: somebody knows better."""
        way = self._ways.known(next_hop)
        site = self._sites.get(way.site) if way is not None else None
        if site is not None:
            site.hurry()
            self.serve(site)
        elif len(self._hurried) < SITES:  # its site is not known since the start, but may have rested before
            self._hurried[next_hop] = True

    # --- slots ---

    def serve(self, site: Site) -> None:
        """One more worker, where there may be one; else a busy worker will find the work when it asks again."""
        if not site.hops or self._stop.is_set():
            return
        if site.lot:
            site.lot.unpark(count=1)
            return
        now = self._clock.now()
        by, wait = site.binding(now, False)
        if not by:
            by = self._room(site, now)
        if by:
            self._limited(site, by, wait, now)
            if by == "feedback":
                wait = max(site.window.next_time() - now, LOOK_AGAIN)
            if by in ("rest", "rate", "connection_rate", "feedback"):
                self._alarm(site, now + max(wait, 0.001))
            return
        site.told = ""
        self._start(site)

    def _room(self, site: Site, now: float) -> str:
        """What keeps one worker more from beginning."""
        by = site.room()
        if by == "feedback" and (reason := site.window.due(now, site.open)):
            self._bus.emit(Adapted(time=now, site=site.name, limit=site.limit, reason=reason))
            by = site.room()
        if by or self._used < self._settings.max_connections:
            return by
        if site.workers < self._share():
            self._unserved[site.name] = site
            self._reclaim()
        return "max_connections"

    def _start(self, site: Site) -> None:
        assert self._workers is not None
        self._busy += not site.workers
        site.workers += 1
        self._used += 1
        self._workers.start_soon(self._work, site)

    async def _work(self, site: Site) -> None:
        try:
            await Worker(site, self._outside).run()
        finally:
            site.workers -= 1
            self._used -= 1
            self._busy -= not site.workers
        if not self._stop.is_set():
            self._given_back()
            self.serve(site)

    def _given_back(self) -> None:
        while self._unserved and self._used < self._settings.max_connections:
            name = next(iter(self._unserved))
            self.serve(self._unserved.pop(name))

    def _share(self) -> int:
        """How many slots each site may have while they are scarce."""
        return max(1, self._settings.max_connections // max(1, self._busy + len(self._unserved)))

    def wanted(self, site: Site) -> bool:
        """See Crowd."""
        return bool(self._unserved) and site.workers > self._share()

    def _reclaim(self) -> None:
        """Whoever only waits with a connection goes first."""
        for site in self._idle.values():
            if site.lot:
                site.leave += 1
                site.lot.unpark(count=1)
                return

    @contextmanager
    def idling(self, site: Site) -> Generator[None]:
        """See Crowd."""
        self._idle[site.name] = site
        try:
            yield
        finally:
            if not site.lot:
                self._idle.pop(site.name, None)

    def extra(self, site: Site) -> bool:
        """See Crowd."""
        if self._used >= self._settings.max_connections or site.workers + site.extras >= site.terms.connections:
            return False
        site.extras += 1
        self._used += 1
        return True

    def extra_gone(self, site: Site) -> None:
        """See Crowd."""
        site.extras -= 1
        self._used -= 1
        self._given_back()

    async def remember(self, site: Site) -> None:
        """See Crowd."""
        if self._queue.note(NOTE + site.name, site.learned(clean=False)):
            await self._queue.write_notes()

    # --- what has to wait ---

    def _limited(self, site: Site, by: str, wait: float, now: float) -> None:
        if site.told != by:
            site.told = by
            self._bus.emit(Limited(time=now, site=site.name, by=by, wait=wait))

    def _alarm(self, site: Site, when: float) -> None:
        if when < math.inf and not (site.alarm and site.alarm <= when):
            site.alarm = when
            self._alarms.set(site.name, when)

    def _ring(self, name: str, when: float) -> None:
        site = self._sites.get(name)
        if site is not None and site.alarm == when:
            site.alarm = 0.0
            self.serve(site)
