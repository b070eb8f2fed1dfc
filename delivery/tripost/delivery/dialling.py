"""from a host's name to the order that opens a connection

Asks for the addresses, chooses ours from the pool, reads the password where a
route names a file. Who opens the connection, here or in another process, is the
`Opener`'s matter: names are asked for in one place, with one cache, and by
whoever knows which of them are our own.

Fails    Unroutable where a name has no address; Down.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence

import msgspec

from tripost.delivery.client_auth import parse_credentials
from tripost.delivery.links import Down, Link, Opener, Order, Spare
from tripost.delivery.resolver import Names
from tripost.delivery.settings import Source
from tripost.queue.dialogue import SILENT, Dialogue

MOST_ADDRESSES = 10  # tried for one attempt
FILE_LIMIT = 4096  # octets of an auth file


class Dial(msgspec.Struct, frozen=True):
    """How to speak to one host. `auth`: path of a file with user:password, "" for none; `ip`: any | 4 | 6 | prefer4;
    `ours`: see Order."""

    hostname: str
    timeout: float = 30.0
    level: str = "may"
    lmtp: bool = False
    auth: str = ""
    ip: str = "any"
    sources: tuple[Source, ...] = ()
    ours: str = ""
    dialogue: Dialogue = SILENT


class Dialler:
    """Opens connections by `opener`; remembers of each host whether IPv4 or IPv6 answered the last time."""

    def __init__(self, opener: Opener, names: Names, random: Callable[[], float]) -> None:
        self.opener = opener
        self._names = names
        self._random = random
        self._families: dict[str, int] = {}

    async def open(self, host: str, port: int, dial: Dial, spare: Spare) -> Link:
        """Raises Down, Unroutable, Interrupted. `host` may be an address literal, or the path of a Unix socket."""
        credentials = _credentials(dial.auth) if dial.auth else None
        addresses = [host] if host.startswith("/") else await self._addresses(host, dial)
        source, addresses = self._source(addresses, dial.sources)
        order = Order(
            host,
            tuple(addresses),
            port,
            (source.name if source else "") or dial.hostname,
            source.ip if source else "",
            dial.timeout,
            dial.level,
            dial.lmtp,
            credentials,
            dial.ours,
        )
        link = await self.opener.open(order, spare, dial.dialogue)
        self._remember(host, link.address)
        return link

    async def _addresses(self, host: str, dial: Dial) -> list[str]:
        literal = host.strip("[]").removeprefix("IPv6:")
        try:
            return [str(ipaddress.ip_address(literal))]
        except ValueError:
            found = order(await self._names.addresses(host), dial.ip, self._families.get(host, 0))
        if not found:
            raise Down(f"{host} has no IPv{dial.ip} address", enhanced="4.4.4", host=host)
        return found[:MOST_ADDRESSES]

    def _source(self, addresses: list[str], pool: Sequence[Source]) -> tuple[Source | None, list[str]]:
        """One of the pool, by weight, and the addresses that it can speak to. Raises Down."""
        if not pool or addresses[0].startswith("/"):
            return None, addresses
        there = {ipaddress.ip_address(one).version for one in addresses}
        usable = [one for one in pool if ipaddress.ip_address(one.ip).version in there and one.weight > 0]
        if not usable:
            raise Down("no source address is of a family that the host has")
        mark = self._random() * sum(one.weight for one in usable)
        chosen = usable[-1]
        for one in usable:
            mark -= one.weight
            if mark < 0:
                chosen = one
                break
        family = ipaddress.ip_address(chosen.ip).version
        return chosen, [one for one in addresses if ipaddress.ip_address(one).version == family]

    def _remember(self, host: str, address: str) -> None:
        if not address.startswith("/"):
            self._families.pop(host, None)
            self._families[host] = ipaddress.ip_address(address).version
            if len(self._families) > 10_000:
                del self._families[next(iter(self._families))]


def order(addresses: Sequence[str], family: str, first: int) -> list[str]:
    """Which to try, families in turn; `family`: any | 4 | 6 | prefer4; `first`: 4 or 6, which won the last time."""
    by_family: dict[int, list[str]] = {6: [], 4: []}
    for one in addresses:
        by_family[ipaddress.ip_address(one).version].append(one)
    if family in ("4", "6"):
        return by_family[int(family)]
    leader = 4 if family == "prefer4" else first or 6
    ours, theirs = by_family[leader], by_family[10 - leader]
    mixed = [address for pair in zip(ours, theirs, strict=False) for address in pair]
    return mixed + ours[len(theirs) :] + theirs[len(ours) :]


def _credentials(path: str) -> tuple[str, str]:
    """Raises Down: without them the host is of no use."""
    try:
        with open(path, encoding="utf-8") as file:
            return parse_credentials(file.read(FILE_LIMIT))
    except (OSError, ValueError) as wrong:
        raise Down(f"{path}: {getattr(wrong, 'strerror', None) or wrong}", enhanced="4.7.0", phase="auth") from wrong
