"""names to be looked at again at a time

Promise  `ring(name, when)` is called once for each alarm that was set, not before its
         time. An alarm that does not matter any more is the caller's to recognise.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

import trio

from tripost.queue.clock import Clock


class Alarms:
    """Times are wall time."""

    def __init__(self, clock: Clock, ring: Callable[[str, float], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._set: list[tuple[float, str]] = []
        self._sooner = trio.Event()

    def set(self, name: str, when: float) -> None:
        heapq.heappush(self._set, (when, name))
        if self._set[0][0] == when:
            self._sooner.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._sooner = trio.Event()
            due = self._set[0][0] if self._set else None
            with trio.move_on_at(self._clock.to_trio(due)) if due is not None else trio.CancelScope():
                await self._sooner.wait()
            now = self._clock.now()
            while self._set and self._set[0][0] <= now:
                when, name = heapq.heappop(self._set)
                self._ring(name, when)
