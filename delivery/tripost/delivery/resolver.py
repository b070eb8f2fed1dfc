"""where mail for a domain goes, by DNS

MX records in order of preference, equals shuffled; where there are none the
domain itself (RFC 5321 §5.1); a null MX says that there is no mail (RFC 7505).

Fails    `Unroutable`: permanent (no such domain, null MX, the mail would come
         back to us) or temporary (no answer in time, SERVFAIL, a broken answer).
Bounds   CACHE_SIZE answers, each for its TTL; SHORTEST to LONGEST seconds is what
         `Hosts.ttl` allows others to keep an answer for.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Protocol

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.name
import dns.nameserver
import dns.resolver
import msgspec
import trio

from tripost.delivery.links import Unroutable

MOST_HOSTS = 10
CACHE_SIZE = 10_000
SHORTEST, LONGEST = 30.0, 3600.0
LIFETIME = 20.0  # seconds for one question, all name servers together


class Hosts(msgspec.Struct, frozen=True):
    """MX hosts, the first `best` of them the best ones. `implicit`: there is no record, it is the domain itself."""

    names: tuple[str, ...]
    best: int = 1
    ttl: float = SHORTEST
    implicit: bool = False


class Names(Protocol):
    """What delivery asks of DNS."""

    async def mx(self, domain: str) -> Hosts:
        """At least one. Raises Unroutable."""
        ...

    async def addresses(self, host: str) -> list[str]:
        """IP addresses, at least one. Raises Unroutable."""
        ...


class Ours(Protocol):
    """Which addresses are our own; false as a whole where none can be."""

    def __call__(self, address: str) -> bool: ...


class Resolver:
    """`nameservers` are "ip:port"; empty means the system's."""

    def __init__(self, nameservers: list[str], hostname: str = "", ours: Ours | None = None) -> None:
        self._hostname = hostname.lower().rstrip(".")
        self._ours = ours
        self._backend = dns.asyncbackend.get_backend("trio")
        self._resolver = dns.asyncresolver.Resolver(configure=not nameservers)
        if nameservers:
            pairs = [one.rpartition(":") for one in nameservers]
            self._resolver.nameservers = [
                dns.nameserver.Do53Nameserver(host.strip("[]"), int(port)) for host, _, port in pairs
            ]
        self._resolver.cache = dns.resolver.LRUCache(CACHE_SIZE)
        self._resolver.lifetime = LIFETIME

    async def _ask(self, name: str, kind: str) -> tuple[list[str], float]:
        """The records' texts, none when the name exists without such records, and their TTL. Raises Unroutable."""
        try:
            answer = await self._resolver.resolve(dns.name.from_text(name), kind, search=False, backend=self._backend)
        except dns.resolver.NXDOMAIN:
            raise Unroutable("5.1.2", f"the domain {name} does not exist") from None
        except dns.resolver.NoAnswer:
            return [], SHORTEST
        except dns.exception.Timeout as wrong:
            raise Unroutable("4.4.3", f"no DNS answer for {name} {kind} within {LIFETIME:g} s") from wrong
        except dns.resolver.NoNameservers as wrong:
            raise Unroutable("4.4.3", f"no usable DNS answer for {name} {kind}: {_rcodes(wrong)}") from wrong
        except (dns.exception.DNSException, OSError) as wrong:
            raise Unroutable("4.4.3", f"DNS trouble for {name} {kind}: {type(wrong).__name__}") from wrong
        ttl = min(LONGEST, max(SHORTEST, float(answer.rrset.ttl if answer.rrset is not None else 0)))
        return [str(record.to_text()) for record in answer], ttl

    async def mx(self, domain: str) -> Hosts:
        """See Names. Hosts with our own name or address, and whatever is not preferred to them, are left out
        (RFC 5321 §5.1)."""
        records, ttl = await self._ask(domain, "MX")
        rows = [(int(row.split()[0]), row.split()[1].rstrip(".").lower()) for row in records]
        if not rows:
            if domain.lower().rstrip(".") in await self._own([domain.lower().rstrip(".")]):
                raise Unroutable("5.4.6", f"mail for {domain} would come back to this host")
            return Hosts((domain.lower().rstrip("."),), ttl=ttl, implicit=True)
        if len(rows) == 1 and rows[0][1] == "":
            raise Unroutable("5.1.10", f"{domain} takes no mail (null MX)")
        mine = await self._own(dict.fromkeys(host for _, host in sorted(rows) if host))
        own = min((preference for preference, host in rows if host in mine), default=None)
        usable = [(preference, random.random(), host) for preference, host in rows if own is None or preference < own]
        if not usable:
            raise Unroutable("5.4.6", f"mail for {domain} would come back to this host")
        usable.sort()
        hosts = tuple(dict.fromkeys(host for _, _, host in usable if host))[:MOST_HOSTS]
        if not hosts:
            raise Unroutable("5.1.10", f"the MX records of {domain} name no host")
        best = len({host for preference, _, host in usable if preference == usable[0][0]})
        return Hosts(hosts, best=best, ttl=ttl)

    async def null_mx(self, domain: str) -> tuple[bool, float]:
        """Does it say that it takes no mail (RFC 7505)? And for how many seconds that holds; False where nobody can
        tell."""
        try:
            records, ttl = await self._ask(domain, "MX")
        except Unroutable:
            return False, SHORTEST
        return [row.split()[1] for row in records] == ["."], ttl

    async def _own(self, hosts: Iterable[str]) -> set[str]:
        """Those that are this host, by name or by one of their addresses; the addresses are asked for all at once."""
        mine = {self._hostname}
        if not self._ours:
            return mine

        async def ask(host: str, ours: Ours) -> None:
            try:
                if any(ours(address) for address in await self.addresses(host)):
                    mine.add(host)
            except Unroutable:
                pass  # whoever has no address is not us, and who cannot be asked is told apart when it is tried

        async with trio.open_nursery() as nursery:
            for host in list(hosts)[:MOST_HOSTS]:
                nursery.start_soon(ask, host, self._ours)
        return mine

    async def addresses(self, host: str) -> list[str]:
        """See Names; IPv6 first where there is any."""
        found: list[str] = []
        trouble: Unroutable | None = None
        for kind in ("AAAA", "A"):
            try:
                found += (await self._ask(host, kind))[0]
            except Unroutable as wrong:
                trouble = wrong
        if found:
            return found
        raise trouble or Unroutable("5.4.4", f"{host} has no address")


def _rcodes(wrong: dns.resolver.NoNameservers) -> str:
    """What the name servers said: SERVFAIL, REFUSED…"""
    found = [word for word in ("SERVFAIL", "REFUSED", "NOTIMP", "FORMERR", "timed out") if word in str(wrong)]
    return ", ".join(found) or type(wrong).__name__
