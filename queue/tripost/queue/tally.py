"""how long things take, counted in few numbers

A histogram of durations with fixed bounds, cheap enough for every message. Pure.

Promise  `note` costs a search in a tuple and three additions; memory is bounded by
         the bounds. Counts only grow: two of the same bounds can be added up, and
         subtracted for what happened between two looks.
Why      bounds double, so that a quantile is right to a factor of two in the worst
         case and, interpolated, to some ten per cent as a rule.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import msgspec

FAST = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # of one step
LONG = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0, 432000.0)  # of a queue


class Histogram(msgspec.Struct, gc=False):
    """`counts[i]`: durations of at most `bounds[i]` seconds and more than the one before; the last one: longer ones."""

    bounds: tuple[float, ...] = FAST
    counts: list[int] = []
    total: float = 0.0  # seconds, of all

    def __post_init__(self) -> None:
        if not self.counts:
            self.counts = [0] * (len(self.bounds) + 1)

    def note(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def note_all(self, durations: Sequence[float]) -> None:
        """Each of them, for less."""
        counts, bounds = self.counts, self.bounds
        for seconds in durations:
            counts[bisect_left(bounds, seconds)] += 1
        self.total += sum(durations)

    @property
    def count(self) -> int:
        return sum(self.counts)

    def copy(self) -> Histogram:
        return Histogram(self.bounds, list(self.counts), self.total)

    def since(self, before: Histogram) -> Histogram:
        """What was noted after `before` was copied."""
        counts = [now - then for now, then in zip(self.counts, before.counts, strict=True)]
        return Histogram(self.bounds, counts, self.total - before.total)

    def plus(self, other: Histogram) -> Histogram:
        """Both together; of the same bounds."""
        counts = [one + two for one, two in zip(self.counts, other.counts, strict=True)]
        return Histogram(self.bounds, counts, self.total + other.total)

    def quantile(self, part: float) -> float:
        """Seconds that so large a part (0 to 1) took at most, interpolated; 0.0 when nothing was noted. What is longer
        than the last bound counts as the last bound."""
        count = self.count
        wanted, seen, low = part * count, 0, 0.0
        for bound, here in zip(self.bounds, self.counts, strict=False):
            if here and seen + here >= wanted:
                return low + (bound - low) * (wanted - seen) / here
            seen, low = seen + here, bound
        return low if count else 0.0
