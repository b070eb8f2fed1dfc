"""the nursery of workers

Looks which next hops have something due and gives each workers, one more
whenever one found work, up to its limit.

Promise  never more than `connections` workers for a next hop, nor more than
         `max_connections` in all; a slow destination holds its own slots only.
States   running → stopping (`stop`: nothing more is claimed for what has no
         worker; workers end with what they have) → ended; cancelling is hard.
"""

from __future__ import annotations

import random

import trio

from tripost.delivery.client_tls import ClientTls
from tripost.delivery.connection import Connect, connect_tcp
from tripost.delivery.hosts import Dialler
from tripost.delivery.resolver import Names
from tripost.delivery.settings import DeliverySettings
from tripost.delivery.worker import LocalDelivery, Outside, Site, Worker
from tripost.queue.clock import Clock
from tripost.queue.events import Bus
from tripost.queue.manager import Queue


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
    ) -> None:
        self._queue = queue
        self._settings = settings
        self._sites: dict[str, Site] = {}
        self._stop = trio.Event()
        self._workers = 0
        self._unserved: dict[str, None] = {}  # next hops that found all workers taken
        self._outside = Outside(
            queue,
            settings,
            resolver,
            local,
            Dialler(connect, resolver, tls or ClientTls(clock.now), random.random),
            bus,
            clock,
            stopping=self._stop.is_set,
        )

    def stop(self) -> None:
        """Start nothing more; `run` returns when the deliveries under way are settled."""
        self._stop.set()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as workers:
            async with trio.open_nursery() as looking:
                looking.start_soon(self._until_stopped, looking.cancel_scope)
                task_status.started()
                while not self._stop.is_set():
                    await self._queue.wait_ready()
                    while (next_hop := self._queue.next_ready()) is not None:
                        self._serve(next_hop, workers)
            self._settle_down()

    async def _until_stopped(self, scope: trio.CancelScope) -> None:
        await self._stop.wait()
        scope.cancel()

    def _serve(self, next_hop: str, workers: trio.Nursery) -> None:
        """One more worker, where there may be one; else a busy worker will find the work when it asks again."""
        site = self._sites.get(next_hop)
        if site is not None and site.lot:
            site.lot.unpark(count=1)
        elif site is not None and site.workers >= site.most:
            return
        elif self._workers >= self._settings.max_connections:
            self._unserved[next_hop] = None
        else:
            if site is None:
                site = self._sites[next_hop] = Site(self._connections(next_hop))
            site.workers += 1
            self._workers += 1
            workers.start_soon(self._work, next_hop, site, workers)

    def _connections(self, next_hop: str) -> int:
        literal = next_hop.startswith(("smtp://", "lmtp://")) or next_hop == "local"
        return (self._settings.literal if literal else self._settings.default).connections

    async def _work(self, next_hop: str, site: Site, workers: trio.Nursery) -> None:
        try:
            await Worker(next_hop, site, self._outside).run()
        finally:
            self._workers -= 1
            if not site.workers:
                self._sites.pop(next_hop, None)
        if self._stop.is_set():
            return
        if self._queue.claimable(next_hop):  # it came while the worker was leaving
            self._unserved[next_hop] = None
        while self._unserved and self._workers < self._settings.max_connections:
            waiting = next(iter(self._unserved))
            del self._unserved[waiting]
            if self._queue.claimable(waiting):
                self._serve(waiting, workers)

    def _settle_down(self) -> None:
        for site in self._sites.values():
            site.lot.unpark_all()
