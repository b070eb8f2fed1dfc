"""segments and group commit

One writer appends records to the active segment. Everybody who waits shares
one write and one fdatasync in one worker-thread hop; the next batch forms
while this one syncs, and no timer delays a lone message.

Promise  `append` returns only when its record is on stable storage, and
         raises only when no recovery will ever show the record.
Fails    SpoolFull (no space, or less than `min_free`), SpoolError (any other
         trouble). A failed write or sync is final for its segment: a new
         segment is begun whose first record voids what the failed batch may
         have left behind; only when that is durable are the waiters told.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
import trio

from tripost.queue import records
from tripost.queue.errors import SpoolError, SpoolFull
from tripost.queue.files import Files, Handle

RunSync = Callable[[Callable[[], Any]], Awaitable[Any]]

VOID = 1  # payload: [segment number, first voided offset]
# Enough waiters for any batch to be one sync; more would only hold memory.
BATCH_BYTES = 4 << 20


class Location(msgspec.Struct, frozen=True, array_like=True):
    """Where a record stands."""

    segment: int
    offset: int


class _Waiter:
    __slots__ = ("error", "kind", "location", "payload", "settled", "task")

    def __init__(self, kind: int, payload: bytes) -> None:
        self.kind = kind
        self.payload = payload
        self.task: trio.lowlevel.Task | None = None
        self.error: SpoolError | None = None
        self.location = Location(0, 0)
        self.settled = False

    async def wait(self) -> None:
        """Until `finish`. Not to be cancelled: the record may become durable whatever happens to us, so the answer
        is waited for, bounded by one disk operation. A bare task and no shielded Event: this is the hot path."""
        if not self.settled:
            self.task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)

    def finish(self) -> None:
        if not self.settled:
            self.settled = True
            if self.task is not None:
                trio.lowlevel.reschedule(self.task)


def segment_name(number: int) -> str:
    return f"{number:010d}.seg"


class Log:
    """The active segment and its committer; `run` must be running for `append` to return."""

    def __init__(
        self, files: Files, folder: str, *, run_sync: RunSync, segment_size: int, min_free: int, next_number: int
    ) -> None:
        self._files = files
        self._folder = folder
        self._run_sync = run_sync
        self._segment_size = segment_size
        self._min_free = min_free
        self.number = next_number - 1
        self._handle: Handle | None = None
        self._key = b""
        self._end = 0
        self._voids: list[tuple[int, int]] = []
        self._waiting: list[_Waiter] = []
        self._wake = trio.Event()
        self.commits = 0
        self._room = False
        self._room_asked = -1

    async def append(self, kind: int, payload: bytes, *, essential: bool = False) -> Location:
        """Make one record durable. `essential` ones (settlements) may use the room that `min_free` keeps."""
        if not essential:
            await self._check_room()
        waiter = _Waiter(kind, payload)
        self._waiting.append(waiter)
        self._wake.set()
        await waiter.wait()
        if waiter.error is not None:
            raise waiter.error
        return waiter.location

    async def _check_room(self) -> None:
        # Asked of the disk once per batch, not per message: each batch is bounded, so `min_free` is overrun by
        # at most one; while there is too little, every message asks anew.
        if self._room_asked != self.commits or not self._room:
            self._room = self._files.free(self._folder) >= self._min_free
            self._room_asked = self.commits
        if not self._room:
            raise SpoolFull("less than [spool] min_free is left")
        await trio.lowlevel.checkpoint_if_cancelled()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The committer: until cancelled, which must happen after the last `append`."""
        task_status.started()
        batch: list[_Waiter] = []
        try:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                while self._waiting:
                    batch = self._take()
                    with trio.CancelScope(shield=True):
                        await self._run_sync(partial(self._commit, batch))
                    for waiter in batch:
                        waiter.finish()
        finally:  # whatever ends the committer, nobody may wait for it for ever
            for waiter in [*batch, *self._waiting]:
                if not waiter.settled:
                    waiter.error = waiter.error or SpoolError("the log has stopped")
                    waiter.finish()

    def _take(self) -> list[_Waiter]:
        size = count = 0
        for waiter in self._waiting:
            if count and size > BATCH_BYTES:
                break
            size += len(waiter.payload)
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    # --- what follows runs in the worker thread, one batch at a time ---

    def _commit(self, batch: list[_Waiter]) -> None:
        try:
            if self._handle is None or self._end > self._segment_size:
                self._begin_segment()
            self._write(batch)
            return
        except OSError as wrong:
            error = translate(wrong)
        self._abandon()
        try:
            self._begin_segment()
        except OSError as wrong:
            error = translate(wrong)
            self._abandon()
        for waiter in batch:
            waiter.error = error

    def _begin_segment(self) -> None:
        """A new file, its voids and its folder entry durable before anything is promised in it."""
        old = self._handle
        number, key = self.number + 1, secrets.token_bytes(records.KEY_SIZE)
        self.number = number  # a number is used once, even if this fails half-way
        handle = self._files.create(os.path.join(self._folder, segment_name(number)))
        try:
            end = records.SEGMENT_HEADER
            data = records.segment_header(key)
            for void in self._voids:
                one = records.encode(key, end, VOID, msgspec.msgpack.encode(void))
                data, end = data + one, end + len(one)
            handle.write_at(0, data)
            handle.sync()
            self._files.sync_folder(self._folder)
        except BaseException:
            handle.close()
            raise
        self._handle, self._key, self._end = handle, key, end
        self._voids = []
        if old is not None:
            old.close()

    def _write(self, batch: list[_Waiter]) -> None:
        handle = self._handle
        assert handle is not None
        parts: list[bytes] = []
        end = self._end
        for waiter in batch:
            one = records.encode(self._key, end, waiter.kind, waiter.payload)
            waiter.location = Location(self.number, end)
            parts.append(one)
            end += len(one)
        handle.write_at(self._end, b"".join(parts))
        handle.sync()  # THE COMMIT POINT: before it nothing is owed, after it everything is
        self._end = end
        self.commits += 1

    def _abandon(self) -> None:
        if self._handle is not None:
            self._voids.append((self.number, self._end))
            handle, self._handle = self._handle, None
            try:
                handle.close()
            except OSError:
                pass  # the descriptor is gone either way; the void says what the file is worth

    def close(self) -> None:
        if self._handle is not None:
            self._handle.close()
            self._handle = None


def translate(wrong: OSError) -> SpoolError:
    """The one place where the disk's errors become ours."""
    full = wrong.errno in (errno.ENOSPC, errno.EDQUOT)
    return (SpoolFull if full else SpoolError)(f"{wrong.strerror} ({errno.errorcode.get(wrong.errno or 0, '?')})")
