"""what an operator did to queued mail: one record each

An action names its targets one by one, as they were when it was decided, so
that mail that comes later is not touched and a start needs no search. Pure.

Promise  one record holds all of an action: after a crash it is wholly there, or
         wholly absent, and the note in it (the audit trail) says which.
States   of an action: `applied`; or, where it ends messages, `pending` until its
         grace time is over, then `done`. `undone` by another action before that.
Bounds   TARGETS messages; PARTS of which only some recipients are meant.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterator

import msgspec

HOLD, RELEASE, RETRY, REROUTE, PRIORITY = "hold", "release", "retry", "reroute", "priority"
BOUNCE, DELETE, EXPIRE, UNDO = "bounce", "delete", "expire", "undo"
DOOM, SPARE = "doom", "spare"  # what the verbs that end messages do at first, and what undoes it
DOES = {BOUNCE: DOOM, DELETE: DOOM, EXPIRE: DOOM}  # verb → what it does to a recipient; others do what they are called
REVERSE = {HOLD: RELEASE, RELEASE: HOLD, REROUTE: REROUTE, PRIORITY: PRIORITY, DOOM: SPARE}
APPLIED, PENDING, DONE, UNDONE = "applied", "pending", "done", "undone"
NOTE = "action/"  # + id: names of notes
TARGETS = 4_000_000
PARTS = 100_000
TEXT_LIMIT = 1000  # octets of a filter or a reason
KEPT = 200  # actions that are remembered when they are over


class Group(msgspec.Struct, frozen=True, array_like=True):
    """`places`: of messages that are meant whole (u64, little-endian, rising); `parts`: place → recipient ids. `before`
    and `after` are what the verb changes: a next hop, a priority; "" where there is nothing to say."""

    before: str
    after: str
    places: bytes
    parts: dict[int, tuple[int, ...]]


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """The audit trail's entry. `filter` is JSON; `until`: undo works before (wall-clock seconds); `to`: the next hop,
    the priority, the action that was undone."""

    verb: str
    who: str
    at: float
    until: float
    filter: str
    reason: str
    to: str
    messages: int
    recipients: int
    state: str
    undone_by: str = ""


class Action(msgspec.Struct, frozen=True, array_like=True):
    """The record."""

    id: str
    kept: Kept
    does: str
    groups: tuple[Group, ...]

    def __len__(self) -> int:
        """Messages that are meant, whole or in part."""
        return sum(len(group.places) // 8 + len(group.parts) for group in self.groups)

    def names(self, place: int) -> bool:
        """The message is meant, whole or in part."""
        return any(place in group.parts or within(group.places, place) for group in self.groups)


_encode = msgspec.msgpack.Encoder().encode
encode_kept = _encode
decode_action = msgspec.msgpack.Decoder(Action).decode
decode_kept = msgspec.msgpack.Decoder(Kept).decode


def encode_action(action: Action) -> bytes:
    return _encode(action)


def octets(places: array[int]) -> bytes:
    """As `Group.places`; the array is "Q", rising."""
    if sys.byteorder == "big":
        places = places[:]
        places.byteswap()
    return places.tobytes()


def numbers(data: bytes) -> array[int]:
    places: array[int] = array("Q")
    places.frombytes(data)
    if sys.byteorder == "big":
        places.byteswap()
    return places


def within(data: bytes, place: int) -> bool:
    """Is the place among these? Without unpacking them."""
    count = len(data) // 8
    at = bisect_left(range(count), place, key=lambda n: int.from_bytes(data[8 * n : 8 * n + 8], "little"))
    return at < count and int.from_bytes(data[8 * at : 8 * at + 8], "little") == place


def next_id(known: Iterator[str]) -> str:
    """Ids are numbers that people can type."""
    return str(1 + max((int(one) for one in known if one.isdigit()), default=0))
