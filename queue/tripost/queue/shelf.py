"""the spool's files, for whoever reads messages

Keeps the segments open that are read. A process that does not own the spool may
have one too: what it asks for is pinned by a lease.

Fails    SpoolError where a record or file that must be there cannot be read.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from tripost.queue import records
from tripost.queue.body import BodyReader
from tripost.queue.entries import Acceptance, message_of
from tripost.queue.errors import SpoolError
from tripost.queue.files import Files, Handle
from tripost.queue.log import RunSync, translate
from tripost.queue.rows import offset_of, segment_of
from tripost.queue.segment import segment_name

T = TypeVar("T")
RECORD_READ = 4096  # one read takes in most records whole
OPEN_SEGMENTS = 64  # descriptors kept for reading


class _Reader:
    """An open segment; it is closed when nobody reads in it any more."""

    __slots__ = ("closing", "handle", "key", "users")

    def __init__(self, key: bytes, handle: Handle) -> None:
        self.key = key
        self.handle = handle
        self.users = 0
        self.closing = False

    def close(self) -> None:
        self.closing = True
        if not self.users:
            self.handle.close()


class Shelf:
    """The folder of one queue."""

    def __init__(self, files: Files, folder: str, run_sync: RunSync) -> None:
        self._files = files
        self._log_folder = os.path.join(folder, "log")
        self._bodies = os.path.join(folder, "bodies")
        self._run_sync = run_sync
        self._readers: dict[int, _Reader] = {}

    async def read(self, place: int) -> Acceptance:
        """The message at `place`. Raises SpoolError."""
        kind, payload = await self.record(place)
        message = message_of(kind, payload)
        if message is None:
            raise SpoolError(f"{segment_name(segment_of(place))}: no message at {offset_of(place)}")
        return message

    async def record(self, place: int) -> tuple[int, bytes]:
        """Type and payload of a record: at once where the system has it in memory. Raises SpoolError."""
        segment, offset = segment_of(place), offset_of(place)
        try:
            reader = self._reader(segment)
            data = reader.handle.read_now(offset, RECORD_READ)
            if data is not None and (length := records.length_at(data)) > RECORD_READ:
                data = reader.handle.read_now(offset, length)
            if data is None:
                data = await self.in_thread(segment, lambda _, handle: read_record(handle, offset))
        except OSError as wrong:
            raise translate(wrong) from wrong
        good = records.decode_at(reader.key, data, 0, offset)
        if good is None:
            raise SpoolError(f"{segment_name(segment)}: the record at {offset} is damaged")
        return good.kind, good.payload

    async def in_thread(self, segment: int, work: Callable[[bytes, Handle], T]) -> T:
        """`work(key, handle)` on an open segment, in a worker thread. Raises OSError, SpoolError."""
        reader = self._reader(segment)
        reader.users += 1
        try:
            found: T = await self._run_sync(partial(work, reader.key, reader.handle))
        finally:
            reader.users -= 1
            if reader.closing and not reader.users:
                reader.handle.close()
        return found

    def _reader(self, segment: int) -> _Reader:
        found = self._readers.get(segment)
        if found is None:
            if len(self._readers) >= OPEN_SEGMENTS:
                self._forget(next(iter(self._readers)))
            handle = self._files.open(os.path.join(self._log_folder, segment_name(segment)))
            key = records.segment_key(handle.read_at(0, records.SEGMENT_HEADER))
            if key is None:
                handle.close()
                raise SpoolError(f"{segment_name(segment)} has lost its header")
            found = self._readers[segment] = _Reader(key, handle)
        return found

    def _forget(self, segment: int) -> None:
        if segment in self._readers:
            self._readers.pop(segment).close()

    def open_body(self, message: Acceptance) -> BodyReader:
        if not message.file:
            return BodyReader(message.body, None, len(message.body), self._run_sync)
        try:
            handle = self._files.open(os.path.join(self._bodies, message.file))
            return BodyReader(b"", handle, handle.size(), self._run_sync)
        except OSError as wrong:
            raise translate(wrong) from wrong

    def close(self) -> None:
        """Every segment; what is asked for later is opened again."""
        for segment in list(self._readers):
            self._forget(segment)


def read_record(handle: Handle, offset: int) -> bytes:
    data = handle.read_at(offset, RECORD_READ)
    length = records.length_at(data)
    return data if length <= len(data) else handle.read_at(offset, length)
