"""an ingress process's way into the spool

Writes messages to segments of its own, in the folder and in the format of the
manager's, and tells on the board how far they are durable. The manager takes
them in from there (tripost.queue.tail), now or after its own restart.

Promise  as of the queue's `accept`: it returns when the message is on stable
         storage. Nothing else is written here.
Bounds   no more than `unannounced` octets are ahead of the manager: a batch more
         may pass. `[spool] messages` and `bytes` are what the manager last told.
Fails    SpoolError/SpoolFull: nothing was accepted; SpoolUnsure: nobody knows.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import trio

from tripost.queue import events
from tripost.queue.board import Board
from tripost.queue.body import Body
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.errors import SpoolFull
from tripost.queue.files import Files, RealFiles
from tripost.queue.ids import Ids
from tripost.queue.log import BODY_THREADS, LOG_THREADS, Log, RunSync, threads
from tripost.queue.message import Envelope
from tripost.queue.records import SEGMENT_HEADER, Stamp
from tripost.queue.rows import offset_of, segment_of
from tripost.queue.segment import Writer
from tripost.queue.taking import check_room, take
from tripost.queue.values import QueueSettings

LOOK = 5.0  # seconds between looks at what the manager asks for
LAST_WORDS = 5.0  # seconds for what is being written at the end


class Inlet:
    """Made by `open_inlet`; what SMTP sessions take for a queue."""

    def __init__(
        self,
        folder: str,
        settings: QueueSettings,
        *,
        stamp: Stamp,
        board: Board,
        ring: Callable[[], None],
        clock: Clock,
        bus: Bus,
        files: Files,
        body_hop: RunSync,
        log_hop: RunSync,
    ) -> None:
        self._settings = settings
        self._me = stamp.writer
        self._board = board
        self._ring = ring
        self._files = files
        self._bodies = os.path.join(folder, "bodies")
        self._hop = body_hop
        self.new_id = Ids(clock.now, stamp.run)
        log_folder = os.path.join(folder, "log")
        self._writer = Writer(files, log_folder, segment_size=settings.segment_size, next_number=1, stamp=stamp)
        self.log = Log(
            files,
            log_folder,
            run_sync=log_hop,
            writer=self._writer,
            min_free=(settings.min_free, settings.min_free_inodes),
            trouble=lambda where, reason: bus.emit(events.Trouble(time=clock.now(), where=where, reason=reason)),
            synced=self._publish,
        )
        self._before: dict[int, int] = {}  # segment → octets in all segments before it
        self._told = 0, 0  # segment and end as published
        self.written = 0  # octets that are durable

    def new_body(self) -> Body:
        """Content to be filled."""
        return Body(self._files, self._bodies, self.new_id, self._settings.inline, self._hop)

    async def accept(self, envelope: Envelope, body: Body) -> None:
        """As Queue.accept."""
        self.check_room(envelope.size)
        await take(self.log, envelope, body)

    def check_room(self, more: int) -> None:
        """Raises SpoolFull when the queue holds as much as the operator allows, or the manager is too far behind."""
        ahead, settings, queued = self.ahead, self._settings, self._board.queued()
        if ahead > settings.unannounced:
            raise SpoolFull(f"{ahead} octets wait for the queue's manager, more than [spool] unannounced")
        check_room((settings.most_messages, settings.most_octets), (queued[0], queued[1] + ahead), more)

    @property
    def accepting(self) -> bool:
        """False while the disk takes nothing."""
        return not self.log.lost

    @property
    def ahead(self) -> int:
        """Octets of the log that the manager has not taken in."""
        place = self._board.taken(self._me)
        before = self._before.get(segment_of(place))
        if before is None:  # the manager has seen nothing of ours yet
            return self.written
        return self.written - before - max(0, offset_of(place) - SEGMENT_HEADER)

    def _publish(self) -> None:
        number, end = self._writer.number, self._writer.end
        if (number, end) == self._told or number < 1:
            return
        if number not in self._before:
            taken = segment_of(self._board.taken(self._me))
            self._before = {one: octets for one, octets in self._before.items() if one >= taken}
            self._before[number] = self.written
        if end:
            self.written = self._before[number] + end - SEGMENT_HEADER
        self._told = number, end
        self._board.publish(self._me, number, end)
        self._ring()

    async def look(self) -> None:
        """Until cancelled: leave a segment that the manager wants to remove."""
        while True:
            await trio.sleep(LOOK)
            if self._writer.usable() and self._board.turn(self._me) == self._writer.number:
                self.log.turn()


@asynccontextmanager
async def open_inlet(
    folder: str,
    settings: QueueSettings,
    *,
    stamp: Stamp,
    board: Board,
    ring: Callable[[], None],
    clock: Clock,
    bus: Bus,
    files: Files | None = None,
    run_sync: RunSync | None = None,
) -> AsyncGenerator[Inlet, None]:
    """`folder` is the spool's, which the supervisor holds; `ring()` tells the manager that there is something."""
    inlet = Inlet(
        folder,
        settings,
        stamp=stamp,
        board=board,
        ring=ring,
        clock=clock,
        bus=bus,
        files=files if files is not None else RealFiles(),
        body_hop=run_sync or threads(BODY_THREADS),
        log_hop=run_sync or threads(LOG_THREADS),
    )
    async with trio.open_nursery() as writing:
        await writing.start(inlet.log.run)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inlet.look)
            try:
                yield inlet
            finally:
                nursery.cancel_scope.cancel()
                writing.cancel_scope.deadline = trio.current_time() + LAST_WORDS
        writing.cancel_scope.cancel()
    await inlet.log.close()
