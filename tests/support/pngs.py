"""PNG pictures made small: 256 colours are enough for a page without gradients"""

from __future__ import annotations

import struct
import zlib
from collections import Counter

HEAD = b"\x89PNG\r\n\x1a\n"
COLOURS = 256
STEPS = (32, 4)  # first one colour of each large cube, however rare it is, then of each small one


def compact(data: bytes) -> bytes:
    """The same picture with a palette; of 8-bit RGB or RGBA without interlacing, as browsers make them."""
    width, height, size, rows = _decoded(data)
    pixels = [[row[at : at + 3] for at in range(0, len(row), size)] for row in rows]
    counts = Counter(one for row in pixels for one in row)
    palette: dict[bytes, int] = {}
    for step in STEPS:
        cubes = {tuple(part // step for part in colour) for colour in palette}
        for colour, _ in counts.most_common():
            cube = tuple(part // step for part in colour)
            if len(palette) < COLOURS and cube not in cubes:
                cubes.add(cube)
                palette[colour] = len(palette)
    index = {colour: palette.get(colour, -1) for colour in counts}
    for colour, at in index.items():
        if at < 0:
            index[colour] = min(palette.items(), key=lambda one, colour=colour: _distance(one[0], colour))[1]
    body = b"".join(b"\0" + bytes([index[one] for one in row]) for row in pixels)
    head = struct.pack("!IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = (b"IHDR", head), (b"PLTE", b"".join(palette)), (b"IDAT", zlib.compress(body, 9)), (b"IEND", b"")
    return HEAD + b"".join(_chunk(name, part) for name, part in parts)


def _distance(one: bytes, other: bytes) -> int:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack("!I", len(data)) + name + data + struct.pack("!I", zlib.crc32(name + data))


def _decoded(data: bytes) -> tuple[int, int, int, list[bytes]]:
    """Width, height, octets of a pixel, rows."""
    assert data.startswith(HEAD)
    at, packed = len(HEAD), b""
    width = height = kind = 0
    while at < len(data):
        length, name = struct.unpack("!I4s", data[at : at + 8])
        part = data[at + 8 : at + 8 + length]
        if name == b"IHDR":
            width, height, depth, kind, _, _, interlaced = struct.unpack("!IIBBBBB", part)
            assert (depth, interlaced) == (8, 0)
            assert kind in (2, 6)
        elif name == b"IDAT":
            packed += part
        at += 12 + length
    size = 3 if kind == 2 else 4
    raw, line = zlib.decompress(packed), width * size + 1
    rows: list[bytes] = []
    before = bytes(width * size)
    for start in range(0, len(raw), line):
        before = _unfiltered(raw[start], raw[start + 1 : start + line], before, size)
        rows.append(before)
    return width, height, size, rows


def _unfiltered(kind: int, row: bytes, above: bytes, size: int) -> bytes:
    """One row (PNG, section 9)."""
    if kind == 0:
        return row
    if kind == 2:
        return bytes([(one + up) & 255 for one, up in zip(row, above, strict=True)])
    made = bytearray(row)
    for at in range(len(made)):
        left = made[at - size] if at >= size else 0
        corner = above[at - size] if at >= size else 0
        made[at] = (made[at] + _guess(kind, left, above[at], corner)) & 255
    return bytes(made)


def _guess(kind: int, left: int, up: int, corner: int) -> int:
    if kind == 1:
        return left
    if kind == 3:
        return (left + up) // 2
    near = left + up - corner
    distances = abs(near - left), abs(near - up), abs(near - corner)
    return (left, up, corner)[distances.index(min(distances))]
