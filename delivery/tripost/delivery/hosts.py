"""from addresses to an open, greeted connection

Addresses of both families race (RFC 8305: the next one starts when one before it
has failed, or STAGGER later). Then TLS by the level that is asked for, and AUTH.

Promise  A host whose TLS fails at level "may" is spoken to in plain text at once,
         and for an hour; nothing is ever said in plain text at "encrypt" or
         "verify" but EHLO and STARTTLS. A race holds no more sockets than one and
         what `Spare` allows.
Fails    Down, of the last address that was tried.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from tripost.delivery.client_tls import ClientTls, TlsFailed
from tripost.delivery.connection import Connection, Opening
from tripost.delivery.course import reason
from tripost.delivery.fast_stream import Connect
from tripost.delivery.links import Down, Order, Spare
from tripost.queue.dialogue import Dialogue

STAGGER = 0.25  # seconds, RFC 8305 §8


class Here:
    """The opener whose sockets are this process's."""

    def __init__(self, connect: Connect, tls: ClientTls) -> None:
        self._connect = connect
        self._tls = tls

    async def ready(self) -> None:
        """See Opener: always."""

    def stop(self) -> None:
        """See Opener."""

    async def open(self, order: Order, spare: Spare, dialogue: Dialogue) -> Connection:
        """See Opener."""
        began = trio.current_time()
        stream, address = await _Race(self._connect, order, spare).run(order.addresses)
        opening = Opening(
            order.host,
            address,
            order.port,
            order.hostname,
            order.level,
            order.lmtp,
            order.credentials,
            order.ours,
            round(trio.current_time() - began, 6),
            dialogue,
        )
        dialogue.client = f"{order.host} [{address}]" if order.host != address else address
        dialogue.also(order.host)
        dialogue.also(address)
        if dialogue.tracers:
            dialogue.noted("connected")
        try:
            return await Connection.greet(stream, opening, self._tls)
        except TlsFailed as wrong:
            if order.level != "may":
                raise _no_tls(opening, wrong) from wrong
        self._tls.broken(order.host)
        stream, address = await _Race(self._connect, order, spare).run([address])
        try:
            return await Connection.greet(stream, opening, self._tls)
        except TlsFailed as wrong:
            raise _no_tls(opening, wrong) from wrong


def _no_tls(opening: Opening, wrong: TlsFailed) -> Down:
    return Down(f"{opening.host} [{opening.address}]: {wrong}", enhanced="4.7.5", host=opening.host, phase="tls")


class _Race:
    """Several addresses of one host; `run` gives the first that answers."""

    def __init__(self, connect: Connect, order: Order, spare: Spare) -> None:
        self._connect = connect
        self._order = order
        self._spare = spare
        self._running = 0
        self._changed = trio.Event()
        self._won: tuple[trio.abc.Stream, str] | None = None
        self._wrong = Down(f"{order.host} has no address", enhanced="4.4.4", host=order.host, phase="connect")

    async def run(self, addresses: Sequence[str]) -> tuple[trio.abc.Stream, str]:
        """Raises Down."""
        extras = 0
        try:
            async with trio.open_nursery() as nursery:
                for address in addresses:
                    if self._running and await self._spare.take():
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
        order, where = self._order, f"{self._order.host} [{address}]:{self._order.port}"
        await self._spare.ready()
        try:
            with trio.fail_after(order.timeout):
                stream = await self._connect(address, order.port, order.source)
        except trio.TooSlowError:
            text = f"{where}: no connection within {order.timeout:g} s"
            self._wrong = Down(text, host=order.host, phase="connect", timeout=True)
        except OSError as wrong:
            self._wrong = Down(f"{where}: {reason(wrong)}", host=order.host, phase="connect")
        else:
            if self._won is None:
                self._won = stream, address
                scope.cancel()
            else:
                await trio.aclose_forcefully(stream)
        self._running -= 1
        self._changed.set()
