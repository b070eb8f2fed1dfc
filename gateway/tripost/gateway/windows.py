"""rates over a sliding window, in bounded tables

API      `Rate(count, seconds)` is what `units.rate("10/10min")` reads.
         `Windows(rate)`: `take(key, now, amount)` counts and gives 0.0, or counts
         nothing and gives the seconds after which it would fit (the "when does it
         reset" of a reply); `wait(key, now, amount)` only looks; `count(key, now)`.
Promise  Memory is bounded: at most `MOST` keys, the one not used for longest goes.
         Two numbers a key, whatever the rate.
Why      The window is the running span plus the part of the span before that still
         counts, as if that had been spread evenly: exact for a steady client, never
         more than the rate by spans, and no list of times per key.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

MOST = 100_000


class Rate(msgspec.Struct, frozen=True):
    """So many per so many seconds; a count of 0 means no limit."""

    count: int
    seconds: float


NO_LIMIT = Rate(0, 1.0)


class Windows:
    """One limit for many keys; `now` in seconds of any clock that goes forward."""

    def __init__(self, rate: Rate, most: int = MOST) -> None:
        self.rate = rate
        self._most = most
        self._table: OrderedDict[str, tuple[int, int, int]] = (
            OrderedDict()
        )  # span, count in it, count in the one before

    def __len__(self) -> int:
        return len(self._table)

    def limit(self, rate: Rate) -> None:
        """From now on this rate. What was counted stays, unless it was counted over other spans."""
        if rate.seconds != self.rate.seconds:
            self._table.clear()
        self.rate = rate

    def take(self, key: str, now: float, amount: int = 1) -> float:
        """Count `amount`, or say how many seconds from now it fits."""
        if not self.rate.count:
            return 0.0
        wait = self.wait(key, now, amount)
        if not wait:
            self.add(key, now, amount)
        return wait

    def add(self, key: str, now: float, amount: int = 1) -> None:
        """Count without asking."""
        span, current, before = self._at(key, now)
        self._table[key] = (span, current + amount, before)
        self._table.move_to_end(key)
        if len(self._table) > self._most:
            self._table.popitem(last=False)

    def count(self, key: str, now: float) -> float:
        """How much of the window is used."""
        span, current, before = self._at(key, now)
        return current + before * (1.0 - (now / self.rate.seconds - span))

    def wait(self, key: str, now: float, amount: int = 1) -> float:
        """Seconds until `amount` would fit; 0.0 when it does now."""
        limit, seconds = self.rate.count, self.rate.seconds
        if not limit or self.count(key, now) + amount <= limit:
            return 0.0
        span, current, before = self._at(key, now)
        room = limit - amount
        if current <= room:  # only the span before is in the way
            return max(0.001, (span + 1.0 - (room - current) / before) * seconds - now)
        if room < 0:
            room = 0  # more than the limit at once: when the window is empty
        return (span + 2.0 - room / current) * seconds - now

    def keys(self) -> list[str]:
        """The one not used for longest first."""
        return list(self._table)

    def forget(self, key: str) -> None:
        self._table.pop(key, None)

    def _at(self, key: str, now: float) -> tuple[int, int, int]:
        here = int(now // self.rate.seconds)
        span, current, before = self._table.get(key, (here, 0, 0))
        if span == here:
            return span, current, before
        return here, 0, current if span == here - 1 else 0
