"""a message's content on its way in and out

Small bodies wait in memory for the record that will hold them; larger ones go
chunk by chunk into a file of their own, which is synced, with its folder
entry, before the record that names it is written. A body that is never
accepted is removed by `discard`, or after a crash by the next start.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable

import trio

from tripost.queue.files import Files, Handle
from tripost.queue.log import RunSync, translate

PIECE = 256 << 10  # octets that are written to a file at once
SYNC_EVERY = 8 << 20  # octets; the disk has never much to do at once, so that a small message's sync waits for little


class Body:
    """Being written. `size` counts octets so far, `waiting` those of them that are in memory; `check` is the CRC-32 of
    those in the file."""

    def __init__(
        self, files: Files, folder: str, new_name: Callable[[], str], inline: int, run_sync: RunSync
    ) -> None:
        self._files = files
        self._folder = folder
        self._new_name = new_name
        self._name = ""
        self._inline = inline
        self._run_sync = run_sync
        self._chunks: list[bytes] = []
        self.waiting = 0
        self._unsynced = 0
        self._handle: Handle | None = None
        self.size = 0
        self.check = 0

    async def write(self, data: bytes) -> None:
        """Take some content; raises SpoolError/SpoolFull."""
        self._chunks.append(data)
        self.size += len(data)
        self.waiting += len(data)
        if self.waiting > (self._inline if self._handle is None else PIECE):
            await self.spill()

    @property
    def in_memory(self) -> bool:
        """All of it waits for the record that will hold it."""
        return self._handle is None

    async def spill(self) -> None:
        """Into a file of its own now, however small. Raises SpoolError/SpoolFull."""
        if self._chunks:
            self._name = self._name or self._new_name()
            await self._hop(self._spill)

    async def finish(self) -> tuple[bytes, str]:
        """(content, "") of a small body, (b"", file name) of one that is now durable in its own file."""
        if self._handle is None:
            return b"".join(self._chunks), ""
        if self.size <= self._inline:  # it went to a file for want of memory only: a record is cheaper than two syncs
            await self._hop(self._take_back)
            return b"".join(self._chunks), ""
        await self._hop(self._sync)
        return b"", self._name

    async def discard(self) -> None:
        """Forget it; harmless after an accept that failed, and when called twice."""
        self._chunks.clear()
        self.waiting = 0
        if self._handle is not None:
            await self._hop(self._remove)

    def kept(self) -> None:
        """The record that names the file is durable: the file is the queue's now."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    async def _hop(self, work: Callable[[], None]) -> None:
        try:
            await self._run_sync(work)
        except OSError as wrong:
            raise translate(wrong) from wrong

    def _spill(self) -> None:
        if self._handle is None:
            self._handle = self._files.create(os.path.join(self._folder, self._name))
        data = b"".join(self._chunks)
        self._handle.write_at(self.size - len(data), data)
        self.check = zlib.crc32(data, self.check)
        self._chunks.clear()
        self.waiting = 0
        self._unsynced += len(data)
        if self._unsynced >= SYNC_EVERY:
            self._handle.sync()
            self._unsynced = 0

    def _take_back(self) -> None:
        assert self._handle is not None
        self._chunks.insert(0, self._handle.read_at(0, self.size - self.waiting))
        self._remove()

    def _sync(self) -> None:
        assert self._handle is not None
        if self._chunks:
            self._spill()
        self._handle.sync()
        self._files.sync_folder(self._folder)

    def _remove(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.close()
            self._files.unlink(os.path.join(self._folder, self._name))


class BodyReader:
    """Being read, from memory or from the message's file."""

    def __init__(self, data: bytes, handle: Handle | None, size: int, run_sync: RunSync) -> None:
        self._data = data
        self._handle = handle
        self._run_sync = run_sync
        self._at = 0
        self.size = size

    async def read(self, n: int = 65536) -> bytes:
        """The next octets, b"" at the end."""
        if self._handle is None:
            data = self._data[self._at : self._at + n]
        else:
            data = await self._from_file(self._handle, self._at, n)
        self._at += len(data)
        return data

    async def _from_file(self, handle: Handle, at: int, n: int) -> bytes:
        """At once where the system has it in memory, which it mostly has: the file was written just now."""
        found = handle.read_now(at, n)
        if found is not None:
            await trio.lowlevel.checkpoint()
            return found
        data: bytes = await self._run_sync(lambda: handle.read_at(at, n))
        return data

    def close(self) -> None:
        if self._handle is not None:
            self._handle.close()
            self._handle = None
