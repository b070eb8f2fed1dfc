"""reading a message's content for a host

Fails    SpoolError.
"""

from __future__ import annotations

import trio

from tripost.delivery.demands import Content
from tripost.delivery.dsn import seven_bit
from tripost.delivery.forwarding import OpenReader
from tripost.queue.body import BodyReader
from tripost.queue.errors import SpoolError
from tripost.queue.message import Envelope

READ = 65_536  # octets at a time


async def last_chunk(reader: BodyReader) -> bytes:
    """Command and octets. Raises SpoolError when the content is not as long as it was."""
    parts, left = [b"BDAT %d LAST\r\n" % reader.size], reader.size
    while left:
        data = await reader.read(left)
        if not data:
            raise SpoolError("a content is shorter than its record says")
        parts.append(data)
        left -= len(data)
    return b"".join(parts)


async def for_seven_bits(envelope: Envelope, open_reader: OpenReader) -> OpenReader:
    """What a host without 8BITMIME is sent instead of 8-bit text: a report of ours in a shorter form; all else as it
    is, which will fail."""
    if envelope.sender:
        return open_reader
    reader = await open_reader()
    try:
        parts = [await reader.read(READ)]
        if f'boundary="=_{envelope.id}"'.encode() not in parts[0]:
            return open_reader
        while data := await reader.read(READ):
            parts.append(data)
    finally:
        reader.close()
    shorter = seven_bit(b"".join(parts), envelope.id)
    if shorter is None:
        return open_reader
    content = shorter

    async def opened() -> BodyReader:
        return BodyReader(content, None, len(content), trio.to_thread.run_sync)

    return opened


async def look(open_reader: OpenReader) -> Content:
    """Read all of the content, for what only its octets can tell."""
    reader = await open_reader()
    try:
        header_ascii = all_ascii = in_header = True
        tail = b""
        while data := await reader.read(READ):
            if in_header:
                whole = tail + data
                end = whole.find(b"\r\n\r\n")
                header_ascii = header_ascii and (whole if end < 0 else whole[:end]).isascii()
                in_header, tail = end < 0, whole[-3:]
            all_ascii = all_ascii and data.isascii()
        return Content(reader.size, header_ascii, all_ascii)
    finally:
        reader.close()
