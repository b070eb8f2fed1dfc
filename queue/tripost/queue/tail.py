"""the manager reads what ingress processes write

Follows each ingress process's segments from where it stopped, up to what the
board says is durable, and enters every message into the ledger. A segment that
will not grow (its writer went on to another, or is dead) is synced, read to its
end, and given to the log to be sealed.

Promise  only what is durable is entered, once: the place of a record is its
         identity, and where the reading stands is what was entered.
Bounds   PIECE octets are read and entered before others get their turn.
Fails    a disk that cannot be read is told, and asked again at the next look.
Why      a segment's end is known from the files alone: the writer syncs what it
         confirms, and says in its next segment what of the last one is void.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
import trio

from tripost.queue import records
from tripost.queue.board import Board
from tripost.queue.entries import ACCEPT, INDEX, VOID, Acceptance, decode_accept
from tripost.queue.errors import SpoolDamaged
from tripost.queue.files import Files, Handle
from tripost.queue.ledger import Ledger
from tripost.queue.log import Log, RunSync, translate
from tripost.queue.recovery import Following, Segment
from tripost.queue.rows import place_of
from tripost.queue.segment import Retired, close_quietly, numbers, segment_name

PIECE = 256 << 10
AGAIN = 1.0  # seconds between looks where nobody rings: a process may have died

Enter = Callable[[list[tuple[int, Acceptance]]], None]


class Tail:
    """`following`: segments that may grow, by number; `enter`: takes (place, message) in the order of the log."""

    def __init__(
        self,
        files: Files,
        folder: str,
        board: Board,
        *,
        following: list[Following],
        ledger: Ledger,
        log: Log,
        enter: Enter,
        finished: Callable[[], None],
        trouble: Callable[[str, str], None],
        run_sync: RunSync,
    ) -> None:
        self._files = files
        self._folder = os.path.join(folder, "log")
        self._board = board
        self._following = {one.number: one for one in following}
        self._ledger = ledger
        self._log = log
        self._enter = enter
        self._finished = finished
        self._trouble = trouble
        self._run_sync = run_sync
        self._seen: dict[int, tuple[int, int]] = {}  # writer → run and segment, as when the folder was last read
        self.octets = 0  # read since the start

    async def run(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Until cancelled; `wait` ends when somebody has rung."""
        while True:
            await self.look()
            with trio.move_on_after(AGAIN):
                await wait()

    async def look(self) -> None:
        """Take in all that is durable now."""
        board = self._board
        for writer in board.writers:
            now = board.run(writer), board.newest(writer)
            try:
                if self._seen.get(writer) != now:
                    await self._discover()
                    self._seen[writer] = now
                for one in [one for one in self._following.values() if one.stamp.writer == writer]:
                    await self._follow(one)
            except OSError as wrong:
                self._trouble("ingress log", str(translate(wrong)))
        board.tell(self._ledger.messages, self._ledger.octets)

    async def _discover(self) -> None:
        """New segments in the folder. Raises OSError."""
        for number in numbers(self._files, self._folder):
            if number in self._ledger.live or number in self._following:
                continue
            try:
                segment = Segment(self._files, self._folder, number)
            except FileNotFoundError:
                continue
            except SpoolDamaged as wrong:
                self._trouble("ingress log", str(wrong))
                continue
            segment.handle.close()
            if segment.key is None or not segment.stamp.writer:
                continue  # it is being made, or our own
            one = Following(number, segment.stamp, segment.key, records.SEGMENT_HEADER)
            for voided, start in segment.voids:
                if voided in self._following:
                    self._following[voided].void = min(start, self._following[voided].void or start)
            self._following[number] = one
            self._ledger.know(number, segment.stamp.writer)
        self._following = dict(sorted(self._following.items()))

    async def _follow(self, one: Following) -> None:
        """Raises OSError."""
        writer = one.stamp.writer
        end, closed = self._board.durable(writer, one.number)
        dead = self._board.run(writer) != one.stamp.run
        if one.handle is None:
            one.handle = self._files.open_to_write(os.path.join(self._folder, segment_name(one.number)))
        if dead or closed:
            await self._run_sync(one.handle.sync)  # what a dead process had not synced was promised to nobody
            await self._read(one, one.handle, one.void or one.handle.size(), final=True)
            self._finish(one, one.handle)
        elif end > one.at:
            await self._read(one, one.handle, end, final=False)

    async def _read(self, one: Following, handle: Handle, end: int, *, final: bool) -> None:
        """What stands before `end`; `final`: or a torn tail does. Raises OSError."""
        size = PIECE
        while one.at < end:
            size = min(size, end - one.at)
            data = handle.read_now(one.at, size)
            if data is None:
                data = await self._run_sync(partial(handle.read_at, one.at, size))
            if self._records(one, data):
                size = PIECE
                await trio.lowlevel.checkpoint()
            elif size < min(records.length_at(data), end - one.at):
                size = records.length_at(data)
            else:
                await self._skip(one, handle, end, final=final)
                return

    def _records(self, one: Following, data: bytes) -> bool:
        """The records that follow each other from where the reading stands; False when there is none."""
        base, at, key = one.at, 0, one.key
        found: list[tuple[int, Acceptance]] = []
        while (good := records.decode_at(key, data, at, base)) is not None:
            self._keep(one, good, found)
            at += records.octets(good.payload)
        one.at = base + at
        self.octets += at
        if at:
            self._take_in(one, found)
        return at > 0

    def _take_in(self, one: Following, found: list[tuple[int, Acceptance]]) -> None:
        """In one go: what is entered is said to be, before anybody can claim it."""
        self._board.take(one.stamp.writer, place_of(one.number, one.at))
        if found:
            self._enter(found)

    def _keep(self, one: Following, good: records.Good, found: list[tuple[int, Acceptance]]) -> None:
        if good.kind in (VOID, INDEX):
            return
        try:
            if good.kind != ACCEPT:
                raise ValueError(f"of type {good.kind}")
            found.append((place_of(one.number, good.offset), decode_accept(good.payload)))
        except (msgspec.DecodeError, ValueError) as wrong:
            one.damaged = True
            self._trouble("ingress log", f"{segment_name(one.number)}: record at {good.offset}: {wrong}")

    async def _skip(self, one: Following, handle: Handle, end: int, *, final: bool) -> None:
        """No record stands where one should, or it is the end. Raises OSError."""
        data = await self._run_sync(partial(handle.read_at, one.at, end - one.at))
        found: list[tuple[int, Acceptance]] = []
        for each in await self._run_sync(lambda: list(records.scan(one.key, data, one.at))):
            if isinstance(each, records.Good):
                self._keep(one, each, found)
                one.at = each.offset + records.octets(each.payload)
            elif not (each.torn and final):
                one.damaged = True
                name = segment_name(one.number)
                self._trouble("ingress log", f"{name}: octets {each.start} to {each.end} are damaged and were left out")
        if not final:
            one.at = end
        self._take_in(one, found)

    def _finish(self, one: Following, handle: Handle) -> None:
        """The segment is the manager's own from now on."""
        del self._following[one.number]
        if one.void is None and not one.damaged:
            self._log.adopt(Retired(one.number, handle, one.key, one.at))
        else:
            self._ledger.indexes.pop(one.number, None)  # it will be read record by record
            close_quietly(handle)
        self._ledger.complete(one.number)
        self._finished()

    def ask_turn(self, segment: int) -> None:
        """A segment keeps older ones from being removed: its writer is to go on in another."""
        one = self._following.get(segment)
        if one is not None:
            self._board.ask_turn(one.stamp.writer, segment)

    def close(self) -> None:
        for one in self._following.values():
            if one.handle is not None:
                close_quietly(one.handle)
