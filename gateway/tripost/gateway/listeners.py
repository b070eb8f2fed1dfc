"""sockets in, sessions out

Binds the configured addresses, accepts, and runs one task per connection.

API      `Service(name, address, handler, busy, terms)`: `handler(stream, peer)` is a
         session (`tripost.gateway.peer` says what it gets), `busy(reason)` the
         octets that refuse a connection. With `tls = "implicit"` the stream that a
         session gets speaks TLS already; with "starttls" `peer.context` is set.
Promise  A session's exception ends that session and nothing else. PROXY header and
         implicit TLS handshake are made in the connection's own task, each with a
         deadline: a silent client delays nobody. Whom `Admission` refuses is told
         why and closed; whom overload sheds never gets so far (`shedding`).
Stop     Cancelling the accept scope ends accepting; the sessions run on in
         the outer nursery until the caller's deadline.
Fails    `ListenError` when an address cannot be bound: nothing is left open.
"""

from __future__ import annotations

import errno
import socket as stdlib_socket
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import trio

from tripost.delivery.fast_stream import FastStream
from tripost.gateway import sockets
from tripost.gateway.admission import Admission
from tripost.gateway.peer import Network, Peer, is_in, secured
from tripost.gateway.proxy_protocol import Header, HeaderError, HeaderReader
from tripost.gateway.shedding import Shedder
from tripost.gateway.sockets import ListenError, split_address
from tripost.gateway.tls import Certificates, HandshakeFailed, start_tls
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.events import Disconnected, Refused, Trouble

__all__ = ["Acceptor", "Handler", "ListenError", "Network", "Service", "Terms", "bind", "close", "split_address"]

Handler = Callable[[trio.abc.Stream, Peer], Awaitable[None]]

PROXY_DEADLINE = 5.0  # seconds for the PROXY header
GENTLE, GENTLE_RATE = 8, 320.0  # connections at once, and a second, of a service that mail goes before
BUSY_DEADLINE = 1.0  # seconds for telling a client that it is refused
# accept() errors that say "no room now" rather than "this listener is broken"
NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How a listener treats its connections; `proxies` are the networks that must send a PROXY header."""

    tls: str = "none"  # none | starttls | implicit
    certificates: Certificates | None = None
    require_tls: bool = False
    proxy_protocol: bool = False
    proxies: tuple[Network, ...] = ()
    xclient: tuple[Network, ...] = ()


class Service:
    """One listening address; `name` is the service's, see `[[listen]]`."""

    def __init__(
        self, name: str, address: str, handler: Handler, busy: Callable[[str], bytes], terms: Terms | None = None
    ) -> None:
        self.name = name
        self.address = address
        self.handler = handler
        self.busy = busy
        self.terms = terms or Terms()
        self.listener: stdlib_socket.socket | None = None
        self.open_before = False  # clients may have come before this process was there
        self.inherited = False  # somebody else's: a Unix socket's file stays
        self.gentle = name == "monitor"

    def become(self, other: Service) -> None:
        """Serve new connections as `other` would; the socket stays."""
        self.name, self.handler, self.busy, self.terms = other.name, other.handler, other.busy, other.terms

    @property
    def bound(self) -> str:
        """The address really bound (a configured port 0 is filled in)."""
        assert self.listener is not None
        return sockets.shown(self.listener, self.address)


def bind(services: list[Service]) -> None:
    """Bind all or none; what has a listener already keeps it."""
    try:
        for service in services:
            if service.listener is None:
                service.listener = sockets.listen(service.address)
    except BaseException:
        close(services)
        raise


def close(services: list[Service]) -> None:
    for service in services:
        if service.listener is not None:
            sockets.close(service.listener, "" if service.inherited else service.address)


class Acceptor:
    """Starts the sessions of all services in `nursery`; `closed(service)` says why a service takes nobody now, ""
    when it does; `opened` holds how many connections each service has."""

    def __init__(
        self,
        nursery: trio.Nursery,
        bus: Bus,
        clock: Clock,
        admission: Admission,
        closed: Callable[[str], str] = lambda service: "",
        opened: Counter[str] | None = None,
    ) -> None:
        self._nursery = nursery
        self._bus = bus
        self._clock = clock
        self._admission = admission
        self._closed = closed
        self._open: Counter[str] = opened if opened is not None else Counter()

    async def accept(self, service: Service) -> None:
        """The accept loop of one service, until cancelled."""
        listener = service.listener
        assert listener is not None
        shedder = Shedder(service, self._admission, self._bus, self._clock)
        while True:
            try:
                found = await shedder.accept(listener, GENTLE if service.gentle else sockets.AT_ONCE)
            except OSError as wrong:
                if wrong.errno not in NO_ROOM:
                    raise
                self._trouble(service, wrong)
                await trio.sleep(0.1)  # a descriptor will come free when a session ends
                continue
            for sock, address in found:
                self._nursery.start_soon(self._connection, service, FastStream(sock), address)
            if service.gentle:
                await trio.sleep(GENTLE / GENTLE_RATE)

    async def _connection(self, service: Service, stream: FastStream, address: Any) -> None:
        try:
            peer = _peer_of(service, stream, address)
            proxied = service.terms.proxy_protocol and not self._admission.full
            client = await self._proxied(service, stream, peer) if proxied else peer
            if client is not None:
                await self._admit(service, stream, client)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the peer went away; its session held nothing that was promised
        except Exception as wrong:  # the session boundary: one of the two places that catch everything
            self._trouble(service, wrong)
        finally:
            stream.close()

    async def _admit(self, service: Service, stream: FastStream, peer: Peer) -> None:
        why = self._closed(service.name) or await self._admission.ask(peer.client, self._clock.now())
        if why:
            self._refused(service, peer, why)
            with trio.move_on_after(BUSY_DEADLINE):
                # in plain text even where TLS is implicit: a handshake is what overload cannot afford
                if service.terms.tls != "implicit":
                    await stream.send_all(service.busy(why))
            return
        began = self._clock.now()
        self._open[service.name] += 1
        try:
            await self._session(service, stream, peer)
        finally:
            self._open[service.name] -= 1
            self._admission.leave(peer.client)
            now = self._clock.now()
            took = round(now - began, 6)
            self._bus.emit(Disconnected(time=now, service=service.name, client=peer.client, seconds=took))

    async def _session(self, service: Service, stream: FastStream, peer: Peer) -> None:
        if service.terms.tls != "implicit" or peer.context is None:
            await service.handler(stream, peer)
            return
        try:
            encrypted, facts = await start_tls(stream, peer.context)
        except HandshakeFailed as wrong:
            self._refused(service, peer, f"TLS: {wrong}")
            return
        peer = msgspec.structs.replace(peer, tls=facts)
        self._bus.emit(secured(peer, self._clock.now()))
        await service.handler(encrypted, peer)

    async def _proxied(self, service: Service, stream: FastStream, peer: Peer) -> Peer | None:
        """The peer that the proxy speaks for; None when it has to go."""
        if not is_in(peer.client, service.terms.proxies):
            self._refused(service, peer, "not one of [proxy] networks")
            return None
        header, why = None, f"no PROXY header within {PROXY_DEADLINE:g} s"
        with trio.move_on_after(PROXY_DEADLINE):
            try:
                header = await _header(stream)
            except HeaderError as wrong:
                why = str(wrong)
        if header is None:
            self._refused(service, peer, why)
            return None
        if not header.client:
            return peer
        return msgspec.structs.replace(
            peer,
            client=header.client,
            client_port=header.client_port,
            local=header.local,
            local_port=header.local_port,
            xclient=is_in(header.client, service.terms.xclient),
        )

    def _refused(self, service: Service, peer: Peer, why: str) -> None:
        self._bus.emit(
            Refused(time=self._clock.now(), service=service.name, client=peer.client, phase="connect", reply=why)
        )

    def _trouble(self, service: Service, wrong: BaseException) -> None:
        self._bus.emit(
            Trouble(time=self._clock.now(), where=f"{service.name} session", reason=f"{type(wrong).__name__}: {wrong}")
        )


def _peer_of(service: Service, stream: FastStream, address: Any) -> Peer:
    """Raises BrokenResourceError when it is gone already."""
    terms = service.terms
    context = terms.certificates.context if terms.certificates is not None and terms.tls != "none" else None
    if service.address.startswith(sockets.UNIX):
        return Peer(service=service.name, context=context, require_tls=terms.require_tls)
    try:
        local = stream.socket.getsockname()
    except OSError as wrong:
        raise trio.BrokenResourceError from wrong
    client = str(address[0])
    return Peer(
        client=client,
        client_port=address[1],
        local=str(local[0]),
        local_port=local[1],
        service=service.name,
        context=context,
        require_tls=terms.require_tls,
        xclient=is_in(client, terms.xclient),
    )


async def _header(stream: FastStream) -> Header:
    """Read a PROXY header and not one octet more. Raises HeaderError."""
    reader = HeaderReader()
    while True:
        data = await stream.receive_some(reader.wanted)
        if not data:
            raise HeaderError("the connection ended before its PROXY header")
        header = reader.feed(bytes(data))
        if header is not None:
            return header
