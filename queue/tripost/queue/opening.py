"""a queue from its folder"""

from __future__ import annotations

import os
import random as stdlib_random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio

from tripost.queue import events
from tripost.queue.board import Board
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.errors import SpoolUnsure
from tripost.queue.files import Files, Handle, RealFiles
from tripost.queue.housekeeping import Housekeeping
from tripost.queue.log import BODY_THREADS, LOG_THREADS, Log, RunSync, threads, translate
from tripost.queue.manager import Queue
from tripost.queue.recovery import Recovered, recover
from tripost.queue.segment import Writer
from tripost.queue.store import Store
from tripost.queue.tail import Tail
from tripost.queue.values import QueueSettings, Reporter

LAST_WORDS = 5.0  # seconds for what is being written at the end; a disk may never take it


class Others:
    """Ingress processes that write into the same spool; `wait` until one of them has. `growing()`: more of theirs may
    have to be taken in."""

    def __init__(self, board: Board, wait: Callable[[], Awaitable[None]]) -> None:
        self.board = board
        self.wait = wait
        self.growing: Callable[[], bool] = lambda: False


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
    others: Others | None = None,
    locked: bool = False,
) -> AsyncGenerator[Queue, None]:
    """Lock the folder, unless it is `locked` by whoever calls, recover what it holds, run the committer. `others`:
    ingress processes write too. Raises SpoolLocked, SpoolDamaged, SpoolError."""
    disk: Files = files if files is not None else RealFiles()
    # each its own threads: whoever reads or writes contents never keeps the log waiting for one
    hop, log_hop = run_sync or threads(BODY_THREADS), run_sync or threads(LOG_THREADS)

    def trouble(where: str, reason: str) -> None:
        bus.emit(events.Trouble(time=clock.now(), where=where, reason=reason))

    lock = None if locked else lock_spool(disk, folder)
    try:
        recovered = await _recover(disk, folder, clock, hop, others.board if others is not None else None)
        ledger = recovered.ledger
        store = Store(disk, folder, hop, trouble, ledger)
        log = _log(disk, folder, settings, recovered, log_hop, trouble)
        queue = Queue(
            settings, clock=clock, bus=bus, reporter=reporter, random=random, log=log, store=store, ledger=ledger
        )
        house = Housekeeping(queue, settings, ledger=ledger, log=log, store=store, clock=clock)
        tasks: list[Callable[[], Awaitable[None]]] = [*house.tasks]
        tail = _tail(disk, folder, others.board, recovered, log, queue, trouble, hop) if others is not None else None
        if others is not None and tail is not None:
            house.ask_turn = tail.ask_turn
            others.growing = lambda: bool(ledger.growing)
            tasks.append(partial(tail.run, others.wait))
        try:
            await store.clean_up(recovered)
            async with _running(log, tasks):
                yield queue
            await log.close()
        finally:
            store.close()
            if tail is not None:
                tail.close()
    finally:
        if lock is not None:
            lock.close()


@asynccontextmanager
async def _running(log: Log, tasks: list[Callable[[], Awaitable[None]]]) -> AsyncGenerator[None, None]:
    async with trio.open_nursery() as writing:
        await writing.start(log.run)
        writing.start_soon(log.seal_forever)
        async with trio.open_nursery() as nursery:
            for task in tasks:
                nursery.start_soon(_until_stopped, task)
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()
                writing.cancel_scope.deadline = trio.current_time() + LAST_WORDS
        writing.cancel_scope.cancel()  # nobody appends any more


def _tail(
    disk: Files,
    folder: str,
    board: Board,
    recovered: Recovered,
    log: Log,
    queue: Queue,
    trouble: Callable[[str, str], None],
    hop: RunSync,
) -> Tail:
    return Tail(
        disk,
        folder,
        board,
        following=recovered.following,
        ledger=recovered.ledger,
        log=log,
        enter=queue.enter,
        finished=lambda: queue.emptied.set(),
        trouble=trouble,
        run_sync=hop,
    )


async def _until_stopped(task: Callable[[], Awaitable[None]]) -> None:
    try:
        await task()
    except SpoolUnsure:
        pass  # the log stopped first: the next start finds what is to be done


async def _recover(disk: Files, folder: str, clock: Clock, hop: RunSync, board: Board | None) -> Recovered:
    try:
        found: Recovered = await hop(partial(recover, disk, folder, clock.now(), board))
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


def lock_spool(disk: Files, folder: str) -> Handle:
    """Hold the spool, whose folders are made. Processes that inherit the handle hold it too. Raises SpoolLocked,
    SpoolError."""
    try:
        for path in (os.path.join(folder, "log"), os.path.join(folder, "bodies")):
            disk.make_folder(path)
        return disk.lock(os.path.join(folder, "lock"))
    except OSError as wrong:
        raise translate(wrong) from wrong
