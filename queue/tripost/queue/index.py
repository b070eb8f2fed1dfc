"""what one segment says, in columns

Collected while the segment is written, and put at its end when it is sealed, so
that a start reads a few dozen octets per message instead of every body.

Layout   one record of type INDEX whose payload is a msgpack array: the fields
         of `_Form`, columns as little-endian octets; then the trailer, 16
         octets: TRAILER_MAGIC and the record's offset (u64). A segment whose
         trailer or index does not prove itself is read record by record.
Order    rows stand in the order of their records. `later` and `single` are
         applied in the order of their offsets, `done` and `moved` after them.
"""

from __future__ import annotations

import struct
import sys
from array import array

import msgspec

from tripost.queue.rows import IN_SETTLEMENT, NIL

TRAILER_MAGIC = b"TPINDEX3"
TRAILER = struct.Struct("<8sQ")
ALIGN_BITS = 3  # offsets are kept in units of 8 octets


class _Form(msgspec.Struct, array_like=True):
    """Counts of octets per item: see SegmentIndex."""

    hops: list[str]
    at: bytes
    kind: bytes
    hop: bytes
    due: bytes
    expires: bytes
    size: bytes
    recipients: bytes
    lane: bytes
    priority: bytes
    done: bytes
    moved: bytes
    later: bytes
    later_at: bytes
    later_due: bytes
    later_attempts: bytes
    single: bytes
    files: dict[int, str]
    shared: dict[int, int]
    records: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Form)
_NUMBERS: dict[str, str] = {
    "at": "I",
    "kind": "B",
    "hop": "I",
    "due": "d",
    "expires": "I",
    "size": "I",
    "recipients": "H",
    "lane": "B",
    "priority": "b",
    "done": "Q",
    "moved": "Q",
    "later": "Q",
    "later_at": "I",
    "later_due": "d",
    "later_attempts": "H",
    "single": "I",
}


class SegmentIndex:
    """Rows: `at`, `kind` (IN_SETTLEMENT), `hop` (place in `hops`), `due`, `expires`, `size`, `recipients`, `lane`,
    `priority`.

    `done`: places of messages that ended whole; `moved`: old places of messages that a MOVE record brought here;
    `later…`: messages put off whole; `single`: offsets of records to be read one by one; `files`: offset → body file;
    `shared`: offset → rows, of messages with more than one; `records`: rows' records, for a segment's fullness.
    """

    def __init__(self) -> None:
        self.hops: list[str] = []
        self.at = array("I")
        self.kind = array("B")
        self.hop = array("I")
        self.due = array("d")
        self.expires = array("I")
        self.size = array("I")
        self.recipients = array("H")
        self.lane = array("B")
        self.priority = array("b")
        self.done = array("Q")
        self.moved = array("Q")
        self.later = array("Q")
        self.later_at = array("I")
        self.later_due = array("d")
        self.later_attempts = array("H")
        self.single = array("I")
        self.files: dict[int, str] = {}
        self.shared: dict[int, int] = {}
        self.records = 0
        self._places = array("I")  # number of a hop in the schedule → its place in `hops`, plus 1

    def add_row(
        self,
        offset: int,
        hop: int,
        name: str,
        due: float,
        expires: float,
        recipients: int,
        lane: int,
        priority: int,
        size: int,
        *,
        in_settlement: bool = False,
    ) -> None:
        places = self._places
        place = places[hop] if hop < len(places) else 0
        if not place or self.hops[place - 1] != name:  # numbers of forgotten hops are used again
            place = self._place(hop, name)
        self.at.append(offset >> ALIGN_BITS)
        self.kind.append(IN_SETTLEMENT if in_settlement else 0)
        self.hop.append(place - 1)
        self.due.append(due)
        self.expires.append(int(expires))
        self.size.append(min(size, NIL))
        self.recipients.append(recipients)
        self.lane.append(lane)
        self.priority.append(priority)

    def _place(self, hop: int, name: str) -> int:
        """Not a dictionary, and the name is the schedule's own: with mail to 100,000 destinations this is what a
        segment costs for each of them."""
        missing = hop + 1 - len(self._places)
        if missing > 0:
            self._places.frombytes(bytes(self._places.itemsize * max(missing, len(self._places))))
        self.hops.append(name)
        self._places[hop] = len(self.hops)
        return len(self.hops)

    def add_later(self, place: int, offset: int, due: float, attempts: int) -> None:
        self.later.append(place)
        self.later_at.append(offset >> ALIGN_BITS)
        self.later_due.append(due)
        self.later_attempts.append(attempts)

    def add_single(self, offset: int) -> None:
        self.single.append(offset >> ALIGN_BITS)

    def encode(self) -> bytes:
        """The payload of the INDEX record."""
        columns = {name: _octets(getattr(self, name)) for name in _NUMBERS}
        return _encode(_Form(hops=self.hops, files=self.files, shared=self.shared, records=self.records, **columns))

    @classmethod
    def decode(cls, payload: bytes) -> SegmentIndex:
        """Raises msgspec.DecodeError, ValueError where this is no such payload."""
        form = _decode.decode(payload)
        made = cls()
        made.hops, made.files, made.shared, made.records = form.hops, form.files, form.shared, form.records
        for name, code in _NUMBERS.items():
            column: array[int] = array(code)
            column.frombytes(getattr(form, name))
            if sys.byteorder == "big":
                column.byteswap()
            setattr(made, name, column)
        columns = ("at", "kind", "hop", "due", "expires", "size", "recipients", "lane")
        rows = {len(getattr(made, name)) for name in columns}
        later = {len(made.later), len(made.later_at), len(made.later_due), len(made.later_attempts)}
        if len(rows | {len(made.priority)}) != 1 or len(later) != 1 or max(made.hop, default=-1) >= len(made.hops):
            raise ValueError("columns of unequal length")
        return made


def _octets(column: array[int] | array[float]) -> bytes:
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()


def trailer(offset: int) -> bytes:
    return TRAILER.pack(TRAILER_MAGIC, offset)


def index_offset(tail: bytes) -> int | None:
    """Where the index begins, from a sealed segment's last octets."""
    if len(tail) != TRAILER.size:
        return None
    magic, offset = TRAILER.unpack(tail)
    return int(offset) if magic == TRAILER_MAGIC else None
