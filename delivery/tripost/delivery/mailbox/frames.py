"""records in a file that only grows: length, CRC-32, msgspec value

A frame that a crash cut off, and what stands behind it, is as if never written.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

_FRAME = struct.Struct("<II")
_encode = msgspec.msgpack.Encoder().encode


def frame(record: Any) -> bytes:
    payload = _encode(record)
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def frames(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Each whole payload, and where it ends."""
    at = 0
    while at + _FRAME.size <= len(data):
        size, check = _FRAME.unpack_from(data, at)
        payload = data[at + _FRAME.size : at + _FRAME.size + size]
        if len(payload) != size or zlib.crc32(payload) != check:
            return
        at += _FRAME.size + size
        yield payload, at


def numbers(kind: Literal["I", "Q"], data: bytes) -> list[int]:
    """A column of a record."""
    found: array[int] = array(kind)
    found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found.tolist()
