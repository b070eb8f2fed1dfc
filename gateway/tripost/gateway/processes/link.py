"""a link between the supervisor and a process that it started

One end of a pair of SOCK_SEQPACKET sockets: each order is a packet, and descriptors travel with it (SCM_RIGHTS).

API      `Link(end, kinds)`; `await send(order, descriptors)`; `await receive()` gives an order and the descriptors that
         came with it, which are the caller's then.
Fails    `LinkGone` when nobody is at the other end, or what came is no order. `OSError` from `send` for what does not
         fit: more than some 200 kB or 253 descriptors. Descriptors for which the receiver has no room are missing from
         what `receive` gives.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec
import trio

ROOM = 1 << 20  # octets; the system gives less
MOST_DESCRIPTORS = 253  # SCM_MAX_FD

In = TypeVar("In")
Out = TypeVar("Out", bound=msgspec.Struct)


class LinkGone(Exception):
    """There is nobody at the other end."""


class Link(Generic[In, Out]):
    """Closed by `close`; one task sends at a time, one receives."""

    def __init__(self, end: socket.socket, kinds: Any) -> None:
        end.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, option, ROOM)
        self._end = end
        self._decode = msgspec.msgpack.Decoder(kinds).decode
        self._sending = trio.Lock()

    async def send(self, order: Out, descriptors: Sequence[int] = ()) -> None:
        """Raises LinkGone, OSError."""
        data = msgspec.msgpack.encode(order)
        async with self._sending:
            while True:
                try:
                    socket.send_fds(self._end, [data], descriptors)
                    return
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self._end)
                except (BrokenPipeError, ConnectionError) as wrong:
                    raise LinkGone from wrong

    async def receive(self) -> tuple[In, list[int]]:
        """Raises LinkGone."""
        while True:
            await trio.lowlevel.wait_readable(self._end)
            try:
                data, descriptors, _, _ = socket.recv_fds(self._end, ROOM, MOST_DESCRIPTORS)
            except BlockingIOError:
                continue
            except ConnectionError as wrong:
                raise LinkGone from wrong
            for one in descriptors:
                os.set_inheritable(one, False)
            try:
                if data:
                    return self._decode(data), descriptors
            except msgspec.DecodeError:
                pass
            close_all(descriptors)
            raise LinkGone

    def close(self) -> None:
        """A `receive` or `send` under way raises trio.ClosedResourceError."""
        if self._end.fileno() >= 0:
            trio.lowlevel.notify_closing(self._end)
        self._end.close()


def close_all(descriptors: Sequence[int]) -> None:
    for one in descriptors:
        os.close(one)


def pair() -> tuple[socket.socket, socket.socket]:
    """The supervisor's end and the child's; neither is inherited unless it is named to the child."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
