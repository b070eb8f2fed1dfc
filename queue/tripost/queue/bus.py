"""who hears of events

Promise  `emit` never waits and never fails. Sinks are called at once, in the
         order of the events; subscriptions are bounded, and a slow one loses
         events and knows how many: mail never waits.
Why      numbers begin at the microsecond of the start, so that they grow over
         restarts without being kept anywhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import msgspec
import trio

from tripost.queue.dialogue import Tracing
from tripost.queue.events import Event

_set = msgspec.structs.force_setattr


class Subscription:
    """One bounded reader. `dropped` counts events lost since it was opened."""

    def __init__(self, send: trio.MemorySendChannel[Event], receive: trio.MemoryReceiveChannel[Event]) -> None:
        self._send = send
        self._receive = receive
        self.dropped = 0

    def offer(self, event: Event) -> None:
        try:
            self._send.send_nowait(event)
        except trio.WouldBlock:
            self.dropped += 1

    async def receive(self) -> Event:
        """The next event, in order."""
        return await self._receive.receive()


class Bus:
    """Numbers each event and hands it to every sink (called at once) and every subscription. `tracing`: what sessions
    say."""

    def __init__(self) -> None:
        self._sinks: list[Callable[[Event], Any]] = []
        self._subscriptions: list[Subscription] = []
        self.tracing = Tracing()
        self._first = self._number = time.time_ns() // 1000

    @property
    def emitted(self) -> int:
        """Events since the start."""
        return self._number - self._first

    @property
    def number(self) -> int:
        """Of the newest event."""
        return self._number

    @property
    def first(self) -> int:
        """What the numbers of this start are greater than."""
        return self._first

    def add_sink(self, sink: Callable[[Event], Any]) -> None:
        """`sink` must be quick and must not raise."""
        self._sinks.append(sink)

    def emit(self, event: Event) -> None:
        self._number += 1
        _set(event, "seq", self._number)  # it is nobody's yet: frozen means from here on
        for sink in self._sinks:
            sink(event)
        for one in self._subscriptions:
            one.offer(event)

    @contextmanager
    def subscribe(self, size: int = 1024) -> Generator[Subscription]:
        """A bounded view of what is emitted from now on."""
        send, receive = trio.open_memory_channel[Event](size)
        one = Subscription(send, receive)
        self._subscriptions.append(one)
        try:
            yield one
        finally:
            self._subscriptions.remove(one)
            send.close()
            receive.close()
