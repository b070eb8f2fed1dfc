"""/live: the same octets to everyone who watches

One task paints the picture, four times a second while somebody watches, and writes
the delta to every client at once. A client of which the system takes no more gets
nothing until it has taken that, and then a snapshot: nobody waits for it.

Promise  mail never waits. What a client costs in memory is one message and the
         system's buffer; one that takes nothing for STUCK s is cut.
Why      the picture is painted once a second even when nobody looks, so that the
         series is there for whoever comes.
"""

from __future__ import annotations

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from tripost.gateway.monitor import feed
from tripost.gateway.monitor.feed import Clients, Feed
from tripost.gateway.monitor.figures import Figures
from tripost.gateway.monitor.frames import frame
from tripost.gateway.monitor.picture import Painter
from tripost.gateway.monitor.provider import Sources
from tripost.gateway.monitor.wire import Wire

EVERY = 0.25  # seconds between two deltas
PING_EVERY = 20.0
PONG_WITHIN = 20.0
MESSAGES = 1000  # of a client


class Watcher:
    """One client. `at`: the tick it has, 0 for none; `wake`: it has something to do."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.at = 0
        self.wake = trio.Event()


class Live:
    """`run` until cancelled; `serve` one client."""

    def __init__(self, sources: Sources) -> None:
        self.figures = Figures()
        sources.observer.count(self.figures.take)
        self._from = sources
        self._painter = Painter(sources, self.figures)
        self._feed = Feed()
        self._watchers: set[Watcher] = set()
        self._delta = b""
        self._snapshot = b""
        self._snapshot_of = -1
        self._somebody, self._nobody = trio.Event(), trio.Event()
        self.events = self.traces = self.cut = 0

    @property
    def clients(self) -> Clients:
        return Clients(len(self._watchers), self.events, self.traces, self.cut)

    async def run(self) -> None:
        """Paint, and tell; until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look)
            next_second = trio.current_time()
            while True:
                now = trio.current_time()
                sample = None
                if now >= next_second:
                    self._from.observer.flush()  # the second has all that happened in it
                    next_second = max(next_second + 1.0, now + 0.5)
                    sample = self.figures.second(self._from.now(), self._from.queue.statistics())
                    self._painter.second()
                if sample is not None or self._watchers:
                    self._tell(sample)
                if self._watchers:
                    await trio.sleep_until(min(next_second, now + EVERY))
                    continue
                with trio.move_on_at(next_second):
                    await self._somebody.wait()

    async def _look(self) -> None:
        """At every delivery, while somebody watches."""
        while True:
            await self._somebody.wait()
            async with trio.open_nursery() as looking:
                looking.start_soon(self._painter.watch)
                await self._nobody.wait()
                looking.cancel_scope.cancel()

    def _tell(self, sample: feed.Sample | None) -> None:
        delta = self._feed.advance(self._painter.paint(self.clients), sample)
        if not self._watchers:
            return
        self._delta = frame(delta)
        for one in self._watchers:
            if one.at == self._feed.tick - 1 and self._push(one, self._delta):
                one.at = self._feed.tick
            else:
                one.wake.set()

    @staticmethod
    def _push(one: Watcher, data: bytes) -> bool:
        try:
            taken = one.wire.push(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False  # its own task finds out
        if one.wire.behind:
            one.wake.set()
        return taken

    def snapshot(self) -> bytes:
        """As a frame, with the tick that it is of."""
        if self._snapshot_of != self._feed.tick:
            self._snapshot, self._snapshot_of = frame(self._feed.snapshot()), self._feed.tick
        return self._snapshot

    async def serve(self, socket: WebSocketConnection, wire: Wire) -> None:
        """Until the client goes, is cut, or the gateway stops."""
        one = Watcher(wire)
        self._watchers.add(one)
        if not self._somebody.is_set():
            self._somebody.set()
            self._nobody = trio.Event()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send, one)
                nursery.start_soon(keep_alive, socket)
                await until_closed(socket)
                nursery.cancel_scope.cancel()
        finally:
            self._watchers.discard(one)
            self.cut += wire.stuck
            if not self._watchers:
                self._somebody = trio.Event()
                self._nobody.set()

    async def _send(self, one: Watcher) -> None:
        """What could not be written at once. What it is sent here is the newest there is."""
        try:
            while True:
                if one.wire.behind:
                    await one.wire.send_all(b"")
                elif one.at != self._feed.tick:
                    data = self._delta if one.at and one.at == self._feed.tick - 1 else self.snapshot()
                    one.at = self._feed.tick
                    await one.wire.send_all(data)
                else:
                    one.wake = trio.Event()
                    await one.wake.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the reader is told as well


async def until_closed(socket: WebSocketConnection) -> None:
    """What a client sends to a feed is read and forgotten; who goes on is closed."""
    try:
        for _ in range(MESSAGES):
            await socket.get_message()
        with trio.move_on_after(1.0):
            await socket.aclose(1008, "this is a feed: it does not listen")
    except ConnectionClosed:
        return


async def keep_alive(socket: WebSocketConnection) -> None:
    """Closes what does not answer."""
    try:
        while True:
            await trio.sleep(PING_EVERY)
            with trio.move_on_after(PONG_WITHIN) as scope:
                await socket.ping()
            if scope.cancelled_caught:
                with trio.move_on_after(1.0):
                    await socket.aclose(1001, "no answer to a ping")
                return
    except ConnectionClosed:
        return
