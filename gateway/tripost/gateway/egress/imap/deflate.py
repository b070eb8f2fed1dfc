"""COMPRESS=DEFLATE (RFC 4978): a stream in a stream

Promise  one piece that comes in gives at most so many octets as were asked for; what
         is left of it waits. Nothing of a client's can make memory grow.
Fails    trio.BrokenResourceError when what comes is not deflated data.
"""

from __future__ import annotations

import zlib

import trio

READ = 16_384


class DeflateStream(trio.abc.Stream):
    """`early` is what was read behind the command already: it is compressed."""

    def __init__(self, stream: trio.abc.Stream, early: bytes = b"") -> None:
        self._stream = stream
        self._in = zlib.decompressobj(-zlib.MAX_WBITS)
        self._out = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS, 8)
        self._waiting = early

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        most = max_bytes or READ
        while True:
            if self._waiting:
                try:
                    data = self._in.decompress(self._waiting, most)
                except zlib.error as wrong:
                    raise trio.BrokenResourceError("not deflated data") from wrong
                self._waiting = self._in.unconsumed_tail
                if data:
                    await trio.lowlevel.checkpoint()
                    return data
                if self._in.eof:
                    return b""
            else:
                try:  # what was taken in already and had no room
                    data = self._in.decompress(b"", most)
                except zlib.error as wrong:
                    raise trio.BrokenResourceError("not deflated data") from wrong
                if data:
                    await trio.lowlevel.checkpoint()
                    return data
            self._waiting += await self._stream.receive_some(READ)
            if not self._waiting:
                return b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        packed = self._out.compress(data) + self._out.flush(zlib.Z_SYNC_FLUSH)
        await self._stream.send_all(packed)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()
