"""several FIFOs behind one next hop

Exists only while messages of different submitters or priorities wait for the
same next hop; otherwise the next hop has one plain chain.

Promise  a higher MT-PRIORITY (RFC 6710) goes first, but each AGEING seconds of
         waiting weigh one level, so that nothing starves; inside a priority
         the submitters take turns, one delivery each (deficit round robin with
         every delivery of cost 1).
Bounds   at most MOST chains; what would need one more joins the one nearest to
         it in priority.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from tripost.queue.rows import NIL, Rows

AGEING = 300.0
MOST = 64
SUBMITTERS = 64


class Chain:
    """A FIFO of rows, linked through Rows.after."""

    __slots__ = ("head", "priority", "tail")

    def __init__(self, priority: int, head: int = NIL, tail: int = NIL) -> None:
        self.priority = priority
        self.head = head
        self.tail = tail


class Lanes:
    """The chains of one next hop."""

    __slots__ = ("_chains", "_levels", "_rows")

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._chains: dict[tuple[int, int], Chain] = {}
        self._levels: dict[int, deque[tuple[int, int]]] = {}  # priority → whose turn it is

    def adopt(self, head: int, tail: int) -> None:
        """Take over a plain chain, all of one submitter and priority."""
        key = self._rows.priority[head], self._rows.lane[head]
        self._add_chain(key, Chain(key[0], head, tail))

    def only(self) -> Chain | None:
        """The chain, when there is but one left."""
        return next(iter(self._chains.values())) if len(self._chains) == 1 else None

    def heads(self) -> list[int]:
        """The first row of each chain, the highest priority first."""
        return [self._chains[key].head for level in sorted(self._levels, reverse=True) for key in self._levels[level]]

    def push(self, row: int, *, first: bool) -> None:
        rows = self._rows
        chain = self._chain_for((rows.priority[row], rows.lane[row]))
        if chain.head == NIL:
            chain.head = chain.tail = row
            rows.after[row] = NIL
        elif first:
            rows.after[row] = chain.head
            chain.head = row
        else:
            rows.after[chain.tail] = row
            rows.after[row] = NIL
            chain.tail = row

    def pop(self, now: float) -> int:
        """The row whose turn it is."""
        rows = self._rows
        level = max(self._levels, key=lambda one: self._weight(one, now))
        turns = self._levels[level]
        key = turns[0]
        chain = self._chains[key]
        row = chain.head
        chain.head = rows.after[row]
        if chain.head == NIL:
            del self._chains[key]
            turns.popleft()
            if not turns:
                del self._levels[level]
        else:
            turns.rotate(-1)
        return row

    def __iter__(self) -> Iterator[int]:
        after = self._rows.after
        for chain in self._chains.values():
            row = chain.head
            while row != NIL:
                yield row
                row = after[row]

    def _weight(self, level: int, now: float) -> float:
        """A level's oldest head speaks for it."""
        due = self._rows.due
        oldest = min(due[self._chains[key].head] for key in self._levels[level])
        return level + max(0.0, now - oldest) / AGEING

    def _chain_for(self, key: tuple[int, int]) -> Chain:
        found = self._chains.get(key)
        if found is None:
            if len(self._chains) >= MOST:
                return min(self._chains.values(), key=lambda one: abs(one.priority - key[0]))
            found = Chain(key[0])
            self._add_chain(key, found)
        return found

    def _add_chain(self, key: tuple[int, int], chain: Chain) -> None:
        self._chains[key] = chain
        self._levels.setdefault(key[0], deque()).append(key)
