"""one pool for the bodies that wait in memory

A body holds what it has in memory until it is committed or goes to a file of
its own. When the pool is empty the next piece sends its body to a file at once:
nobody waits for somebody else's slow client, and while the disk is at it the
client's socket is not read.

Promise  bodies in memory hold `limit` octets at most, and each session one piece
         more; pieces are small (`short`) before the pool is empty.
"""

from __future__ import annotations

SHORT = 4  # the pool is short when less than a fourth is left


class MemoryPool:
    """`limit` in octets."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    @property
    def short(self) -> bool:
        return (self.limit - self.used) * SHORT < self.limit

    def take(self, octets: int) -> bool:
        """False when there is no room for so many."""
        if self.used + octets > self.limit:
            return False
        self.used += octets
        return True

    def give(self, octets: int) -> None:
        self.used -= octets
