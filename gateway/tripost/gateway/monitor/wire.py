"""one client's octets, for HTTP and then for its websocket

A stream below h11 and trio-websocket. What was read of the request is given again,
so that whoever makes the upgrade reads it too; and whole frames that are the same
for many clients can be written past the websocket's own code.

Promise  frames never mix: what is sent by one call stands together. A client that
         takes nothing for STUCK seconds is cut, whoever sends; what waits for it is
         at most one call's octets, and the system's buffer of SYSTEM octets.
"""

from __future__ import annotations

import socket as stdlib_socket

import trio

from tripost.delivery.fast_stream import FastStream

STUCK = 10.0
PARTING = 1.0
SYSTEM = 256 << 10


class Wire(trio.abc.Stream):
    """`stuck`: it took nothing for too long, and was cut."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._again = self._rest = b""
        self._sending = trio.Lock()
        self._fast = stream if isinstance(stream, FastStream) else None
        self.stuck = False

    def replay(self, data: bytes) -> None:
        """These octets are read next, before what comes."""
        self._again = data + self._again

    def narrow(self) -> None:
        """The system keeps no more than SYSTEM octets for it: a subscriber may never read."""
        if self._fast is not None:
            self._fast.socket.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_SNDBUF, SYSTEM // 2)

    @property
    def behind(self) -> bool:
        """Something waits to be sent."""
        return bool(self._rest) or self._sending.locked()

    def push(self, data: bytes) -> bool:
        """Send at once; what the system does not take now is `behind`, and goes with the next `send_all`. False: it was
        not taken at all. Raises BrokenResourceError, ClosedResourceError."""
        if self._fast is None or self.behind:
            return False
        self._rest = data[self._fast.send_now(data) :]
        return True

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        async with self._sending:
            with trio.move_on_after(STUCK) as scope:
                rest, self._rest = self._rest, b""
                await self._stream.send_all(rest + data if rest else data)
        if scope.cancelled_caught:
            self.stuck = True
            await trio.aclose_forcefully(self._stream)
            raise trio.BrokenResourceError(f"nothing was taken for {STUCK:g} s")

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._again:
            await trio.lowlevel.checkpoint()
            data = self._again[:max_bytes]
            self._again = self._again[len(data) :]
            return data
        return bytes(await self._stream.receive_some(max_bytes))

    async def farewell(self) -> None:
        """Let the client read what it was told last, though it may still send: not for longer than PARTING."""
        if self._fast is None:
            return
        with trio.move_on_after(PARTING):
            try:
                self._fast.socket.shutdown(stdlib_socket.SHUT_WR)
                while await self._fast.receive_some():
                    pass
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                pass

    async def aclose(self) -> None:
        """Without any farewell: TLS's would wait for a client that does not read."""
        await trio.aclose_forcefully(self._stream)
