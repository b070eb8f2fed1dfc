"""/events and /trace: what happens, and what is said, as it happens

A client of /events gets events from a number on: those that are on disk first, where
the memory does not reach back so far, then those in memory, then what comes. What is
missing between is told as a gap.

Promise  nobody waits for a client: one that falls behind what is in memory is told how
         many it lost, one that takes nothing for STUCK s is cut.
Bounds   WATCHERS at a time; one page of the ring, or one piece of a file, for each. What they ask for takes a tenth of
         a core, all together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import msgspec
import trio
from trio_websocket import WebSocketConnection

from tripost.gateway.control.frames import Row
from tripost.gateway.control.server import Refused, Upload
from tripost.gateway.control.trace_verb import Asked
from tripost.gateway.monitor.event_feed import Ring, Wanted, gap, hello
from tripost.gateway.monitor.frames import frame
from tripost.gateway.monitor.http import Request
from tripost.gateway.monitor.live import Live, keep_alive, until_closed
from tripost.gateway.monitor.provider import Sources
from tripost.gateway.monitor.server import Caller
from tripost.gateway.monitor.wire import Wire
from tripost.gateway.observe.event_file import Boot, EventFile, Replay
from tripost.gateway.observe.reader import Batch
from tripost.queue.events import Event

WATCHERS = 200
ROUNDS = 20  # looks at the files until the memory reaches back to what was sent
SOON = 0.1  # seconds between them
READERS = 4  # threads that read files
EASE = 9.0  # seconds of rest for each of filtering: a tenth of a core
Piece = list[tuple[Event | Boot, bytes]]
_encode = msgspec.json.Encoder().encode


class Place:
    """How far a client is: `at` was the last number, `next` is the number that follows on it, 0 where that is not
    known; `boot`: it has come to the run that goes on."""

    def __init__(self, after: int) -> None:
        self.at = after
        self.next = after + 1 if after else 0
        self.boot = False


class Events:
    """Of one gateway. `live` counts who watches."""

    def __init__(self, sources: Sources, file: EventFile, live: Live) -> None:
        self._from = sources
        self._file = file
        self._live = live
        self._ring = Ring(sources.bus.number)
        self._news = trio.Event()
        self._readers = trio.CapacityLimiter(READERS)
        self._turn = trio.Lock()
        sources.observer.tap(self._take)

    def _take(self, batch: Batch) -> None:
        self._ring.add(batch)
        self._news.set()
        self._news = trio.Event()

    def check(self, request: Request, caller: Caller) -> str:
        """Why a request cannot be meant."""
        if self._live.events >= WATCHERS:
            return f"{WATCHERS} watch events, as many as there may be"
        after = request.query.get("after", "0")
        if not (after.isascii() and after.isdigit() and len(after) <= 18):
            return "after: the number of an event"
        try:
            Wanted(request.query)
        except ValueError as wrong:
            return str(wrong)
        return ""

    async def serve(self, socket: WebSocketConnection, wire: Wire, request: Request, caller: Caller) -> None:
        """Until the client goes or is cut."""
        text = request.query.get("after")
        self._live.events += 1
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keep_alive, socket)
                nursery.start_soon(self._tell, wire, Wanted(request.query), int(text) if text is not None else None)
                await until_closed(socket)
                nursery.cancel_scope.cancel()
        finally:
            self._live.events -= 1
            self._live.cut += wire.stuck

    async def _tell(self, wire: Wire, wanted: Wanted, after: int | None) -> None:
        number, ring = self._from.bus.number, self._ring
        try:
            await wire.send_all(hello(self._from.boot, self._file.oldest or ring.first, number))
            cursor = number if after is None else after
            if cursor > number:
                await wire.send_all(gap("future", cursor, number + 1))
                cursor = number
            elif cursor + 1 < ring.first:
                cursor = await self._from_disk(wire, wanted, cursor)
            while True:
                news = self._news
                page = ring.after(cursor)
                if page is None:
                    await news.wait()
                    continue
                if page.first > cursor + 1:
                    await wire.send_all(gap("slow", cursor, page.first, page.first - 1 - cursor))
                data = page.ready(wanted, cursor)
                if data is None:
                    data = await self._work(partial(page.frames, wanted, cursor))
                cursor = page.last
                await _give(wire, data)
                if cursor < ring.last:
                    await trio.lowlevel.checkpoint()  # much is to be told: others have their turns between
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the reader is told as well

    # --- what is on disk ---

    async def _from_disk(self, wire: Wire, wanted: Wanted, after: int) -> int:
        """Send what the memory does not hold; the number from which it does."""
        place = Place(after)
        for _ in range(ROUNDS):
            pieces = iter(Replay(self._file.folder, place.at))
            while (piece := await self._piece(pieces)) is not None:
                await _give(wire, await self._work(partial(self._join, piece, place, wanted)))
            if place.boot and place.at + 1 >= self._ring.first:
                return place.at
            await trio.sleep(SOON)  # the disk is a little behind
        first = self._ring.first
        await wire.send_all(gap("lost", place.at, first))
        return first - 1

    async def _piece(self, pieces: Iterator[Piece]) -> Piece | None:
        """The next; None at the end, and where it cannot be read."""
        try:
            return await trio.to_thread.run_sync(lambda: next(pieces, None), limiter=self._readers)
        except OSError:
            return None

    async def _work(self, make: Callable[[], bytes]) -> bytes:
        """One after the other, with a rest: all filters together have a share of the processor, however many they are.
        Who has to wait too long loses events."""
        async with self._turn:
            began = time.perf_counter()
            made = make()
            await trio.sleep((time.perf_counter() - began) * EASE)
        return made

    def _join(self, piece: Piece, place: Place, wanted: Wanted) -> bytes:
        return b"".join(self._told(piece, place, wanted))

    def _told(self, piece: Piece, place: Place, wanted: Wanted) -> Iterator[bytes]:
        """Frames of what is wanted, and of every gap."""
        for one, line in piece:
            if isinstance(one, Boot):
                if place.at and one.after > place.at:
                    yield gap("old", place.at, one.first + 1)
                elif place.at and not one.clean:
                    yield gap("killed", place.at, one.first + 1)
                elif place.at > one.after:  # of another state, or of one that was removed
                    yield gap("old", place.at, one.first + 1)
                place.boot = place.boot or one.first == self._from.boot
                place.at, place.next = max(place.at, one.first), one.first + 1
                continue
            if place.next and one.seq > place.next:
                old = not place.boot and place.at < self._file.oldest
                yield gap("old" if old else "lost", place.at, one.seq, 0 if old else one.seq - place.next)
            place.boot = place.boot or one.seq > self._from.boot
            place.at, place.next = one.seq, one.seq + 1
            if wanted.all or wanted.fits(one):
                yield frame(line)


async def _give(wire: Wire, data: bytes) -> None:
    """At once where the system takes it."""
    if not data or not wire.push(data):
        await wire.send_all(data)
    elif wire.behind:
        await wire.send_all(b"")


class Traces:
    """/trace: the dialogue of live sessions, without secrets and content."""

    def __init__(self, sources: Sources, live: Live) -> None:
        self._from = sources
        self._live = live

    def check(self, request: Request, caller: Caller) -> str:
        """Why a request cannot be meant."""
        try:
            msgspec.convert(request.query, Asked, strict=False)
        except (msgspec.ValidationError, ValueError) as wrong:
            return f"not understood: {wrong}"
        return ""

    async def serve(self, socket: WebSocketConnection, wire: Wire, request: Request, caller: Caller) -> None:
        """Until the client goes, or the time that it asked for is over."""
        self._live.traces += 1
        try:
            async with trio.open_nursery() as nursery:

                async def tell() -> None:
                    await self._tell(wire, request, caller)
                    nursery.cancel_scope.cancel()

                nursery.start_soon(keep_alive, socket)
                nursery.start_soon(tell)
                await until_closed(socket)
                nursery.cancel_scope.cancel()
        finally:
            self._live.traces -= 1
            self._live.cut += wire.stuck

    async def _tell(self, wire: Wire, request: Request, caller: Caller) -> None:
        asked = msgspec.to_builtins(msgspec.convert(request.query, Asked, strict=False))
        verb = self._from.verbs["trace"]
        assert not isinstance(verb, Upload)
        rows = verb(asked, caller.who)
        try:
            async for one in rows:
                if isinstance(one, Row):
                    await wire.send_all(frame(_encode(one.row)))
        except Refused as wrong:
            await wire.send_all(frame(_encode({"error": str(wrong)})))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it went
        finally:
            await rows.aclose()
