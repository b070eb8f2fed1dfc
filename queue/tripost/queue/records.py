"""framed records

A record proves itself: a marker, its type, its length, a checksum over header
and payload. The checksum is keyed by the segment's random key and the record's
offset, so bytes inside a body can never pass for a record.

Layout   little-endian: marker u16, type u8, version u8, length u32, checksum
         u32 (CRC-32 of key ‖ offset u64 ‖ first 8 header octets ‖ payload),
         payload, zero padding to 8 octets. A segment begins with 8 octets of
         magic, 16 of key, and a stamp: the writer u16, 0 u16, its run u32.
States   a scan yields Good records and Damaged spans; a span that reaches the
         end of the data is a torn tail, which a crash leaves and nobody owes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

MAGIC = b"TPOST\x00\x004"
OLDER = (b"TPOST\x00\x003",)  # had one writer, so that its stamp is all zeros
KEY_SIZE = 16
SEGMENT_HEADER = 32
ALIGN = 8
_HEAD = struct.Struct("<HBBI")
_SUM = struct.Struct("<I")
_STAMP = struct.Struct("<HHI")
HEAD_SIZE = _HEAD.size + _SUM.size
MARKER = 0xD17E
VERSION = 1


class Good(NamedTuple):
    kind: int
    payload: bytes
    offset: int


class Damaged(NamedTuple):
    """[start, end) could not be read; `torn` when nothing good follows it."""

    start: int
    end: int
    torn: bool


class Stamp(NamedTuple):
    """Who wrote a segment: `writer` 0 is the queue's manager, n the nth ingress process; `run` tells the processes
    apart that were that one after the other."""

    writer: int
    run: int


MANAGER = Stamp(0, 0)


def segment_header(key: bytes, stamp: Stamp = MANAGER) -> bytes:
    return MAGIC + key + _STAMP.pack(stamp.writer, 0, stamp.run)


def segment_key(head: bytes) -> bytes | None:
    """The key of a segment, None when these octets do not begin one."""
    known = head.startswith((MAGIC, *OLDER)) and len(head) >= SEGMENT_HEADER
    return head[len(MAGIC) : len(MAGIC) + KEY_SIZE] if known else None


def segment_stamp(head: bytes) -> Stamp:
    """Of a segment that has a key."""
    writer, _, run = _STAMP.unpack_from(head, len(MAGIC) + KEY_SIZE)
    return Stamp(writer, run)


def cut_off(head: bytes) -> bool:
    """Not a whole header, but the beginning of one: a crash came while the segment was being made."""
    return not head.strip(b"\0") or any(one.startswith(head[: len(one)]) for one in (MAGIC, *OLDER))


def _checksum(key: bytes, offset: int, head: bytes, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(head, zlib.crc32(offset.to_bytes(8, "little"), zlib.crc32(key))))


def encode(key: bytes, offset: int, kind: int, payload: bytes) -> bytes:
    """The record's octets as they stand at `offset` of the segment."""
    head = _HEAD.pack(MARKER, kind, VERSION, len(payload))
    whole = head + _SUM.pack(_checksum(key, offset, head, payload)) + payload
    return whole + b"\0" * (-len(whole) % ALIGN)


_OFFSET_AND_HEAD = struct.Struct("<QHBBI")
_ZEROS = [b"\0" * (-size % ALIGN) for size in range(ALIGN)]


def encode_many(key: bytes, offset: int, items: Sequence[tuple[int, bytes]]) -> tuple[bytes, list[int], int]:
    """(octets, offsets, end) of records (type, payload) that follow each other; as `encode`, for the hot path."""
    crc, pack, pack_sum = zlib.crc32, _OFFSET_AND_HEAD.pack, _SUM.pack
    of_key = crc(key)
    parts: list[bytes] = []
    offsets: list[int] = []
    for kind, payload in items:
        length = len(payload)
        head = pack(offset, MARKER, kind, VERSION, length)
        parts += (head[8:], pack_sum(crc(payload, crc(head, of_key))), payload, _ZEROS[(HEAD_SIZE + length) % ALIGN])
        offsets.append(offset)
        offset += (HEAD_SIZE + length + ALIGN - 1) & -ALIGN
    return b"".join(parts), offsets, offset


def decode_at(key: bytes, data: bytes, at: int, base: int = 0) -> Good | None:
    """The record at data[at:] (offset base+at in its segment), None if it does not prove itself."""
    if at + HEAD_SIZE > len(data):
        return None
    marker, kind, version, length = _HEAD.unpack_from(data, at)
    if marker != MARKER or version != VERSION or at + HEAD_SIZE + length > len(data):
        return None
    payload = data[at + HEAD_SIZE : at + HEAD_SIZE + length]
    (wanted,) = _SUM.unpack_from(data, at + _HEAD.size)
    if _checksum(key, base + at, data[at : at + _HEAD.size], payload) != wanted:
        return None
    return Good(kind, payload, base + at)


def scan(key: bytes, data: bytes, base: int = 0) -> Iterator[Good | Damaged]:
    """Every record of a whole segment, or of what stands in it from the offset `base`, and the spans between that are
    none."""
    at = 0 if base else SEGMENT_HEADER
    bad: int | None = None
    marker = struct.pack("<H", MARKER)
    while at + HEAD_SIZE <= len(data):
        good = decode_at(key, data, at, base)
        if good is None:
            bad = at if bad is None else bad
            at = _next_candidate(data, marker, at + ALIGN)
            continue
        if bad is not None:
            yield Damaged(base + bad, base + at, False)
            bad = None
        yield good
        at += octets(good.payload)
    if bad is not None and data[bad:].strip(b"\0"):
        yield Damaged(base + bad, base + len(data), True)


def octets(payload: bytes) -> int:
    """That a record with this payload takes, its padding too."""
    return -(-(HEAD_SIZE + len(payload)) // ALIGN) * ALIGN


def _next_candidate(data: bytes, marker: bytes, at: int) -> int:
    while (found := data.find(marker, at)) >= 0:
        if found % ALIGN == 0:
            return found
        at = found + 1
    return len(data)


def length_at(data: bytes) -> int:
    """How many octets the record that begins at data[0:] claims to have."""
    return int(HEAD_SIZE + _HEAD.unpack_from(data)[3]) if len(data) >= HEAD_SIZE else HEAD_SIZE
