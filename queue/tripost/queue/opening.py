"""a queue from its folder"""

from __future__ import annotations

import os
import random as stdlib_random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio

from tripost.queue import events
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.errors import SpoolUnsure
from tripost.queue.files import Files, Handle, RealFiles
from tripost.queue.housekeeping import Housekeeping
from tripost.queue.log import Log, RunSync, translate
from tripost.queue.manager import Queue
from tripost.queue.recovery import Recovered, recover
from tripost.queue.segment import Writer
from tripost.queue.store import Store
from tripost.queue.values import QueueSettings, Reporter

LAST_WORDS = 5.0  # seconds for what is being written at the end; a disk may never take it
LOG_THREADS = 2  # it commits in one and seals in another
BODY_THREADS = 16


@asynccontextmanager
async def open_queue(
    folder: str,
    settings: QueueSettings,
    *,
    clock: Clock,
    bus: Bus,
    reporter: Reporter,
    files: Files | None = None,
    run_sync: RunSync | None = None,
    random: Callable[[], float] = stdlib_random.random,
) -> AsyncGenerator[Queue, None]:
    """Lock the folder, recover what it holds, run the committer. Raises SpoolLocked, SpoolDamaged, SpoolError."""
    disk: Files = files if files is not None else RealFiles()
    # each its own threads: whoever reads or writes contents never keeps the log waiting for one
    hop, log_hop = run_sync or _threads(BODY_THREADS), run_sync or _threads(LOG_THREADS)

    def trouble(where: str, reason: str) -> None:
        bus.emit(events.Trouble(time=clock.now(), where=where, reason=reason))

    lock = _lock(disk, folder)
    try:
        recovered = await _recover(disk, folder, clock, hop)
        ledger = recovered.ledger
        store = Store(disk, folder, hop, trouble, ledger.live)
        log = _log(disk, folder, settings, recovered, log_hop, trouble)
        queue = Queue(
            settings, clock=clock, bus=bus, reporter=reporter, random=random, log=log, store=store, ledger=ledger
        )
        house = Housekeeping(queue, settings, ledger=ledger, log=log, store=store, clock=clock)
        try:
            await store.clean_up(recovered)
            async with trio.open_nursery() as writing:
                await writing.start(log.run)
                writing.start_soon(log.seal_forever)
                async with trio.open_nursery() as nursery:
                    for task in house.tasks:
                        nursery.start_soon(_until_stopped, task)
                    try:
                        yield queue
                    finally:
                        nursery.cancel_scope.cancel()
                        writing.cancel_scope.deadline = trio.current_time() + LAST_WORDS
                writing.cancel_scope.cancel()  # nobody appends any more
            await log.close()
        finally:
            store.close()
    finally:
        lock.close()


async def _until_stopped(task: Callable[[], Awaitable[None]]) -> None:
    try:
        await task()
    except SpoolUnsure:
        pass  # the log stopped first: the next start finds what is to be done


def _threads(most: int) -> RunSync:
    limiter = trio.CapacityLimiter(most)

    async def run_sync(work: Callable[[], Any]) -> Any:
        return await trio.to_thread.run_sync(work, limiter=limiter)

    return run_sync


async def _recover(disk: Files, folder: str, clock: Clock, hop: RunSync) -> Recovered:
    try:
        found: Recovered = await hop(partial(recover, disk, os.path.join(folder, "log"), clock.now()))
    except OSError as wrong:
        raise translate(wrong) from wrong
    return found


def _log(
    disk: Files,
    folder: str,
    settings: QueueSettings,
    recovered: Recovered,
    hop: RunSync,
    trouble: Callable[[str, str], None],
) -> Log:
    log_folder = os.path.join(folder, "log")
    number = max(recovered.segments, default=0) + 1
    notes = recovered.ledger.notes
    writer = Writer(
        disk,
        log_folder,
        segment_size=settings.segment_size,
        next_number=number,
        snapshot=notes.snapshot,
    )
    writer.retired = recovered.whole
    min_free = settings.min_free, settings.min_free_inodes
    ledger = recovered.ledger
    return Log(
        disk,
        log_folder,
        run_sync=hop,
        writer=writer,
        min_free=min_free,
        begun=ledger.begin,
        index=ledger.seal,
        trouble=trouble,
    )


def _lock(disk: Files, folder: str) -> Handle:
    try:
        for path in (os.path.join(folder, "log"), os.path.join(folder, "bodies")):
            disk.make_folder(path)
        return disk.lock(os.path.join(folder, "lock"))
    except OSError as wrong:
        raise translate(wrong) from wrong
