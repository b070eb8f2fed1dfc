"""the only clock anyone asks

Waits use Trio's monotonic clock, stored times the wall clock. One anchor ties
the two together, so that under a MockClock five days of retries pass in no
time and stored times still agree with the waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import trio


class Clock:
    """Wall time in seconds since the epoch, advancing with Trio's clock."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        """Must be made inside a Trio run; `wall` is read once, as the anchor."""
        self._offset = wall() - trio.current_time()

    def now(self) -> float:
        """Wall-clock seconds now."""
        return self._offset + trio.current_time()

    def to_trio(self, wall: float) -> float:
        """The Trio time at which the wall clock will read `wall`."""
        return wall - self._offset
