"""from the bus to the readers

Gathers events, PART at a time, counts them for who asked for that, encodes them
once, and lets go of them; each twentieth of a second where many come, it offers
the same octets to every reader. What readers lose is told as `dropped`: at once when
it begins, each minute while it goes on, and when it is over.

Promise  an event costs its sender an append to a list.
Loses    with kill -9: what was gathered, and what the readers had not written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec
import trio

from tripost.gateway.observe.reader import Batch, Kinds, Reader, ReaderStatistics, by_kind
from tripost.queue.bus import Bus
from tripost.queue.events import Dropped, Event, Trouble

GATHER = 0.05  # seconds
PART = 128  # events that are encoded at once: so few that they are still in the processor's cache
MOST_EVENTS = 512  # of a batch
TELL_EVERY = 60.0  # seconds, while events are lost
LOOK_AGAIN = 1.0  # seconds, while readers have something to write
PATIENCE = 2.0  # seconds for what waits, at the end


class ObserverStatistics(msgspec.Struct, frozen=True):
    """`emitted`: events since the start."""

    emitted: int
    readers: list[ReaderStatistics]


class _Told:
    """What was told of one reader's losses, and when."""

    def __init__(self) -> None:
        self.dropped = 0
        self.at = -math.inf
        self.open = False  # more may have to be told without another event


class Observer:
    """`now`: wall-clock seconds."""

    def __init__(self, bus: Bus, readers: Sequence[Reader], now: Callable[[], float]) -> None:
        self._bus = bus
        self._readers = readers
        self.now = now
        self._told = {one.name: _Told() for one in readers}
        self._events: list[Event] = []
        self._parts: list[Batch] = []
        self._counters: list[Callable[[Kinds], None]] = []
        self._taps: list[Callable[[Batch], None]] = []
        self._listening = False
        self._some = trio.Event()
        self._flushed_at = -math.inf
        for one in readers:
            one.start()
        if readers:
            self._listen()

    def _listen(self) -> None:
        if not self._listening:
            self._listening = True
            self._bus.add_sink(self._take)

    def _take(self, event: Event) -> None:
        events = self._events
        events.append(event)
        if len(events) == 1:
            self._some.set()
        elif len(events) >= PART:
            self._encode()
            if len(self._parts) >= MOST_EVENTS // PART:
                self.flush()

    def tap(self, take: Callable[[Batch], None]) -> None:
        """`take` gets every batch too, at once; it must be quick and must not raise."""
        self._listen()
        self._taps.append(take)

    def count(self, take: Callable[[Kinds], None]) -> None:
        """`take` gets all events, sorted by kind; the same holds for it. What is not flushed it may not have yet."""
        self._listen()
        self._counters.append(take)

    def _encode(self) -> None:
        events, self._events = self._events, []
        if events:
            self._parts.append(Batch.of(events))
            if self._counters:
                kinds = by_kind(events)
                for take in self._counters:
                    take(kinds)

    def flush(self) -> None:
        """Give the readers what was gathered."""
        self._encode()
        self._flushed_at = trio.current_time()
        parts, self._parts = self._parts, []
        if parts:
            batch = parts[0] if len(parts) == 1 else _joined(parts)
            for one in self._readers:
                one.offer(batch)
            for take in self._taps:
                take(batch)

    async def run(self) -> None:
        """Until cancelled; `close` comes after it."""
        while True:
            with trio.move_on_after(LOOK_AGAIN if self._open else math.inf):
                await self._some.wait()
            self._some = trio.Event()
            await trio.sleep_until(self._flushed_at + GATHER)  # at once, where it was quiet
            self.flush()
            for one in self._readers:
                self._look(one, self._told[one.name])

    @property
    def _open(self) -> bool:
        return any(one.open for one in self._told.values())

    def _look(self, reader: Reader, told: _Told) -> None:
        """Tell what it has lost, where it is time."""
        trouble, reader.trouble = reader.trouble, ""
        if trouble:
            self._bus.emit(Trouble(time=self.now(), where=reader.name, reason=trouble))
        lost, now = reader.dropped - told.dropped, trio.current_time()
        if lost and (now - told.at >= TELL_EVERY or reader.roomy):
            reason = reader.wrong or ("" if reader.roomy else "too slow")
            told.dropped, told.at = told.dropped + lost, now
            self._bus.emit(Dropped(time=self.now(), reader=reader.name, events=lost, total=told.dropped, reason=reason))
        told.open = reader.waiting > 0 or bool(reader.wrong) or reader.dropped > told.dropped

    def close(self) -> None:
        """The last events; waits `PATIENCE` for each reader that has something to write."""
        self.flush()
        for one in self._readers:
            one.close(PATIENCE)

    def statistics(self) -> ObserverStatistics:
        return ObserverStatistics(self._bus.emitted, [one.statistics() for one in self._readers])


def _joined(parts: Sequence[Batch]) -> Batch:
    return Batch(b"".join([one.lines for one in parts]), sum([one.count for one in parts]), parts[-1].last)
