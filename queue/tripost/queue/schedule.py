"""what is due when, per next hop

For each next hop a FIFO of rows that are due, and for all of them one calendar
of rows that are not. Pure: told the time, never asks for it.

States   a row is in a FIFO, in the calendar, aside, or out (leased). A hop is
         open, or closed for one of the reasons of tripost.queue.blocks.
Promise  a blocked hop gives nothing, a probing one nothing more. Adding,
         deferring and claiming one row take constant time but for the
         calendar's heap of slots; a hop that is down costs nothing per row.
         `next_ready` tells each hop once when it becomes claimable, and once
         more after each claim that left something.
"""

from __future__ import annotations

import heapq
import math
from array import array
from collections.abc import Callable, Iterator

from tripost.queue.blocks import Blocks
from tripost.queue.lanes import Lanes
from tripost.queue.message import Deferred
from tripost.queue.notes import Notes
from tripost.queue.rows import ASIDE, GONE, MOVING, NEVER, NIL, STOPPED, Rows

SLOTS = 4  # of the calendar per second: a row is up to 1/SLOTS s late, never early
STEP = 2000  # rows looked at without a pause


class Schedule:
    """All next hops. A hop's number is its row in these columns; numbers of forgotten hops are used again."""

    def __init__(self, rows: Rows, notes: Notes) -> None:
        self._rows = rows
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []
        self._head = array("I")
        self._tail = array("I")
        self._waiting = array("I")  # rows in the FIFO
        self._rows_of = array("I")  # queued rows, wherever they are
        self._free: list[int] = []
        self._lanes: dict[int, Lanes] = {}
        self._tried = array("B")  # since this start
        self.blocks = Blocks(notes)
        self._calendar: dict[int, int] = {}  # slot → first row
        self._slots: list[int] = []
        self._rung: dict[int, None] = {}  # hops to be told by `next_ready`

    # --- next hops ---

    def number(self, name: str) -> int:
        """The hop's number; it is made when there is none."""
        found = self._numbers.get(name)
        if found is not None:
            return found
        if self._free:
            hop = self._free.pop()
            self._names[hop] = name
            self._tried[hop] = 0
        else:
            hop = len(self._names)
            self._names.append(name)
            self._head.append(NIL)
            self._tail.append(NIL)
            self._waiting.append(0)
            self._rows_of.append(0)
            self._tried.append(0)
        self._numbers[name] = hop
        return hop

    def find(self, name: str) -> int | None:
        return self._numbers.get(name)

    def name(self, hop: int) -> str:
        return self._names[hop]

    def hops(self) -> int:
        """How many hops are remembered."""
        return len(self._numbers)

    def waiting(self, hop: int) -> int:
        """Rows that are due."""
        return self._waiting[hop]

    def queued(self, hop: int) -> int:
        """Rows of the hop, wherever they are."""
        return self._rows_of[hop]

    def numbered(self, start: int, end: int) -> list[tuple[int, str]] | None:
        """(rows, name) of the hops with such numbers that have some; None when there are no more hops."""
        if start >= len(self._names):
            return None
        found = zip(self._rows_of[start:end], self._names[start:end], strict=True)
        return [one for one in found if one[0]]

    def enrol(self, hop: int, rows: int = 1) -> None:
        """The hop has rows that it had not."""
        self._rows_of[hop] += rows

    def leave(self, hop: int) -> None:
        """One row of the hop is settled."""
        self._rows_of[hop] -= 1
        self.forget(hop)

    def forget(self, hop: int) -> None:
        """Names of hops come from senders: one that has neither rows nor back-off is not remembered."""
        if not self._rows_of[hop] and self.blocks.back_off(hop) is None:
            del self._numbers[self._names[hop]]
            self._names[hop] = ""
            self._rung.pop(hop, None)
            self._free.append(hop)

    # --- rows ---

    def add(self, row: int, now: float) -> None:
        """A row that is in no chain; by its due time it goes to the FIFO's end or into the calendar."""
        rows = self._rows
        if rows.flags[row] & STOPPED:
            rows.flags[row] |= ASIDE
        elif rows.due[row] > now:
            slot = math.ceil(rows.due[row] * SLOTS)
            if slot not in self._calendar:
                heapq.heappush(self._slots, slot)
            rows.after[row] = self._calendar.get(slot, NIL)
            self._calendar[slot] = row
        else:
            self._push(row, first=False)

    def add_first(self, row: int) -> None:
        """A row that keeps its place: claimed, but not tried."""
        if self._rows.flags[row] & STOPPED:
            self._rows.flags[row] |= ASIDE
        else:
            self._push(row, first=True)

    def _push(self, row: int, *, first: bool) -> None:
        rows = self._rows
        hop = rows.hop[row]
        head = self._head[hop]
        lanes = self._lanes.get(hop) if self._lanes else None
        if lanes is None and head != NIL and not self._alike(head, row):
            lanes = self._lanes[hop] = Lanes(rows)
            lanes.adopt(head, self._tail[hop])
        if lanes is not None:
            lanes.push(row, first=first)
        elif head == NIL:
            self._head[hop] = self._tail[hop] = row
            rows.after[row] = NIL
        elif first:
            rows.after[row] = head
            self._head[hop] = row
        else:
            rows.after[self._tail[hop]] = row
            rows.after[row] = NIL
            self._tail[hop] = row
        self._waiting[hop] += 1
        self._rung[hop] = None

    def _alike(self, one: int, other: int) -> bool:
        rows = self._rows
        return rows.lane[one] == rows.lane[other] and rows.priority[one] == rows.priority[other]

    def _pop(self, hop: int, now: float) -> int:
        """The FIFO's first; there is one."""
        self._waiting[hop] -= 1
        lanes = self._lanes.get(hop) if self._lanes else None
        if lanes is None:
            row = self._head[hop]
            self._head[hop] = self._rows.after[row]
            return row
        row = lanes.pop(now)
        only = lanes.only()
        if only is not None:
            del self._lanes[hop]
            self._head[hop], self._tail[hop] = only.head, only.tail
        return row

    def claimable(self, hop: int, now: float) -> bool:
        if not self._waiting[hop]:
            return False
        return not self.blocks.any() or not self.blocks.closed(hop, self._names[hop], now)

    def claim(self, hop: int, now: float, most: int) -> list[int]:
        """Up to `most` due rows; after a failure one only, the probe."""
        if not self.claimable(hop, now):
            return []
        self._tried[hop] = 1
        back_off = self.blocks.back_off(hop)
        if back_off is not None:
            back_off.probing = True
            most = 1
        taken: list[int] = []
        flags = self._rows.flags
        for _ in range(min(self._waiting[hop], most + STEP)):
            row = self._pop(hop, now)
            if flags[row] & STOPPED:
                flags[row] |= ASIDE
                continue
            taken.append(row)
            if len(taken) == most:
                break
        if not taken and back_off is not None:
            back_off.probing = False
        if self._waiting[hop] and (back_off is None or not taken):
            self._rung[hop] = None
        return taken

    def tried(self, hop: int) -> bool:
        """Something was claimed for it since this start."""
        return bool(self._tried[hop])

    def detach(self, hop: int) -> list[int]:
        """The hop's FIFO, as the first rows of chains, to be gone through with `sift`. Until that is done, what stands
        in them cannot be claimed."""
        lanes = self._lanes.pop(hop, None)
        heads = lanes.heads() if lanes is not None else [self._head[hop]] if self._waiting[hop] else []
        self._head[hop] = self._tail[hop] = NIL
        self._waiting[hop] = 0
        return heads

    def sift(self, chains: list[int], most: int, out: Callable[[int], bool]) -> list[int]:
        """The next rows of what was detached, up to `most`: those that are `out` are returned and in no chain, the
        others stand in their FIFO again. `chains` is empty at the end."""
        taken: list[int] = []
        for _ in range(most):
            if not chains:
                break
            row = chains[0]
            chains[0] = self._rows.after[row]
            if chains[0] == NIL:
                del chains[0]
            if out(row):
                taken.append(row)
            else:
                self._push(row, first=False)
        return taken

    def due_rows(self, hop: int) -> Iterator[int]:
        """The FIFO's rows; an explicit scan, during which nothing may change."""
        if hop in self._lanes:
            yield from self._lanes[hop]
            return
        row = self._head[hop]
        while row != NIL:
            yield row
            row = self._rows.after[row]

    def link(self, now: float) -> Iterator[int]:
        """At a start: put every queued row, none of which is in a chain yet, into its own; yields its recipients."""
        rows, free = self._rows, NIL
        alone = array("B", bytes(len(self._names)))  # hops whose FIFO may be built without asking for lanes
        flags, due, after, hops, rows_of = rows.flags, rows.due, rows.after, rows.hop, self._rows_of
        head, tail, waiting = self._head, self._tail, self._waiting
        lane, priority = rows.lane, rows.priority
        used = 0
        for row, flag in enumerate(flags):
            if flag & GONE:
                after[row], free = free, row
                rows.expires[row], rows.size[row] = NEVER, 0
                continue
            hop = hops[row]
            rows_of[hop] += 1
            used += 1
            yield rows.recipients[row]
            if flag or due[row] > now or alone[hop]:
                self.add(row, now)
                continue
            last = tail[hop]
            after[row] = NIL
            if not waiting[hop]:
                head[hop] = row
                self._rung[hop] = None
            elif lane[last] != lane[row] or priority[last] != priority[row]:
                alone[hop] = 1
                self.add(row, now)
                continue
            else:
                after[last] = row
            tail[hop] = row
            waiting[hop] += 1
        rows.restore(free, used)
        for hop in list(self._numbers.values()):
            self.forget(hop)
        self.blocks.restore(self._numbers)

    # --- time ---

    def next_time(self) -> float | None:
        """When `promote` has something to do next."""
        block = self.blocks.next_time()
        if not self._slots:
            return block
        return min(self._slots[0] / SLOTS, block) if block is not None else self._slots[0] / SLOTS

    def promote(self, now: float, most: int = 1000) -> bool:
        """Move up to `most` rows that became due into their FIFOs; True when there are more."""
        for hop in self.blocks.ended(now):
            self._end_block(hop)
        for name in self.blocks.resumed(now):
            if (known := self._numbers.get(name)) is not None:
                self._ring(known)
        moved = 0
        while self._slots and self._slots[0] <= now * SLOTS:
            row = self._calendar[self._slots[0]]
            while row != NIL and moved < most:
                after = self._rows.after[row]
                self.add(row, now)
                row, moved = after, moved + 1
            if row != NIL:
                self._calendar[self._slots[0]] = row
                return True
            del self._calendar[heapq.heappop(self._slots)]
        return False

    def _end_block(self, hop: int) -> None:
        if self._rows_of[hop]:
            self._ring(hop)
        else:
            self.blocks.end(hop, self._names[hop])
            self.forget(hop)

    def next_ready(self, now: float) -> int | None:
        """A hop that became claimable since this was last asked."""
        while self._rung:
            hop = next(iter(self._rung))
            del self._rung[hop]
            if self.claimable(hop, now):
                return hop
        return None

    def rung(self, now: float) -> bool:
        """`next_ready` would tell something."""
        while self._rung:
            hop = next(iter(self._rung))
            if self.claimable(hop, now):
                return True
            del self._rung[hop]
        return False

    def slots(self) -> list[int]:
        """Of the calendar."""
        return list(self._calendar)

    def part_slot(self, slot: int) -> int:
        """What is being changed of a slot's rows stands aside; how many there were."""
        rows, count = self._rows, 0
        row, kept = self._calendar.get(slot, NIL), NIL
        while row != NIL:
            after = rows.after[row]
            if rows.flags[row] & MOVING:
                rows.flags[row] |= ASIDE
            else:
                rows.after[row], kept = kept, row
            row, count = after, count + 1
        if count:
            self._calendar[slot] = kept  # an empty one goes when its time comes
        return count

    def let_out(self, row: int, now: float) -> None:
        """The row goes on, if it stands aside and nothing stops it."""
        flags = self._rows.flags
        if flags[row] & ASIDE and not flags[row] & STOPPED:
            flags[row] &= ~ASIDE
            self.add(row, now)

    def ready(self, now: float) -> list[int]:
        """Every hop that can be claimed from; an explicit scan."""
        return [hop for hop in self._numbers.values() if self.claimable(hop, now)]

    # --- next hops that are not to be tried ---

    def block(self, hop: int, until: float, last: Deferred) -> None:
        """The hop could not be spoken to."""
        self.blocks.begin(hop, self._names[hop], until, last)

    def unblock(self, hop: int) -> None:
        """It could be spoken to: everything due is ready."""
        if self.blocks.end(hop, self._names[hop]):
            self._ring(hop)

    def unprobe(self, hop: int) -> None:
        """The probe was not made."""
        back_off = self.blocks.back_off(hop)
        if back_off is not None:
            back_off.probing = False
            self._ring(hop)

    def resume(self, name: str) -> bool:
        """False when the hop is not suspended."""
        known, hop = self.blocks.resume(name), self._numbers.get(name)
        if known and hop is not None:
            self._ring(hop)
        return known

    def _ring(self, hop: int) -> None:
        if self._waiting[hop]:
            self._rung[hop] = None
