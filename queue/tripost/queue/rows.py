"""the queued deliveries, in columns

One row stands for one queued delivery: the recipients of one message that
share next hop, due time and attempts. Rows live in arrays of numbers, not in
objects, so that a backlog of millions costs a few dozen octets each.

A row is in at most one chain at a time (a FIFO of its next hop, a slot of the
calendar, or the free rows), linked through `after`. Chains end with NIL. What
must not be tried (STOPPED) stands aside, in no chain, as soon as its turn comes.

A *place* says where the record of a row's message stands: the number of its
segment and the offset there. Records are aligned, so the lowest bit is free to
say that the message is the report inside a settlement.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

NIL = 0xFFFFFFFF
NEVER = 0xFFFFFFFF
OFFSET_BITS = 40
IN_SETTLEMENT = 1  # lowest bit of a place
_OFFSET = (1 << OFFSET_BITS) - 2

LEASED = 1
HELD = 2  # an operator said so
GONE = 4  # a free row
MOVING = 8  # its message is being changed, or copied into a newer segment
DOOMED = 16  # an operator's action is to end it
ASIDE = 32  # it is in no chain, and not leased
PAUSED = 64  # its sender, account or client is suspended
STOPPED = HELD | MOVING | DOOMED | PAUSED

TRIES = 0x7FFF  # of the column `attempts`: how many there were…
WARNED = 0x8000  # …and that the sender was told of the delay


def place_of(segment: int, offset: int, *, in_settlement: bool = False) -> int:
    return segment << OFFSET_BITS | offset | in_settlement


def segment_of(place: int) -> int:
    return place >> OFFSET_BITS


def offset_of(place: int) -> int:
    return place & _OFFSET


class Rows:
    """`shared`: place → rows left, of messages with more than one; `subset`: row → recipient ids, where a row
    no longer stands for all of its message's recipients at its next hop."""

    def __init__(self) -> None:
        self.place = array("Q")
        self.told = array("Q")  # place of the record that last changed it, 0 where it was never tried
        self.due = array("d")  # wall seconds
        self.after = array("I")
        self.hop = array("I")
        self.expires = array("I")  # wall seconds; NEVER in a free row
        self.size = array("I")  # octets of the message's content
        self.recipients = array("H")
        self.attempts = array("H")
        self.lane = array("B")
        self.priority = array("b")
        self.flags = array("B")
        self.shared: dict[int, int] = {}
        self.subset: dict[int, tuple[int, ...]] = {}
        self.watchers: list[dict[int, list[int]]] = []  # searches are told of rows that come apart: place → new rows
        self._free = NIL
        self.used = 0

    def __len__(self) -> int:
        """Rows that exist, free ones too."""
        return len(self.place)

    def new(
        self,
        place: int,
        hop: int,
        due: float,
        expires: float,
        recipients: int,
        lane: int = 0,
        priority: int = 0,
        size: int = 0,
    ) -> int:
        """A row that is in no chain yet."""
        self.used += 1
        row = self._free
        if row == NIL:
            row = len(self.place)
            self.place.append(place)
            self.told.append(0)
            self.due.append(due)
            self.after.append(NIL)
            self.hop.append(hop)
            self.expires.append(int(expires))
            self.size.append(min(size, NIL))
            self.recipients.append(recipients)
            self.attempts.append(0)
            self.lane.append(lane)
            self.priority.append(priority)
            self.flags.append(0)
            return row
        self._free = self.after[row]
        self.place[row] = place
        self.told[row] = 0
        self.due[row] = due
        self.after[row] = NIL
        self.hop[row] = hop
        self.expires[row] = int(expires)
        self.size[row] = min(size, NIL)
        self.recipients[row] = recipients
        self.attempts[row] = 0
        self.lane[row] = lane
        self.priority[row] = priority
        self.flags[row] = 0
        return row

    def free(self, row: int) -> bool:
        """The row's recipients are settled; True when it was its message's last row. The row is in no chain."""
        place = self.place[row]
        self.subset.pop(row, None)
        self.flags[row] = GONE
        self.expires[row] = NEVER
        self.after[row] = self._free
        self._free = row
        self.used -= 1
        if place in self.shared:
            self.shared[place] -= 1
            if self.shared[place] > 1:
                return False
            del self.shared[place]
            return False
        return True

    def share(self, place: int, more: int) -> None:
        """`more` rows were added to a message that has rows."""
        self.shared[place] = self.shared.get(place, 1) + more

    def like(self, row: int, recipients: tuple[int, ...]) -> int:
        """A second row of the same message and next hop, for some of the recipients of `row`."""
        twin = self.new(
            self.place[row],
            self.hop[row],
            self.due[row],
            self.expires[row],
            len(recipients),
            self.lane[row],
            self.priority[row],
            self.size[row],
        )
        self.subset[twin] = recipients
        for told in self.watchers:
            told.setdefault(self.place[row], []).append(twin)
        self.attempts[twin] = self.attempts[row]
        self.told[twin] = self.told[row]
        self.flags[twin] = self.flags[row] & STOPPED
        self.share(self.place[row], 1)
        return twin

    def restore(self, free: int, used: int) -> None:
        """At a start: the first free row, and how many rows are used."""
        self._free, self.used = free, used

    def live(self) -> Iterator[int]:
        """Every queued row, in no order; an explicit scan."""
        flags = self.flags
        return (row for row in range(len(flags)) if not flags[row] & GONE)
