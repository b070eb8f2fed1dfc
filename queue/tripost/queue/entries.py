"""the records of the log

What stands in a segment, as msgspec arrays. All of it is the spool's format:
fields are added at the end, with a default.
"""

from __future__ import annotations

import msgspec

from tripost.queue.message import Envelope

VOID = 1  # payload: (segment number, first voided offset)
ACCEPT = 2  # payload: Acceptance
SETTLE = 3  # payload: Settlement
MOVE = 4  # payload: Move
INDEX = 5  # payload: see tripost.queue.index
ACTION = 6  # payload: see tripost.queue.actions
NOTE = 7  # payload: name → value, b"" for what is no more; see tripost.queue.notes
SNAPSHOT = 8  # payload: name → value, all there are


class Acceptance(msgspec.Struct, frozen=True, array_like=True):
    """A message; its content is `body`, or the file named `file` in the bodies folder."""

    envelope: Envelope
    body: bytes
    file: str = ""
    check: int = 0  # CRC-32 of the file's octets


class Later(msgspec.Struct, frozen=True, array_like=True):
    """A recipient that stays queued: its finished attempts, its next due time (wall seconds), the last reply."""

    recipient: int
    attempts: int
    due: float
    reply: str = ""


class Settlement(msgspec.Struct, frozen=True, array_like=True):
    """What became of some recipients of the message at `place`; the DSN that this causes is part of it."""

    place: int
    done: tuple[int, ...]
    later: tuple[Later, ...]
    report: Acceptance | None = None


class Left(msgspec.Struct, frozen=True, array_like=True):
    """As Later, of a message that moves: what an operator made of the recipient goes with it."""

    recipient: int
    attempts: int
    due: float
    reply: str = ""
    held: bool = False
    priority: int = 0


class Move(msgspec.Struct, frozen=True, array_like=True):
    """The message stood at `place` and stands here now; `left` has each recipient that is still queued, the envelope
    the next hops as they are now."""

    place: int
    message: Acceptance
    left: tuple[Left, ...]


encode = msgspec.msgpack.Encoder().encode
decode_void = msgspec.msgpack.Decoder(tuple[int, int]).decode
decode_accept = msgspec.msgpack.Decoder(Acceptance).decode
decode_settle = msgspec.msgpack.Decoder(Settlement).decode
decode_move = msgspec.msgpack.Decoder(Move).decode


def message_of(kind: int, payload: bytes) -> Acceptance | None:
    """The message that a record holds. Raises msgspec.DecodeError."""
    if kind == ACCEPT:
        return decode_accept(payload)
    if kind == SETTLE:
        return decode_settle(payload).report
    return decode_move(payload).message if kind == MOVE else None
