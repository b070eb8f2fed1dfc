"""actions that end messages, once their grace time is over

Bounced, deleted and expired mail stands aside until nobody can take the action
back any more; then each delivery is settled, BATCH at a time and no faster than
half of the time, so that mail goes on.

Promise  a start goes on with what was not settled yet. `done` is noted when
         nothing of the action is queued any more.
"""

from __future__ import annotations

import trio
from msgspec.structs import replace

from tripost.queue import actions
from tripost.queue.actions import Action, Kept
from tripost.queue.clock import Clock
from tripost.queue.errors import SpoolError
from tripost.queue.ledger import Ledger
from tripost.queue.manager import Queue
from tripost.queue.message import Deferred, Delivered, Failed
from tripost.queue.rows import ASIDE, DOOMED, GONE, LEASED
from tripost.queue.scanning import breathe, pieces
from tripost.queue.settling import Decision, expired
from tripost.queue.values import Lease

EVERY = 1.0  # seconds at least between looks for actions whose time has come
BATCH = 64


class Ender:
    """`queue`: whose leases and settlements."""

    def __init__(self, queue: Queue, ledger: Ledger, clock: Clock) -> None:
        self._queue = queue
        self._ledger = ledger
        self._clock = clock
        self._left = False  # something could not be ended yet

    async def run(self) -> None:
        """Until cancelled."""
        self._close_lost()
        while True:
            edit, now = self._queue.edit, self._clock.now()
            edit.news = trio.Event()
            for id, action in list(self._ledger.actions.items()):
                if action.kept.until > now:
                    continue
                if action.does == actions.DOOM:
                    await self._end(action)
                else:
                    self._ledger.actions.pop(id, None)
            await self._queue.unpause(*self._queue.pauses.over(now))
            await trio.sleep(EVERY)
            due = self._next()
            with trio.move_on_at(self._clock.to_trio(due)) if due else trio.CancelScope():
                await edit.news.wait()

    def _next(self) -> float:
        """When there is something to do, 0 for never."""
        times = [one.kept.until for one in self._ledger.actions.values()]
        times += [one.until for one in self._queue.pauses.known.values() if one.until]
        return min(times, default=0.0)

    def _close_lost(self) -> None:
        """Pending ones whose record is gone: so are all the messages that it named."""
        for id, kept in self._queue.edit.actions().items():
            if kept.state == actions.PENDING and id not in self._ledger.actions:
                self._note_done(id, kept)

    def _note_done(self, id: str, kept: Kept) -> None:
        self._queue.note(actions.NOTE + id, actions.encode_kept(replace(kept, state=actions.DONE)))

    async def _end(self, action: Action) -> None:
        """Look at every row until none is left; what is being delivered now is left for the next time. Once more after
        each look that found some: a delivery that ended meanwhile may have left two."""
        self._left = False
        while await self._look(action):
            if self._left:
                return
        if self._ledger.actions.pop(action.id, None) is not None:
            self._note_done(action.id, action.kept)

    async def _look(self, action: Action) -> bool:
        """Whether there were some."""
        rows, found = self._ledger.rows, False
        for start, end in pieces(rows):
            batch: list[int] = []
            for row, flags in enumerate(rows.flags[start:end], start):
                if not flags & DOOMED or flags & GONE or not action.names(rows.place[row]):
                    continue
                found = True
                if flags & ASIDE and not flags & LEASED:
                    batch.append(row)
                else:
                    self._left = True
            for first in range(0, len(batch), BATCH):
                await self._settle(batch[first : first + BATCH], action.kept)
            await breathe()
        return found

    async def _settle(self, rows: list[int], kept: Kept) -> None:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for row in rows:
                nursery.start_soon(self._settle_one, row, kept)
        await trio.sleep(trio.current_time() - began)

    async def _settle_one(self, row: int, kept: Kept) -> None:
        flags = self._ledger.rows.flags[row]
        if not flags & DOOMED or not flags & ASIDE or flags & (GONE | LEASED):
            return  # it has ended since it was looked at
        self._ledger.lease(row)
        try:
            lease = await self._queue.lease_of(row)
        except SpoolError as wrong:  # it cannot be read: kept, told, and tried again
            self._left = True
            self._queue.trouble("action", str(wrong))
            self._ledger.put_back(row)
            return
        except BaseException:
            self._ledger.put_back(row)
            raise
        await self._queue.commit(lease, decided(lease, kept))


def decided(lease: Lease, kept: Kept) -> Decision:
    """How the verb ends a message."""
    if kept.verb == actions.DELETE:
        return Decision([(one, Delivered("deleted", kept.reason)) for one in lease.recipients], [], [])
    if kept.verb == actions.EXPIRE:
        last = Deferred(451, "4.4.7", kept.reason or "an operator ended its time")
        why = expired(last, lease.envelope)
    else:
        why = Failed(554, "5.3.0", kept.reason or "the operator of this gateway gave the message up")
    return Decision([], [(one, why) for one in lease.recipients], [])
