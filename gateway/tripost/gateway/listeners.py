"""sockets in, sessions out

Binds the configured addresses, accepts, and runs one task per connection.

Promise  A session's exception ends that session and nothing else. More than
         `connections` in all or `client_connections` from one address are
         answered with the service's own refusal and closed.
Stop     Cancelling the accept scope ends accepting; the sessions run on in
         the outer nursery until the caller's deadline.
Fails    `ListenError` when an address cannot be bound: nothing is left open.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket as stdlib_socket
from collections import Counter
from collections.abc import Awaitable, Callable

import trio

from tripost.queue.clock import Clock
from tripost.queue.events import Bus, Trouble

Handler = Callable[[trio.SocketStream, str], Awaitable[None]]

BACKLOG = 1024
# accept() errors that say "no room now" rather than "this listener is broken"
NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class ListenError(Exception):
    """An address could not be bound; the text names it and the reason."""


class Service:
    """One listening address: `name` smtp | pop3 | monitor, `busy` is sent when full."""

    def __init__(self, name: str, address: str, handler: Handler, busy: bytes) -> None:
        self.name = name
        self.address = address
        self.handler = handler
        self.busy = busy
        self.listener: trio.SocketListener | None = None

    @property
    def bound(self) -> str:
        """host:port really bound (a configured port 0 is filled in)."""
        assert self.listener is not None
        host, port = self.listener.socket.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(address: str) -> tuple[str, int]:
    """ "127.0.0.1:25" or "[::1]:25" → (host, port)."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


async def bind(services: list[Service]) -> None:
    """Bind all or none."""
    done: list[trio.SocketListener] = []
    try:
        for service in services:
            service.listener = await _bind_one(service.address)
            done.append(service.listener)
    except BaseException:
        for listener in done:
            listener.socket.close()
        raise


async def _bind_one(address: str) -> trio.SocketListener:
    host, port = split_address(address)
    family = stdlib_socket.AF_INET6 if ":" in host else stdlib_socket.AF_INET
    sock = trio.socket.socket(family, stdlib_socket.SOCK_STREAM)
    try:
        sock.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_REUSEADDR, 1)
        if family == stdlib_socket.AF_INET6:
            sock.setsockopt(stdlib_socket.IPPROTO_IPV6, stdlib_socket.IPV6_V6ONLY, 1)
        await sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as wrong:
        sock.close()
        why = os.strerror(wrong.errno) if wrong.errno else str(wrong)
        raise ListenError(f"cannot listen on {address}: {why}") from wrong
    except BaseException:
        sock.close()
        raise
    return trio.SocketListener(sock)


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Acceptor:
    """Counts connections and starts their sessions in `nursery`."""

    def __init__(
        self,
        nursery: trio.Nursery,
        bus: Bus,
        clock: Clock,
        most: int,
        most_per_client: int,
        *,
        exempt: tuple[Network, ...] = (),
    ) -> None:
        """`exempt` networks are not held to `most_per_client`."""
        self._exempt = exempt
        self._nursery = nursery
        self._bus = bus
        self._clock = clock
        self._most = most
        self._most_per_client = most_per_client
        self._clients: Counter[str] = Counter()
        self.open = 0

    async def accept(self, service: Service) -> None:
        """The accept loop of one service, until cancelled."""
        listener = service.listener
        assert listener is not None
        while True:
            try:
                stream = await listener.accept()
            except OSError as wrong:
                if wrong.errno not in NO_ROOM:
                    raise
                self._trouble(service, wrong)
                await trio.sleep(0.1)  # a descriptor will come free when a session ends
                continue
            self._nursery.start_soon(self._session, service, stream)

    async def _session(self, service: Service, stream: trio.SocketStream) -> None:
        try:
            client = str(stream.socket.getpeername()[0])
        except OSError:  # gone before we looked
            await trio.aclose_forcefully(stream)
            return
        full = self.open >= self._most or self._too_many_of(client)
        self.open += 1
        self._clients[client] += 1
        try:
            if full:
                with trio.move_on_after(1):
                    await stream.send_all(service.busy)
            else:
                await service.handler(stream, client)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the peer went away; its session held nothing that was promised
        except Exception as wrong:  # the session boundary: one of the two places that catch everything
            self._trouble(service, wrong)
        finally:
            self.open -= 1
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]
            await trio.aclose_forcefully(stream)

    def _too_many_of(self, client: str) -> bool:
        if self._clients[client] < self._most_per_client:
            return False
        address = ipaddress.ip_address(client.partition("%")[0])
        return not any(address in network for network in self._exempt)

    def _trouble(self, service: Service, wrong: BaseException) -> None:
        self._bus.emit(
            Trouble(time=self._clock.now(), where=f"{service.name} session", reason=f"{type(wrong).__name__}: {wrong}")
        )
