"""a connection with few layers: what a session that answers thousands of times a second needs

Trio's `SocketStream` checks for conflicts, translates errors and makes a
checkpoint on each call, and its socket does so once more. A session's one task
needs none of this twice.

API      `FastStream(stream)` is a stream; `send_now(data)` sends at once what fits
         and says how much that was.
Promise  `receive_some` always lets others run; `send_all` only where it has to
         wait. The descriptor is not touched once the stream is closed.
Why      Measured with `bench/source.py`, docs/smtp.md has the figures.
"""

from __future__ import annotations

import os

import trio

READ = 65_536


class FastStream(trio.abc.Stream):
    """Of one TCP or Unix connection; used by one task."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._fd = stream.socket.fileno()

    def send_now(self, data: bytes | bytearray) -> int:
        """How many octets the system took; 0 while it takes none. Raises BrokenResourceError, ClosedResourceError."""
        self._check()
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0
        except OSError as wrong:
            raise trio.BrokenResourceError from wrong

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        sent = self.send_now(bytes(data))
        if sent < len(data):
            await self._stream.send_all(memoryview(data)[sent:])

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
        await self._stream.wait_send_all_might_not_block()

    def close(self) -> None:
        """At once."""
        self._fd = -1
        self._stream.socket.close()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()
