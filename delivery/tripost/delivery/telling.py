"""what workers tell of connections and sites"""

from __future__ import annotations

from tripost.delivery.links import Down, Link
from tripost.delivery.outside import Outside
from tripost.delivery.site import Site
from tripost.queue.events import Adapted, Attempted, Closed, Opened, Unreachable
from tripost.queue.values import Lease


def tell_opened(out: Outside, site: Site, link: Link) -> None:
    out.bus.emit(
        Opened(
            time=out.clock.now(),
            site=site.name,
            host=link.host,
            address=link.address,
            tls=link.tls,
            open=site.open,
            limit=site.limit,
            connect=link.connect,
            greeting=link.greeting,
            handshake=link.handshake,
        )
    )


def tell_closed(out: Outside, site: Site, link: Link) -> None:
    out.bus.emit(
        Closed(
            time=out.clock.now(),
            site=site.name,
            host=link.host,
            address=link.address,
            messages=link.messages,
        )
    )


def tell_unreachable(out: Outside, lease: Lease, site: Site, host: str, wrong: Down) -> None:
    out.bus.emit(
        Unreachable(
            time=out.clock.now(),
            id=lease.envelope.id,
            site=site.name,
            host=host,
            phase=wrong.phase,
            reply=str(wrong),
            open=site.open,
        )
    )


def tell_adapted(out: Outside, site: Site, reason: str) -> None:
    out.bus.emit(Adapted(time=out.clock.now(), site=site.name, limit=site.limit, reason=reason))


def tell_attempted(out: Outside, lease: Lease, next_hop: str, host: str) -> None:
    out.bus.emit(
        Attempted(
            time=out.clock.now(),
            id=lease.envelope.id,
            next_hop=next_hop,
            host=host,
            attempt=lease.attempt,
            recipients=len(lease.recipients),
        )
    )
