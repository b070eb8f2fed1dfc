"""the spool's files: reading messages back, letting them go

A `Shelf` that removes what nobody is owed any more.

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

from tripost.queue.body import Body
from tripost.queue.dropping import next_to_go
from tripost.queue.entries import MOVE, Acceptance, decode_move, decode_settle
from tripost.queue.errors import SpoolError
from tripost.queue.files import Files
from tripost.queue.ids import MARK, mark_of
from tripost.queue.ledger import Ledger
from tripost.queue.log import RunSync
from tripost.queue.recovery import Recovered
from tripost.queue.rows import segment_of
from tripost.queue.segment import segment_name
from tripost.queue.shelf import Shelf

RECENT = 2 << 20  # octets of messages that are kept in memory after they came
BESIDE = 1 << 10  # octets of one beside its content

class Recent:
    """Messages of the last moments, by place: most are claimed at once, and need not be read again. A place is never
    used again, so that nothing here can be wrong."""

    def __init__(self) -> None:
        self._kept: dict[int, Acceptance] = {}
        self._octets = 0

    def keep(self, place: int, message: Acceptance) -> None:
        kept = self._kept
        kept[place] = message
        self._octets += len(message.body) + BESIDE
        while self._octets > RECENT:
            self.take(next(iter(kept)))

    def take(self, place: int) -> Acceptance | None:
        """It, and it is not kept any more: who tries it again reads it from the disk."""
        message = self._kept.pop(place, None)
        if message is not None:
            self._octets -= len(message.body) + BESIDE
        return message


class Store(Shelf):
    """As its owner has it; `trouble(where, reason)` reports what an operator should look at."""

    def __init__(
        self,
        files: Files,
        folder: str,
        run_sync: RunSync,
        trouble: Callable[[str, str], None],
        ledger: Ledger,
    ) -> None:
        super().__init__(files, folder, run_sync)
        self._trouble = trouble
        self._ledger = ledger
        self._live = ledger.live
        self.recent = Recent()

    async def read(self, place: int) -> Acceptance:
        """As Shelf.read; what came just now is in memory yet."""
        return self.recent.take(place) or await super().read(place)

    def new_body(self, new_name: Callable[[], str], inline: int) -> Body:
        return Body(self._files, self._bodies, new_name, inline, self._run_sync)

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


def _remove(files: Files, path: str, sync: bool) -> None:
    try:
        files.unlink(path)
    except FileNotFoundError:
        pass  # but it may not be durable yet that it is gone
    if sync:
        files.sync_folder(os.path.dirname(path))
