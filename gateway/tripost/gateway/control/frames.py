"""what goes over the control socket

Each side sends frames: four octets of length, big-endian, and so many octets of
JSON. One request, then rows, then one end or one error, then the connection is
closed.

Fails    `FrameError` for a frame that is larger than its limit.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

VERSION = 1
REQUEST_LIMIT = 64 << 10
ANSWER_LIMIT = 1 << 20
_HEAD = struct.Struct(">I")


class FrameError(Exception):
    """One line."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """`arguments` are the verb's."""

    version: int
    verb: str
    arguments: dict[str, Any] = {}


class Row(msgspec.Struct, frozen=True, tag="row", tag_field="frame"):
    """One piece of the answer."""

    row: dict[str, Any]


class End(msgspec.Struct, frozen=True, tag="end", tag_field="frame"):
    """That was all; `sum` says what was done."""

    sum: dict[str, Any]


class Error(msgspec.Struct, frozen=True, tag="error", tag_field="frame"):
    """Nothing more comes; `exit` is the command's exit code."""

    text: str
    exit: int = 1


Answer = Row | End | Error

decode_request = msgspec.json.Decoder(Request).decode
decode_answer = msgspec.json.Decoder(Row | End | Error).decode
_encode = msgspec.json.Encoder().encode


def frame(what: Request | Answer) -> bytes:
    payload = _encode(what)
    return _HEAD.pack(len(payload)) + payload


def piece(data: bytes) -> bytes:
    """A frame of octets, behind a request that takes some; an empty one ends them."""
    return _HEAD.pack(len(data)) + data


class Reader:
    """Octets in, payloads out."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that are whole now. Raises FrameError."""
        self._data += data
        found: list[bytes] = []
        while len(self._data) >= _HEAD.size:
            (size,) = _HEAD.unpack_from(self._data)
            if size > self._limit:
                raise FrameError(f"a frame of {size} octets; {self._limit} are allowed")
            if len(self._data) < _HEAD.size + size:
                break
            found.append(bytes(self._data[_HEAD.size : _HEAD.size + size]))
            del self._data[: _HEAD.size + size]
        return found
