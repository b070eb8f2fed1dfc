"""the spool's files: reading messages back, letting them go

Keeps the segments open that are read, and removes what nobody is owed any
more.

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
from typing import TypeVar

from tripost.queue import records
from tripost.queue.body import Body, BodyReader
from tripost.queue.dropping import next_to_go
from tripost.queue.entries import MOVE, Acceptance, decode_move, decode_settle, message_of
from tripost.queue.errors import SpoolError
from tripost.queue.files import Files, Handle
from tripost.queue.ids import MARK, mark_of
from tripost.queue.ledger import Ledger
from tripost.queue.log import RunSync, translate
from tripost.queue.recovery import Recovered
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


class Store:
    """The folder of one queue; `trouble(where, reason)` reports what an operator should look at."""

    def __init__(
        self,
        files: Files,
        folder: str,
        run_sync: RunSync,
        trouble: Callable[[str, str], None],
        ledger: Ledger,
    ) -> None:
        self._files = files
        self._log_folder = os.path.join(folder, "log")
        self._bodies = os.path.join(folder, "bodies")
        self._run_sync = run_sync
        self._trouble = trouble
        self._ledger = ledger
        self._live = ledger.live
        self._readers: dict[int, _Reader] = {}

    def new_body(self, new_name: Callable[[], str], inline: int) -> Body:
        return Body(self._files, self._bodies, new_name, inline, self._run_sync)

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

    async def replies(self, told: int) -> dict[int, str]:
        """The last reply of each recipient, from the record that told it; only words are lost where it is gone."""
        if not told or segment_of(told) not in self._live:
            return {}
        try:
            kind, payload = await self.record(told)
        except SpoolError:
            return {}
        left = decode_move(payload).left if kind == MOVE else decode_settle(payload).later
        return {one.recipient: one.reply for one in left}

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

    async def original(self, message: Acceptance, limit: int, *, full: bool) -> bytes:
        """The header's octets, up to `limit`, or all of them where that is wanted and the limit allows it; b"" where
        the content cannot be read, which is told."""
        full = full and message.envelope.size <= limit
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
        return head if full else head.partition(b"\r\n\r\n")[0]

    async def remove_body(self, name: str) -> None:
        """No message needs the file any more."""
        await self._unlink(os.path.join(self._bodies, name))

    def empty(self, active: int, segment: int) -> bool:
        """`drop_segments` may have something to do, now that a message of `segment` is gone."""
        return not self._live[next(iter(self._live))] or (segment != active and not self._live[segment])

    async def drop_segments(self, active: int) -> None:
        """Remove the segments that owe nothing, in their order. Only one task may be in here at a time."""
        ledger = self._ledger
        while (number := next_to_go(ledger.live, ledger.others, ledger.growing, active)) is not None:
            self._forget(number)
            if not await self._unlink(os.path.join(self._log_folder, segment_name(number)), sync=True):
                return
            del self._live[number]
            ledger.others.pop(number, None)

    async def clean_up(self, recovered: Recovered) -> None:
        """After the start-up scan: report damage, remove body files that no message names, but for those that an
        ingress process that lives may be about to name."""
        for damage in recovered.damage:
            self._trouble("recovery", damage)
        marks = {mark_of(run) for run in recovered.writing}
        for name in recovered.bodies:
            if name not in recovered.files and name[-MARK:] not in marks:
                await self.remove_body(name)

    async def _unlink(self, path: str, sync: bool = False) -> bool:
        try:
            await self._run_sync(partial(_remove, self._files, path, sync))
        except OSError as wrong:  # it stays until the next start cleans up
            self._trouble("spool", f"{os.path.basename(path)}: {wrong.strerror}")
            return False
        return True

    def close(self) -> None:
        for segment in list(self._readers):
            self._forget(segment)


def _remove(files: Files, path: str, sync: bool) -> None:
    try:
        files.unlink(path)
    except FileNotFoundError:
        pass  # but it may not be durable yet that it is gone
    if sync:
        files.sync_folder(os.path.dirname(path))


def read_record(handle: Handle, offset: int) -> bytes:
    data = handle.read_at(offset, RECORD_READ)
    length = records.length_at(data)
    return data if length <= len(data) else handle.read_at(offset, length)
