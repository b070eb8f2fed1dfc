"""the spool's files: reading messages back, letting them go

Knows where every live message stands, keeps the segments open that are read,
and removes what nobody is owed any more.

Promise  A segment goes only when no live message stands in it and every older
         segment is gone, each removal durable before the next: what a segment
         says about messages elsewhere, it says about older ones, so a crash
         can never bring back a message without its settlement.
Fails    SpoolError where a record or file that must be there cannot be read.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from tripost.queue import records
from tripost.queue.body import Body, BodyReader
from tripost.queue.errors import SpoolError
from tripost.queue.files import Files, Handle
from tripost.queue.log import RunSync, segment_name, translate
from tripost.queue.recovery import Acceptance, Entry, Recovered, read_acceptance

RECORD_READ = 64 * 1024  # one read takes in most records whole
OPEN_SEGMENTS = 64  # descriptors kept for reading


class Store:
    """The folder of one queue; `trouble(where, reason)` reports what an operator should look at."""

    def __init__(self, files: Files, folder: str, run_sync: RunSync, trouble: Callable[[str, str], None]) -> None:
        self._files = files
        self._log_folder = os.path.join(folder, "log")
        self._bodies = os.path.join(folder, "bodies")
        self._run_sync = run_sync
        self._trouble = trouble
        self._live: dict[int, int] = {}  # segment → messages that stand in it
        self._readers: dict[int, tuple[bytes, Handle]] = {}

    def new_body(self, name: str, inline: int) -> Body:
        return Body(self._files, self._bodies, name, inline, self._run_sync)

    def enter(self, entry: Entry) -> None:
        """A message is live from now on."""
        segment = entry.location.segment
        self._live[segment] = self._live.get(segment, 0) + 1

    def read(self, entry: Entry) -> Acceptance:
        """The message's record; it comes from the page cache, so it is not worth a thread hop."""
        segment, offset = entry.location.segment, entry.location.offset
        try:
            key, handle = self._reader(segment)
            data = handle.read_at(offset, RECORD_READ)
            good = records.decode_at(key, data, 0, offset)
            if good is None and (length := records.length_at(data)) > len(data):
                good = records.decode_at(key, handle.read_at(offset, length), 0, offset)
        except OSError as wrong:
            raise translate(wrong) from wrong
        if good is None:
            raise SpoolError(f"{segment_name(segment)}: the record of {entry.id} at {offset} is damaged")
        return read_acceptance(good.payload, entry.in_settlement)

    def _reader(self, segment: int) -> tuple[bytes, Handle]:
        found = self._readers.get(segment)
        if found is None:
            if len(self._readers) >= OPEN_SEGMENTS:
                self._forget(next(iter(self._readers)))
            handle = self._files.open(os.path.join(self._log_folder, segment_name(segment)))
            key = records.segment_key(handle.read_at(0, records.SEGMENT_HEADER))
            if key is None:
                handle.close()
                raise SpoolError(f"{segment_name(segment)} has lost its header")
            found = self._readers[segment] = key, handle
        return found

    def _forget(self, segment: int) -> None:
        if segment in self._readers:
            self._readers.pop(segment)[1].close()

    def open_body(self, message: Acceptance) -> BodyReader:
        if not message.file:
            return BodyReader(message.body, None, len(message.body), self._run_sync)
        try:
            handle = self._files.open(os.path.join(self._bodies, message.file))
            return BodyReader(b"", handle, handle.size(), self._run_sync)
        except OSError as wrong:
            raise translate(wrong) from wrong

    async def header(self, message: Acceptance, limit: int) -> bytes:
        """The header's octets, up to `limit`; b"" where the content cannot be read, which is told."""
        head = message.body[:limit]
        if message.file:
            try:
                reader = self.open_body(message)
                try:
                    head = await reader.read(limit)
                finally:
                    reader.close()
            except (SpoolError, OSError) as wrong:
                self._trouble("spool", f"{message.envelope.id}: {wrong}")
        return head.partition(b"\r\n\r\n")[0]

    async def let_go(self, entry: Entry, active: int) -> None:
        """The message is settled. `active` is the number of the segment being written."""
        self._live[entry.location.segment] -= 1
        if entry.file:
            await self._run_sync(partial(self._unlink, os.path.join(self._bodies, entry.file)))
        await self.drop_segments(active)

    async def drop_segments(self, active: int) -> None:
        """Remove, oldest first, the segments that owe nothing."""
        gone: list[int] = []
        for number in sorted(self._live):
            if self._live[number] or number >= active:
                break
            gone.append(number)
        for number in gone:
            del self._live[number]
            self._forget(number)
            await self._run_sync(partial(self._unlink, os.path.join(self._log_folder, segment_name(number)), sync=True))

    async def clean_up(self, recovered: Recovered, active: int) -> None:
        """After the start-up scan: report damage, remove body files that no message names, and old segments."""
        for damage in recovered.damage:
            self._trouble("recovery", damage)
        for segment in recovered.segments:
            self._live.setdefault(segment, 0)
        named = {entry.file for entry in recovered.entries.values()}
        for name in self._files.names(self._bodies):
            if name not in named:
                await self._run_sync(partial(self._unlink, os.path.join(self._bodies, name)))
        await self.drop_segments(active)

    def _unlink(self, path: str, sync: bool = False) -> None:
        try:
            self._files.unlink(path)
            if sync:
                self._files.sync_folder(os.path.dirname(path))
        except OSError as wrong:  # it stays until the next start cleans up
            self._trouble("spool", f"{os.path.basename(path)}: {wrong.strerror}")

    def close(self) -> None:
        for segment in list(self._readers):
            self._forget(segment)
