"""/live: the queue's figures once a second

A thin websocket monitor on loopback: every client of /live gets
`Queue.statistics()` as one JSON text per second. Other paths are refused with
404. A client that does not take its text within 5 s is cut; mail never waits.

Bounds   `CLIENTS` clients, 4 KiB per message from a client (none is expected).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, wrap_server_stream

from tripost.gateway.lifecycle import Draining

CLIENTS = 200
_encode = msgspec.json.Encoder().encode


class Monitor:
    """Serves connections of the `monitor` listener; `figures` is read once a second."""

    def __init__(self, figures: Callable[[], Any], draining: Draining, interval: float = 1.0) -> None:
        self._figures = figures
        self._draining = draining
        self._interval = interval
        self._clients = 0
        self._text = ""
        self._read_at = float("-inf")

    async def serve(self, stream: trio.abc.Stream) -> None:
        """One TCP connection, from its HTTP request to the end."""
        async with trio.open_nursery() as nursery:
            request: WebSocketRequest | None = None
            with trio.move_on_after(10):
                request = await wrap_server_stream(nursery, stream)
            if request is not None:
                await self._answer(request)
            nursery.cancel_scope.cancel()

    async def _answer(self, request: WebSocketRequest) -> None:
        if request.path.split("?")[0] != "/live":
            await request.reject(404, body=b"try /live\n")
        elif self._clients >= CLIENTS:
            await request.reject(503, body=b"too many monitors\n")
        else:
            self._clients += 1
            try:
                await self._feed(await request.accept())
            finally:
                self._clients -= 1

    async def _feed(self, socket: WebSocketConnection) -> None:
        try:
            while not self._draining.begun:
                with trio.fail_after(5):
                    await socket.send_message(self._now())
                with self._draining.waiting(self._interval):
                    await trio.sleep_forever()
        except (ConnectionClosed, trio.TooSlowError):
            return

    def _now(self) -> str:
        """The figures, encoded once for all clients within half an interval."""
        at = trio.current_time()
        if at - self._read_at > self._interval / 2:
            self._text = _encode({"time": time.time(), "queue": self._figures()}).decode()
            self._read_at = at
        return self._text
