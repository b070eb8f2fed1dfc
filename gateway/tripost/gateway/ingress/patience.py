"""who has waited too long

One task for all sessions looks at them once a second; each says with a plain
number (`due`) until when it waits, and for as long as it works that is NEVER.

API      `Patience()`, one for a gateway; `enter(one)`, `leave(one)`; `run()`.
Promise  `over()` is called within TICK seconds after `due`, in the task that runs
         `run`; while nobody is here nothing wakes up.
Why      a cancel scope's own deadline is exact, and costs more to move than a
         command costs to read: 4 % of a message (docs/performance.md). Limits
         that are minutes need no such precision.
"""

from __future__ import annotations

import math
from typing import Protocol

import trio

TICK = 1.0  # seconds
NEVER = math.inf


class Waiter(Protocol):
    """`due` in seconds of Trio's clock."""

    due: float

    def over(self) -> None: ...


class Patience:
    """Those who may be waiting."""

    def __init__(self) -> None:
        self._here: set[Waiter] = set()
        self._somebody = trio.Event()

    def enter(self, one: Waiter) -> None:
        self._here.add(one)
        if len(self._here) == 1:
            self._somebody.set()

    def leave(self, one: Waiter) -> None:
        self._here.discard(one)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            if not self._here:
                self._somebody = trio.Event()
                await self._somebody.wait()
            await trio.sleep(TICK)
            now = trio.current_time()
            for one in [one for one in self._here if one.due <= now]:
                one.over()
