"""messages between our own processes, as octets

Layout   a frame: four octets of length, little-endian, and so many octets of
         MessagePack: [number, message]. The number is 0 for what wants no answer,
         N > 0 for a request, -N for the answer to it. A frame of length 0 is a
         heartbeat. Messages are tagged msgspec Structs.
Fails    `FrameError` for a frame that is longer than its limit, or holds no such
         message: the peer is not what it should be, and nothing more of it is read.
Why      a frame for each message and no frame of many: a full buffer is known to the
         octet, and one message never waits for the end of another's batch.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

LIMIT = 16 << 20  # octets of one message
HEAD = 4
BEAT = bytes(HEAD)

In = TypeVar("In")

_HEAD = struct.Struct("<I")
_pack, _unpack = _HEAD.pack, _HEAD.unpack_from
_encode = msgspec.msgpack.Encoder().encode


class FrameError(Exception):
    """One line."""


def frame(number: int, message: msgspec.Struct) -> bytes:
    """Raises FrameError."""
    payload = _encode((number, message))
    if len(payload) > LIMIT:
        raise FrameError(f"a message of {len(payload)} octets; {LIMIT} are allowed")
    return _pack(len(payload)) + payload


def decoder(kinds: Any) -> Callable[[bytes | memoryview], tuple[int, Any]]:
    """What `Reader` decodes with: `kinds` is a Struct or a union of tagged ones."""
    return msgspec.msgpack.Decoder(tuple[int, kinds]).decode


class Reader(Generic[In]):
    """Octets in, (number, message) out. `beats` counts heartbeats."""

    def __init__(self, decode: Callable[[bytes | memoryview], tuple[int, In]], limit: int = LIMIT) -> None:
        self._decode = decode
        self._limit = limit
        self._rest = bytearray()  # the beginning of a frame
        self._wanted = HEAD  # octets that `_rest` must have before anything can be done with it
        self.beats = 0

    def feed(self, data: bytes) -> list[tuple[int, In]]:
        """The messages that are whole now, in their order. Raises FrameError; what came before in the same octets is
        lost with it."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._wanted:
                return []
            data = bytes(self._rest)
            self._rest.clear()
        found: list[tuple[int, In]] = []
        at, end, view = 0, len(data), memoryview(data)
        self._wanted = HEAD
        while at + HEAD <= end:
            (length,) = _unpack(data, at)
            if length > self._limit:
                raise FrameError(f"a frame of {length} octets; {self._limit} are allowed")
            after = at + HEAD + length
            if after > end:
                self._wanted = HEAD + length
                break
            if length:
                found.append(self._message(view[at + HEAD : after]))
            else:
                self.beats += 1
            at = after
        if at < end:
            self._rest += view[at:]
        return found

    def _message(self, payload: memoryview) -> tuple[int, In]:
        try:
            return self._decode(payload)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as wrong:
            raise FrameError(f"no message: {wrong}") from wrong
