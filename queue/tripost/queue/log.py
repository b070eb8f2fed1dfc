"""group commit

One writer appends records to the active segment. Everybody who waits shares
one write and one fdatasync; the next batch forms while this one syncs, and no
timer delays a lone message. The kernel syncs by itself where it can
(tripost.queue.apart), else a worker thread writes and syncs.

Promise  `append` returns only when its record is on stable storage. What a
         record changes in memory is applied in the order of the log.
Fails    SpoolFull, SpoolError: no recovery will ever show the record.
         SpoolUnsure: it may, because the disk took neither the record nor the
         word that it is void. An essential record (a settlement) never fails:
         it waits until the disk takes it.
States   a failed write is undone; a failed sync is final for its segment: a
         new one is begun whose first record voids what the failed batch may
         have left behind, and only when that is durable are waiters told.
         While none can be begun, nothing is taken; it is tried each PAUSE.
"""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
import trio

from tripost.queue.errors import SpoolError, SpoolFull, SpoolUnsure
from tripost.queue.files import Files, Syncer
from tripost.queue.segment import Retired, Writer
from tripost.queue.tally import Histogram

RunSync = Callable[[Callable[[], Any]], Awaitable[Any]]

LOG_THREADS = 2  # it commits in one and seals in another
BODY_THREADS = 16

# Enough waiters for any batch to be one sync; more would only hold memory.
BATCH_BYTES = 4 << 20
APART_MOST = 256 << 10  # octets that are written in the event loop's thread, for the kernel to sync
STALL = 0.05  # seconds; a write that takes so long waits for the disk, as may those that come soon after
AWHILE = 100  # commits in a thread after such a one
PAUSE = 1.0  # seconds until a disk that failed is tried again


class LogStatistics(msgspec.Struct, frozen=True):
    """Since the start. `commits`: seconds from `append` to its return; `syncs`: that made records durable; `octets`:
    of records; `committed`: Trio's time of the last one, -inf for none; `lost`: the disk takes nothing now."""

    commits: Histogram
    syncs: int
    octets: int
    committed: float
    lost: bool


class _Waiter:
    __slots__ = ("apply", "began", "error", "essential", "item", "place", "settled", "task")

    def __init__(self, kind: int, payload: bytes, apply: Callable[[int], None] | None, essential: bool) -> None:
        self.item = kind, payload
        self.apply = apply
        self.essential = essential
        self.began = trio.current_time()
        self.task: trio.lowlevel.Task | None = None
        self.error: SpoolError | None = None
        self.place = 0
        self.settled = False

    def finish(self) -> None:
        if not self.settled:
            self.settled = True
            if self.task is not None:
                trio.lowlevel.reschedule(self.task)


def _not_now(_: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED


class Log:
    """The committer; `run` must be running for `append` to return.

    `begun(segment, snapshot, abandoned)` is told of a new segment, where its notes stand, and which ones will never be
    sealed; `index(segment)` gives the payload of a full segment's INDEX record, once; `trouble(where, reason)`
    reports; `synced()` is called after each commit, before those who wait are told.
    """

    def __init__(
        self,
        files: Files,
        folder: str,
        *,
        run_sync: RunSync,
        writer: Writer,
        min_free: tuple[int, int],
        begun: Callable[[int, int, list[int]], None] = lambda number, snapshot, abandoned: None,
        index: Callable[[int], bytes] = lambda number: b"",
        trouble: Callable[[str, str], None] = lambda where, reason: None,
        synced: Callable[[], None] = lambda: None,
    ) -> None:
        self._files = files
        self._folder = folder
        self._run_sync = run_sync
        self._writer = writer
        self._min_free = min_free
        self._begun = begun
        self._index = index
        self._trouble = trouble
        self._synced = synced
        self._turning = False
        self._waiting: list[_Waiter] = []
        self._wake = trio.Event()
        self._syncer = files.syncer()
        self._aside = 0  # commits to be made in a thread, because a write was slow
        self._seal = trio.Event()
        if writer.retired:  # what the last run left
            self._seal.set()
        self._room = False
        self._commits = Histogram()
        self._committed = -math.inf
        self._room_asked = -1
        self._stopped = False

    async def append(
        self, kind: int, payload: bytes, apply: Callable[[int], None] | None = None, *, essential: bool = False
    ) -> int:
        """Make one record durable, then call `apply` with its place, which is returned.

        `essential` ones may use the room that `min_free` keeps; they are not refused but wait."""
        if not essential:
            self._check_room()
            await trio.lowlevel.checkpoint_if_cancelled()
        if self._stopped:
            raise SpoolError("the log has stopped")
        waiter = _Waiter(kind, payload, apply, essential)
        self._waiting.append(waiter)
        self._wake.set()
        # Not to be cancelled: the record may become durable whatever happens to us, so the answer is waited for,
        # bounded by one disk operation. A bare task and no shielded Event, and no coroutine more: the hot path.
        waiter.task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(_not_now)
        if waiter.error is not None:
            raise waiter.error
        return waiter.place

    def _check_room(self) -> None:
        # Asked of the disk once per batch, not per message: each batch is bounded, so `min_free` is overrun by
        # at most one; while there is too little, every message asks anew.
        if self._writer.lost:
            raise SpoolError("no new segment can be begun")
        if self._room_asked != self._writer.commits or not self._room:
            octets, inodes = self._files.free(self._folder)
            self._room = octets >= self._min_free[0] and inodes >= self._min_free[1]
            self._room_asked = self._writer.commits
        if not self._room:
            raise SpoolFull("less than [spool] min_free is left")

    @property
    def number(self) -> int:
        """Of the segment being written."""
        return self._writer.number

    @property
    def lost(self) -> bool:
        """The disk takes nothing now."""
        return self._writer.lost

    def statistics(self) -> LogStatistics:
        writer = self._writer
        return LogStatistics(self._commits.copy(), writer.commits, writer.octets, self._committed, writer.lost)

    def turn(self) -> None:
        """Soon write no more to the active segment; what comes goes into a new one."""
        self._turning = True
        self._wake.set()

    def adopt(self, one: Retired) -> None:
        """A segment of another writer, which writes no more to it, is to be sealed."""
        self._writer.retired.append(one)
        self._seal.set()

    # --- the committer ---

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled, which must happen after the last `append`."""
        task_status.started()
        batch: list[_Waiter] = []
        try:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                self._turn_over()
                while self._waiting or self._writer.lost:
                    batch = self._take()
                    again: list[_Waiter] = []
                    with trio.CancelScope(shield=True):
                        again = await self._somehow(batch)
                    self._finish(batch)
                    self._turn_over()
                    if self._writer.retired:
                        self._seal.set()
                    if again or self._writer.lost:
                        self._waiting[:0] = again
                        await trio.sleep(PAUSE)
        finally:  # whatever ends the committer, nobody may wait for it for ever
            self._stopped = True
            for waiter in [*batch, *self._waiting]:
                if not waiter.settled:
                    waiter.error = waiter.error or SpoolUnsure("the log has stopped")
                    waiter.finish()

    async def _somehow(self, batch: list[_Waiter]) -> list[_Waiter]:
        """Commit in the way that costs least now; returns those that are to be tried again."""
        size = sum([len(waiter.item[1]) for waiter in batch])
        if self._syncer is None or size > APART_MOST or self._aside or not batch or not self._writer.ready():
            self._aside = max(0, self._aside - 1)
            again: list[_Waiter] = await self._run_sync(partial(self._commit, batch))
            return again
        return await self._commit_apart(self._syncer, batch)

    async def _commit_apart(self, syncer: Syncer, batch: list[_Waiter]) -> list[_Waiter]:
        """As `_commit`, but that nobody waits for the disk in a thread; what goes wrong is put right in one."""
        writer, began = self._writer, time.perf_counter()
        try:
            written, handle = writer.put([waiter.item for waiter in batch])
            if time.perf_counter() - began > STALL:
                self._aside = AWHILE
            try:
                if not await syncer.sync(handle):  # THE COMMIT POINT, as in Writer.write
                    await self._run_sync(handle.sync)
            except OSError:
                writer.failed()
                raise
        except OSError as wrong:
            again: list[_Waiter] = await self._run_sync(partial(self._commit, batch, wrong))
            return again
        for waiter, place in zip(batch, writer.durable(written), strict=True):
            waiter.place = place
        return []

    def _turn_over(self) -> None:
        if self._turning:
            self._turning = False
            self._writer.retire()
            self._synced()

    def _take(self) -> list[_Waiter]:
        size = count = 0
        for waiter in self._waiting:
            if count and size > BATCH_BYTES:
                break
            size += len(waiter.item[1])
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    def _finish(self, batch: list[_Waiter]) -> None:
        writer = self._writer
        for number, snapshot in writer.begun:
            self._begun(number, snapshot, writer.abandoned)
            writer.abandoned = []
        writer.begun.clear()
        self._synced()
        now = trio.current_time()
        for waiter in batch:
            if waiter.place:
                self._commits.note(now - waiter.began)
                self._committed = now
                if waiter.apply is not None:
                    waiter.apply(waiter.place)
            if waiter.place or waiter.error is not None:
                waiter.finish()

    # --- what follows runs in the worker thread (but see `_commit_apart`), one batch at a time ---

    def _commit(self, batch: list[_Waiter], failure: OSError | None = None) -> list[_Waiter]:
        """Give each waiter a place or an error; returns those that are to be tried again. `failure`: of a first
        attempt, made elsewhere."""
        todo = batch if failure is None else _refuse(batch, self._recover(failure))
        if failure is None and not self._writer.ready():
            try:
                self._writer.begin()
            except OSError as wrong:
                todo = _refuse(batch, translate(wrong))
        for _ in range(2 if failure is None else 1):
            if not todo or not self._writer.usable():
                break
            try:
                places = self._writer.write([waiter.item for waiter in todo])
            except OSError as wrong:
                todo = _refuse(todo, self._recover(wrong))
                continue
            for waiter, place in zip(todo, places, strict=True):
                waiter.place = place
            return []
        return todo

    def _recover(self, wrong: OSError) -> SpoolError:
        """Make sure that what a failed write left is never read; the error to tell."""
        if wrong.errno in _FULL and self._writer.undo():
            return translate(wrong)
        self._writer.abandon()
        try:
            self._writer.begin()
        except OSError as worse:
            return SpoolUnsure(f"{translate(wrong)}, then {translate(worse)}")
        return translate(wrong)

    # --- full segments ---

    async def seal_forever(self) -> None:
        """Until cancelled: put the index into each full segment."""
        while True:
            await self._seal.wait()
            self._seal = trio.Event()
            await self._seal_all()

    async def _seal_all(self) -> None:
        while self._writer.retired:
            one = self._writer.retired.pop(0)
            payload = self._index(one.number)
            with trio.CancelScope(shield=True):
                try:
                    await self._run_sync(partial(self._writer.seal, one, payload))
                except OSError as wrong:  # nothing is lost: the next start reads it record by record
                    self._trouble("spool", f"segment {one.number} stays without an index: {translate(wrong)}")

    async def close(self) -> None:
        """After `run` and `seal_forever` ended: the next start finds every segment sealed."""
        self._writer.retire()
        self._synced()
        await self._seal_all()
        if self._syncer is not None:
            self._syncer.close()


def _refuse(batch: list[_Waiter], error: SpoolError) -> list[_Waiter]:
    """Tell all but the essential ones, which are returned."""
    for waiter in batch:
        if not waiter.essential:
            waiter.error = error
    return [waiter for waiter in batch if waiter.essential]


_FULL = (errno.ENOSPC, errno.EDQUOT)


def translate(wrong: OSError) -> SpoolError:
    """The one place where the disk's errors become ours."""
    kind = SpoolFull if wrong.errno in _FULL else SpoolError
    return kind(f"{wrong.strerror} ({errno.errorcode.get(wrong.errno or 0, '?')})")


def threads(most: int) -> RunSync:
    """Blocking work in at most so many worker threads at a time."""
    limiter = trio.CapacityLimiter(most)

    async def run_sync(work: Callable[[], Any]) -> Any:
        return await trio.to_thread.run_sync(work, limiter=limiter)

    return run_sync
