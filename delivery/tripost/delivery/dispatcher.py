"""the nursery of workers

Looks which next hops have something due and gives each workers, one more
whenever one found work, up to its limit.

Promise  never more than `connections` workers for a next hop, nor more than
         `most_workers` in all; a slow destination holds its own slots only.
States   running → stopping (`stop`: nothing more is claimed for what has no
         worker; workers end with what they have) → ended; cancelling is hard.
"""

from __future__ import annotations

import trio

from tripost.delivery.connection import Connect, connect_tcp
from tripost.delivery.resolver import Names
from tripost.delivery.worker import DeliverySettings, LocalDelivery, Outside, Site, Worker
from tripost.queue.clock import Clock
from tripost.queue.events import Bus
from tripost.queue.manager import Queue

__all__ = ["DeliverySettings", "Dispatcher"]


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
    ) -> None:
        self._queue = queue
        self._settings = settings
        self._sites: dict[str, Site] = {}
        self._stop = trio.Event()
        self._again = trio.Event()
        self._outside = Outside(
            queue,
            settings,
            resolver,
            local,
            connect,
            bus,
            clock,
            claimed=lambda: self._again.set(),
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
                    self._dispatch(workers)
                    await self._news()
            self._settle_down()

    async def _until_stopped(self, scope: trio.CancelScope) -> None:
        await self._stop.wait()
        scope.cancel()

    async def _news(self) -> None:
        """Until the queue changed, or a worker claimed something."""
        async with trio.open_nursery() as nursery:

            async def claimed() -> None:
                await self._again.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(claimed)
            await self._queue.wait_ready()
            nursery.cancel_scope.cancel()

    def _dispatch(self, workers: trio.Nursery) -> None:
        self._again = trio.Event()
        for next_hop in self._queue.ready():
            site = self._sites.get(next_hop)
            if site is None:
                site = self._sites[next_hop] = Site()
            if site.lot:
                site.lot.unpark(count=1)
            elif site.workers < self._settings.connections and len(workers.child_tasks) < self._settings.most_workers:
                site.workers += 1
                workers.start_soon(self._work, next_hop, site)

    async def _work(self, next_hop: str, site: Site) -> None:
        await Worker(next_hop, site, self._outside).run()
        if not site.workers:
            self._sites.pop(next_hop, None)
        self._again.set()

    def _settle_down(self) -> None:
        for site in self._sites.values():
            site.lot.unpark_all()
