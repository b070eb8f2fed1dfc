"""which of a segment's messages hold some octets

Works in a thread, a block at a time: whoever waits for the interpreter gets it
soon. Of a record with an inline content only the envelope is looked at.

Bounds   BLOCK octets read and BATCH messages decoded in one go.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right

from tripost.queue import records
from tripost.queue.entries import Acceptance, message_of
from tripost.queue.files import Handle
from tripost.queue.rows import offset_of

BLOCK = 1 << 20
BATCH = 100
TAIL = b"\xa0\x00"  # how a message with inline content ends: no file, no checksum of one


class Places:
    """Queued messages of one segment. `offsets`: after `sort`, of each message; with the lowest bit of its place."""

    def __init__(self) -> None:
        self.offsets: array[int] = array("Q")
        self._rows: array[int] = array("I")
        self._sizes: array[int] = array("I")
        self._firsts: array[int] = array("I")  # of the rows of each message

    def add(self, place: int, row: int, size: int) -> None:
        self.offsets.append(place)
        self._rows.append(row)
        self._sizes.append(size)

    def sort(self) -> None:
        """In the order of their places, each once."""
        order = sorted(range(len(self.offsets)), key=self.offsets.__getitem__)
        places, sizes = self.offsets, self._sizes
        self._rows = array("I", [self._rows[one] for one in order])
        last = -1
        self.offsets, self._sizes = array("Q"), array("I")
        for number, one in enumerate(order):
            if places[one] != last:
                last = places[one]
                self.offsets.append(offset_of(last) | last & 1)
                self._sizes.append(sizes[one])
                self._firsts.append(number)
        self._firsts.append(len(order))

    def rows_of(self, number: int) -> list[int]:
        return list(self._rows[self._firsts[number] : self._firsts[number + 1]])

    def look(self, needle: bytes, first: int, key: bytes, handle: Handle) -> tuple[int, list[tuple[int, Acceptance]]]:
        """From message `first` on: (the first one not looked at, those that hold the needle and can be read)."""
        base, found = self.offsets[first] & ~1, list[tuple[int, Acceptance]]()
        data = handle.read_at(base, BLOCK)
        number, end = first, bisect_right(self.offsets, base + len(data) - records.HEAD_SIZE + 1)
        while number < max(end, first + 1) and len(found) < BATCH:
            at = (self.offsets[number] & ~1) - base
            length = records.length_at(data[at : at + records.HEAD_SIZE])
            if at + length > len(data):
                if number > first:
                    break
                data = handle.read_at(base, length)  # one that is larger than a block
            if not needle or needle in _envelope(data, at, at + length, self._sizes[number]).lower():
                message = _message(key, data, at, base)
                if message is not None:
                    found.append((number, message))
            number += 1
        return number, found


def _envelope(data: bytes, start: int, end: int, size: int) -> bytes:
    """Of a record: what stands before its inline content, or all of it where there is none, or something behind it."""
    at = end - len(TAIL) - size
    if data[end - len(TAIL) : end] == TAIL and start < at and data[start:at].endswith(_binary(size)):
        return data[start:at]
    return data[start:end]


def _binary(size: int) -> bytes:
    """How msgpack begins so many octets."""
    if size < 1 << 8:
        return b"\xc4" + size.to_bytes(1, "big")
    return b"\xc5" + size.to_bytes(2, "big") if size < 1 << 16 else b"\xc6" + size.to_bytes(4, "big")


def _message(key: bytes, data: bytes, at: int, base: int) -> Acceptance | None:
    """None where there is none (any more)."""
    good = records.decode_at(key, data, at, base)
    return message_of(good.kind, good.payload) if good is not None else None
