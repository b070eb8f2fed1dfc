"""from a host's name to an open, greeted connection

Addresses of both families race (RFC 8305: the next one starts when one before
it has failed, or STAGGER later); the family that won begins the next time. Then
TLS by the level that is asked for, and AUTH where a route names a file.

Promise  A host whose TLS fails at level "may" is spoken to in plain text at once,
         and for an hour; nothing is ever said in plain text at "encrypt" or
         "verify" but EHLO and STARTTLS. A race holds no more sockets than one and
         what `Spare` allows.
Fails    Down, of the last address that was tried; Unroutable where a name has none.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence

import msgspec
import trio

from tripost.delivery.client_auth import parse_credentials
from tripost.delivery.client_tls import ClientTls, TlsFailed
from tripost.delivery.connection import Connect, Connection, Down, Opening
from tripost.delivery.course import reason
from tripost.delivery.resolver import Names
from tripost.delivery.settings import Source
from tripost.queue.dialogue import SILENT, Dialogue

MOST_ADDRESSES = 10  # tried for one attempt
STAGGER = 0.25  # seconds, RFC 8305 §8
FILE_LIMIT = 4096  # octets of an auth file


class Spare:
    """Room for sockets of a race beside its first one."""

    def take(self) -> bool:
        return True

    def give(self) -> None:
        pass

    async def ready(self) -> None:
        """Before each socket."""


class Dial(msgspec.Struct, frozen=True):
    """How to speak to one host. `auth`: path of a file with user:password, "" for none; `ip`: any | 4 | 6 | prefer4;
    `ours`: see Opening."""

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
    """Opens connections; `families`: host → 4 or 6, which answered the last time."""

    def __init__(self, connect: Connect, names: Names, tls: ClientTls, random: Callable[[], float]) -> None:
        self._connect = connect
        self._names = names
        self._tls = tls
        self._random = random
        self._families: dict[str, int] = {}

    async def open(self, host: str, port: int, dial: Dial, spare: Spare) -> Connection:
        """Raises Down, Unroutable. `host` may be an address literal, or the path of a Unix socket."""
        credentials = _credentials(dial.auth) if dial.auth else None
        addresses = [host] if host.startswith("/") else await self._addresses(host, dial)
        source, addresses = self._source(addresses, dial.sources)
        ours = source.ip if source else ""
        began = trio.current_time()
        stream, address = await _Race(self._connect, port, ours, host, dial.timeout, spare).run(addresses)
        took = round(trio.current_time() - began, 6)
        self._remember(host, address)
        name = (source.name if source else "") or dial.hostname
        opening = Opening(
            host, address, port, name, dial.level, dial.lmtp, credentials, dial.ours, took, dial.dialogue
        )
        dial.dialogue.client = f"{host} [{address}]" if host != address else address
        dial.dialogue.also(host)
        dial.dialogue.also(address)
        if dial.dialogue.tracers:
            dial.dialogue.noted("connected")
        try:
            return await Connection.greet(stream, opening, self._tls)
        except TlsFailed as wrong:
            if dial.level != "may":
                raise Down(f"{host} [{address}]: {wrong}", enhanced="4.7.5", host=host, phase="tls") from wrong
        self._tls.broken(host)
        stream, address = await _Race(self._connect, port, ours, host, dial.timeout, spare).run([address])
        try:
            return await Connection.greet(stream, opening, self._tls)
        except TlsFailed as wrong:
            raise Down(f"{host} [{address}]: {wrong}", enhanced="4.7.5", host=host, phase="tls") from wrong

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


class _Race:
    """Several addresses of one host; `run` gives the first that answers."""

    def __init__(self, connect: Connect, port: int, source: str, host: str, timeout: float, spare: Spare) -> None:
        self._connect = connect
        self._port = port
        self._source = source
        self._host = host
        self._timeout = timeout
        self._spare = spare
        self._running = 0
        self._changed = trio.Event()
        self._won: tuple[trio.abc.Stream, str] | None = None
        self._wrong = Down(f"{host} has no address", enhanced="4.4.4", host=host, phase="connect")

    async def run(self, addresses: Sequence[str]) -> tuple[trio.abc.Stream, str]:
        """Raises Down."""
        extras = 0
        try:
            async with trio.open_nursery() as nursery:
                for address in addresses:
                    if self._running and self._spare.take():
                        extras += 1
                    else:
                        while self._running:
                            await self._changed.wait()
                    self._running += 1
                    self._changed = trio.Event()
                    nursery.start_soon(self._one, address, nursery.cancel_scope)
                    with trio.move_on_after(STAGGER if address != addresses[-1] else 0):
                        await self._changed.wait()
        finally:
            for _ in range(extras):
                self._spare.give()
        if self._won is None:
            raise self._wrong
        return self._won

    async def _one(self, address: str, scope: trio.CancelScope) -> None:
        where = f"{self._host} [{address}]:{self._port}"
        await self._spare.ready()
        try:
            with trio.fail_after(self._timeout):
                stream = await self._connect(address, self._port, self._source)
        except trio.TooSlowError:
            text = f"{where}: no connection within {self._timeout:g} s"
            self._wrong = Down(text, host=self._host, phase="connect", timeout=True)
        except OSError as wrong:
            self._wrong = Down(f"{where}: {reason(wrong)}", host=self._host, phase="connect")
        else:
            if self._won is None:
                self._won = stream, address
                scope.cancel()
            else:
                await trio.aclose_forcefully(stream)
        self._running -= 1
        self._changed.set()


def _credentials(path: str) -> tuple[str, str]:
    """Raises Down: without them the host is of no use."""
    try:
        with open(path, encoding="utf-8") as file:
            return parse_credentials(file.read(FILE_LIMIT))
    except (OSError, ValueError) as wrong:
        raise Down(f"{path}: {getattr(wrong, 'strerror', None) or wrong}", enhanced="4.7.0", phase="auth") from wrong
