"""what is due when, per next hop

For each next hop one heap of (due, order, entry) and one back-off. Pure: told
the time, never asks for it.

States   a hop is OPEN; BLOCKED until a time, after it could not be spoken to;
         PROBING while one lease finds out whether it can be spoken to again.
Promise  a blocked hop gives nothing, a probing one gives nothing more; of an
         open one the longest due comes first.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Generic, TypeVar

from tripost.queue.message import Deferred

T = TypeVar("T")


class Hop(Generic[T]):
    """One next hop's waiting entries and its back-off."""

    __slots__ = ("_heap", "_order", "blocked_until", "failures", "last", "probing")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._order = 0
        self.blocked_until = 0.0
        self.failures = 0
        self.probing = False
        self.last: Deferred | None = None  # why it is blocked

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, entry: T, due: float) -> None:
        self._order += 1
        heapq.heappush(self._heap, (due, self._order, entry))

    def next_due(self) -> float | None:
        """When something can be claimed next; None when nothing waits or a probe is out."""
        if not self._heap or self.probing:
            return None
        return max(self._heap[0][0], self.blocked_until)

    def claim(self, now: float, most: int) -> list[T]:
        """Up to `most` due entries; after a failure one only, the probe."""
        due = self.next_due()
        if due is None or due > now:
            return []
        if self.failures:
            self.probing = True
            most = 1
        taken: list[T] = []
        while self._heap and len(taken) < most and self._heap[0][0] <= now:
            taken.append(heapq.heappop(self._heap)[2])
        return taken

    def block(self, until: float) -> None:
        """The hop could not be spoken to."""
        self.failures += 1
        self.probing = False
        self.blocked_until = until

    def unblock(self) -> None:
        """It could be spoken to: everything due is ready."""
        self.failures = 0
        self.probing = False
        self.blocked_until = 0.0

    def entries(self) -> Iterator[T]:
        return (entry for _, _, entry in self._heap)

    def remove(self, gone: set[int]) -> None:
        """Take out the entries whose `id()` is in `gone`."""
        self._heap = [row for row in self._heap if id(row[2]) not in gone]
        heapq.heapify(self._heap)
