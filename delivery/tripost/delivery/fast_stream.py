"""a connection with few layers: what a session that answers thousands of times a second needs

Trio's `SocketStream` checks for conflicts and translates errors on each call, and
its socket does so once more. A session's one task needs none of this twice.

API      `FastStream(sock)` is a stream and owns the socket, which becomes
         non-blocking; `send_now(data)` sends at once what fits and says how much
         that was; `close()`. `connect_tcp` opens one.
Promise  the coroutines always let others run; the descriptor is not touched once
         the stream is closed, and whoever waits on it then is woken.
Why      Measured with `bench/source.py`, docs/performance.md has the figures.
"""

from __future__ import annotations

import os
import socket as stdlib_socket
from collections.abc import Awaitable, Callable

import trio

READ = 65_536


Connect = Callable[[str, int, str], Awaitable[trio.abc.Stream]]


class FastStream(trio.abc.Stream):
    """Of one TCP or Unix connection; one task reads, one sends (it may be the same)."""

    def __init__(self, sock: stdlib_socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self._fd = sock.fileno()

    def send_now(self, data: bytes | bytearray | memoryview) -> int:
        """How many octets the system took; 0 while it takes none. Raises BrokenResourceError, ClosedResourceError."""
        self._check()
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0
        except OSError as wrong:
            raise trio.BrokenResourceError from wrong

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with memoryview(data) as left:
            sent = self.send_now(left)
            if sent == len(left):
                await trio.lowlevel.checkpoint()
            while sent < len(left):
                await self.wait_send_all_might_not_block()
                sent += self.send_now(left[sent:])

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        self._check()
        while True:
            await trio.lowlevel.wait_readable(self._fd)
            try:
                return os.read(self._fd, max_bytes or READ)
            except BlockingIOError:
                continue  # somebody else's wake-up
            except OSError as wrong:
                raise trio.BrokenResourceError from wrong

    def _check(self) -> None:
        if self._fd < 0:
            raise trio.ClosedResourceError

    async def wait_send_all_might_not_block(self) -> None:
        self._check()
        await trio.lowlevel.wait_writable(self._fd)

    def close(self) -> None:
        """At once; harmless when called twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            trio.lowlevel.notify_closing(fd)
            self.socket.close()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()


async def connect_tcp(address: str, port: int, source: str = "") -> trio.abc.Stream:
    """To an IP address, from `source` where it is given, or to the Unix socket at a path. Raises OSError."""
    if address.startswith("/"):
        return await trio.open_unix_socket(address)
    family = stdlib_socket.AF_INET6 if ":" in address else stdlib_socket.AF_INET
    sock = stdlib_socket.socket(family, stdlib_socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY, 1)
        if source:
            sock.bind((source, 0))
        try:
            sock.connect((address, port))
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
            wrong = sock.getsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_ERROR)
            if wrong:
                raise OSError(wrong, os.strerror(wrong)) from None
        await trio.lowlevel.checkpoint()
    except BaseException:
        sock.close()
        raise
    return FastStream(sock)
