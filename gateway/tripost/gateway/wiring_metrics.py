"""from the running parts to /metrics

API      `make_metrics(config, sources, clients)`: what answers the route; it hears of
         events from now on.
"""

from __future__ import annotations

import heapq
import os
import platform
from collections.abc import Callable

import msgspec
import trio

from tripost.gateway.monitor.feed import Clients
from tripost.gateway.monitor.machine import Watcher
from tripost.gateway.monitor.metric_table import MOST
from tripost.gateway.monitor.metrics import Metrics
from tripost.gateway.monitor.provider import Sources
from tripost.gateway.monitor.readings import Readings, SiteReading
from tripost.gateway.observe.counting import Counting
from tripost.gateway.settings import Config

PYTHON = platform.python_version()


def make_metrics(config: Config, sources: Sources, clients: Callable[[], Clients]) -> Metrics:
    counting = Counting()
    sources.observer.count(counting.take)

    async def read() -> Readings:
        fullest = await sources.queue.search.depths.fullest(MOST)
        sources.observer.flush()  # what happened until now counts
        return _read(config, sources, counting, clients(), fullest)

    return Metrics(read, Watcher(os.path.join(config.state, "spool"), _certificates(config)))


def _read(config: Config, sources: Sources, counting: Counting, clients: Clients, fullest: list[str]) -> Readings:
    """In one go: nothing changes meanwhile."""
    queue, dispatcher = sources.queue, sources.dispatcher
    depths, log = queue.search.depths, queue.log_statistics()
    open_clients = msgspec.structs.asdict(clients)
    cut = open_clients.pop("cut")
    used = [(one.workers + one.extras, name) for name, one in dispatcher.sites.items()]
    busiest = heapq.nlargest(MOST, [one for one in used if one[0]])
    sites = [SiteReading(name, slots, dispatcher.sites[name].limit) for slots, name in busiest]
    return Readings(
        version=sources.version,
        python=PYTHON,
        began=sources.began,
        ready=not sources.unready(),
        stopping=sources.draining.begun,
        counting=counting.copy(),
        queue=queue.statistics(),
        log=log,
        last_commit=max(0.0, sources.now() - trio.current_time() + log.committed),
        readers=sources.observer.statistics().readers,
        clients=open_clients,
        clients_cut=cut,
        connections=dict(sources.connections()),
        connections_limit=config.limits.connections,
        messages_limit=config.spool.messages,
        octets_limit=config.spool.bytes,
        min_free=config.spool.min_free,
        next_hops=[(name, depths.count(name)) for name in fullest],
        deliveries=depths.total,
        down=depths.down,
        suspended=len(queue.suspensions),
        slots=sum([slots for slots, _ in used]),
        slots_limit=config.delivery.max_connections,
        sites=sites,
        sites_known=len(dispatcher.sites),
    )


def _certificates(config: Config) -> list[str]:
    if config.tls.certificate:
        return [config.tls.certificate, *(one.certificate for one in config.tls.sni)]
    return [os.path.join(config.state, "tls", "self-signed.pem")]
