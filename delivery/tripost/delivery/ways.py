"""next hop → the hosts it is delivered to, and the site they are

Domains whose best MX hosts are the same share one site, and so its limits and
its connections: a provider that hosts a thousand domains is one destination.

States   a site's name: the best MX hosts, sorted and joined by commas; the domain
         where it has settings of its own or does not roll up; the hosts of a
         route; "local", "discard", "reject". What a route adds (TLS level, source)
         stands behind a "?".
Bounds   MOST ways are remembered, each for as long as its DNS answer.
Fails    Unroutable.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Callable

import msgspec

from tripost.delivery.links import Unroutable
from tripost.delivery.resolver import Names
from tripost.delivery.settings import DeliverySettings, Destination
from tripost.delivery.targets import Target, parse

MOST = 10_000
NAME_LIMIT = 200  # of a site, so that notes can carry it


class Way(msgspec.Struct, frozen=True):
    """`best`: the hosts whose connections serve every next hop of the site; `network`: somebody may refuse us."""

    site: str
    target: Target
    terms: Destination
    hosts: tuple[tuple[str, int], ...] = ()
    best: frozenset[str] = frozenset()
    implicit: bool = False

    def has(self, host: str) -> bool:
        """Can an open connection to that host be used?"""
        return host in self.best or any(host == one for one, _ in self.hosts)

    @property
    def network(self) -> bool:
        return self.target.kind in ("mx", "smtp", "lmtp")


class Ways:
    """`resolved(domain, hosts)` is told of every answer."""

    def __init__(
        self,
        settings: DeliverySettings,
        names: Names,
        now: Callable[[], float],
        resolved: Callable[[str, tuple[str, ...]], None],
    ) -> None:
        self._settings = settings
        self._names = names
        self._now = now
        self._resolved = resolved
        self._known: OrderedDict[str, tuple[Way, float]] = OrderedDict()

    def configure(self, settings: DeliverySettings) -> None:
        """From now on; every next hop is looked at anew."""
        self._settings = settings
        self._known.clear()

    def known(self, next_hop: str) -> Way | None:
        """Without asking anybody."""
        found = self._known.get(next_hop)
        return found[0] if found is not None and found[1] > self._now() else None

    async def find(self, next_hop: str) -> Way:
        """Raises Unroutable."""
        found = self.known(next_hop)
        if found is not None:
            return found
        try:
            target = parse(next_hop)
        except ValueError as wrong:
            raise Unroutable("5.4.0", str(wrong)) from wrong
        if target.kind == "mx":
            way, ttl = await self._by_domain(next_hop, target)
        else:
            way, ttl = self._literal(next_hop, target), float("inf")
        self._known[next_hop] = way, self._now() + ttl
        if len(self._known) > MOST:
            self._known.popitem(last=False)
        return way

    def _literal(self, next_hop: str, target: Target) -> Way:
        settings = self._settings
        terms = settings.named(target.name) or settings.literal
        hosts = target.hosts or (((target.path, 0),) if target.path else ())
        return Way(_short(next_hop), target, self._sourced(terms, target), hosts, frozenset(one for one, _ in hosts))

    async def _by_domain(self, next_hop: str, target: Target) -> tuple[Way, float]:
        settings, domain = self._settings, target.domain
        own = settings.named(domain)
        if domain.startswith("["):
            terms = self._sourced(own or settings.default, target)
            literal = ((domain, settings.port),)
            return Way(next_hop, target, terms, literal, frozenset({domain})), float("inf")
        answer = await self._names.mx(domain)
        self._resolved(domain, answer.names)
        best = sorted(answer.names[: answer.best])
        _, terms = settings.by_hosts(best)
        terms = own or terms
        alone = own is not None or not terms.rollup
        _, found, options = next_hop.partition("?")
        site = next_hop if alone else ",".join(best) + (f"?{options}" if found else "")
        hosts = tuple((host, settings.port) for host in answer.names)
        return (
            Way(_short(site), target, self._sourced(terms, target), hosts, frozenset(best), answer.implicit),
            answer.ttl,
        )

    def _sourced(self, terms: Destination, target: Target) -> Destination:
        """With what a route says itself. Raises Unroutable."""
        if target.tls:
            terms = msgspec.structs.replace(terms, tls=target.tls)
        if target.source:
            pool = self._settings.pools.get(target.source)
            if pool is None:  # a queued message outlives a configuration
                raise Unroutable("4.3.5", f"there is no [sources.{target.source}]")
            terms = msgspec.structs.replace(terms, sources=pool)
        return terms


def _short(name: str) -> str:
    return name if len(name) <= NAME_LIMIT else f"{name[: NAME_LIMIT - 9]}…{zlib.crc32(name.encode()):08x}"
