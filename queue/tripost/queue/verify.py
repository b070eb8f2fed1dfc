"""is every octet of the spool still what was written?

Reads all segments and body files and compares every checksum; nothing is
changed. With the lock held (`offline`) the answer is final; beside a running
gateway what it is writing or removing meanwhile is looked at once more before
it counts as damage.

Promise  damage is told with file and octets; what a crash may leave (a torn
         tail, a range that a later segment voids) is none.
Bounds   one segment is in memory at a time, bodies pass in pieces of PIECE;
         what is kept grows with the queued messages that have a body file.
Fails    SpoolLocked where `offline` is asked and a gateway runs; OSError.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable

import msgspec

from tripost.queue import records
from tripost.queue.entries import INDEX, MOVE, SETTLE, VOID, Acceptance, decode_move, decode_settle, message_of
from tripost.queue.errors import SpoolDamaged
from tripost.queue.files import Files
from tripost.queue.index import ALIGN_BITS, TRAILER, SegmentIndex, index_offset
from tripost.queue.recovery import Segment
from tripost.queue.rows import IN_SETTLEMENT, place_of
from tripost.queue.segment import numbers, segment_name

PIECE = 1 << 20
LOOKS = 5  # at what is being written meanwhile
PAUSE = 0.2  # seconds between them


class Report(msgspec.Struct):
    """What was looked at, and `damage`: one line each. `left_over`: body files that no message names, which the next
    start removes."""

    segments: int = 0
    records: int = 0
    messages: int = 0
    bodies: int = 0
    octets: int = 0
    left_over: int = 0
    damage: list[str] = msgspec.field(default_factory=list[str])


class _Queued(msgspec.Struct):
    """A message that has a body file and, as far as was read, is still queued."""

    message: Acceptance
    recipients: set[int]


class _Verify:
    def __init__(self, files: Files, folder: str, offline: bool, progress: Callable[[int, int], None]) -> None:
        self._files = files
        self._log = os.path.join(folder, "log")
        self._bodies = os.path.join(folder, "bodies")
        self._offline = offline
        self._progress = progress
        self._queued: dict[int, _Queued] = {}
        self._seen: dict[int, int] = {}  # segment → where its last record that was taken in ends
        self._sealed: set[int] = set()
        self.report = Report()

    def run(self) -> Report:
        self._segments(self._numbers(), tell=True)
        names = set(self._files.names(self._bodies))
        if not self._offline:  # what was settled since may have lost its body
            self._segments(self._fresh(), tell=False)
        named = {one.message.file for one in self._queued.values()}
        self.report.left_over = len(names - named) if self._offline else 0
        for place in list(self._queued):
            self._body(place)
        return self.report

    # --- segments ---

    def _numbers(self) -> list[int]:
        """Those of ingress processes first: what became of their messages stands in the manager's."""
        found: list[tuple[bool, int]] = []
        for number in numbers(self._files, self._log):
            segment = self._open(number)
            if segment is not None:
                segment.handle.close()
            found.append((segment is None or not segment.stamp.writer, number))
        return [number for _, number in sorted(found)]

    def _fresh(self) -> list[int]:
        """Those to which something may have been written since they were looked at."""
        return [number for number in self._numbers() if number not in self._sealed]

    def _segments(self, numbers: list[int], *, tell: bool) -> None:
        for done, number in enumerate(numbers):
            if tell:
                self._progress(done, len(numbers))
            damage = self._segment(number)
            for _ in range(LOOKS):
                if not damage or self._offline:
                    break
                time.sleep(PAUSE)
                damage = self._segment(number)
            self.report.damage += damage if tell else []

    def _voided(self, number: int) -> int | None:
        """Where later segments say that this one ends."""
        starts: list[int] = []
        for later in numbers(self._files, self._log):
            if later > number:
                found = self._open(later)
                if found is not None:
                    found.handle.close()
                    starts += [start for segment, start in found.voids if segment == number]
        return min(starts, default=None)

    def _open(self, number: int) -> Segment | None:
        try:
            return Segment(self._files, self._log, number)
        except FileNotFoundError:
            return None  # it owed nothing any more
        except SpoolDamaged:
            return None  # told where it is looked at itself

    def _segment(self, number: int) -> list[str]:
        name = segment_name(number)
        try:
            segment = Segment(self._files, self._log, number)
        except FileNotFoundError:
            return []
        except SpoolDamaged as wrong:
            return [str(wrong)]
        try:
            data = segment.handle.read_at(0, segment.size)
        finally:
            segment.handle.close()
        first = number not in self._seen
        self.report.segments += first
        self.report.octets += len(data) if first else 0
        if segment.key is None:
            self._seen[number] = 0
            return []  # cut off while it was being made
        return self._records(number, name, segment.key, data)

    def _records(self, number: int, name: str, key: bytes, data: bytes) -> list[str]:
        damage: list[str] = []
        offsets: set[int] = set()
        void: int | None = None
        indexed: int | None = None
        seen, sealed = self._seen.get(number, 0), index_offset(data[-TRAILER.size :])
        for one in records.scan(key, data):
            if isinstance(one, records.Damaged):
                if not one.torn or (sealed is not None and one.start < len(data) - TRAILER.size):
                    void = self._voided(number) if void is None else void
                    if void is None or one.start < void:
                        damage.append(f"{name}: octets {one.start} to {one.end} are damaged")
                continue
            if void is not None and one.offset >= void:
                break
            try:
                damage += self._record(number, name, one, offsets, fresh=one.offset >= seen)
            except (msgspec.DecodeError, ValueError) as wrong:
                damage.append(f"{name}: the record at {one.offset} cannot be understood: {wrong}")
            self._seen[number] = max(self._seen.get(number, 0), one.offset + 1)
            indexed = one.offset if one.kind == INDEX else indexed
        if indexed is not None and indexed == sealed:
            self._sealed.add(number)
        if indexed != sealed and not damage:
            damage.append(f"{name}: its last {TRAILER.size} octets are damaged")
        return damage

    def _record(self, number: int, name: str, one: records.Good, offsets: set[int], *, fresh: bool) -> list[str]:
        if one.kind == INDEX:
            index = SegmentIndex.decode(one.payload)
            strange = {at << ALIGN_BITS for at in index.at} - offsets
            return [f"{name}: its index names a message at {at}, where there is none" for at in sorted(strange)[:1]]
        message = message_of(one.kind, one.payload) if one.kind != VOID else None
        if message is not None:
            offsets.add(one.offset)
        if fresh:
            self.report.records += 1
            self.report.messages += message is not None
            self._follow(place_of(number, one.offset), one, message)
        return []

    # --- which bodies are owed ---

    def _follow(self, place: int, one: records.Good, message: Acceptance | None) -> None:
        if one.kind == SETTLE:
            settlement = decode_settle(one.payload)
            queued = self._queued.get(settlement.place)
            if queued is not None:
                queued.recipients -= set(settlement.done)
                if not queued.recipients:
                    del self._queued[settlement.place]
            place |= IN_SETTLEMENT
        recipients = {each.id for each in message.envelope.recipients} if message is not None else set[int]()
        if one.kind == MOVE:
            move = decode_move(one.payload)
            self._queued.pop(move.place, None)
            recipients = {later.recipient for later in move.left}
        if message is not None and message.file:
            self._queued[place] = _Queued(message, recipients)

    def _body(self, place: int) -> None:
        message = self._queued[place].message
        try:
            size, check = self._sum(message.file)
        except FileNotFoundError:
            if not self._offline:
                self._segments(self._fresh(), tell=False)
            if place in self._queued:
                self.report.damage.append(f"{message.file}: the content of message {message.envelope.id} is missing")
            return
        self.report.bodies += 1
        self.report.octets += size
        if size != message.envelope.size or check != message.check:
            self.report.damage.append(f"{message.file}: the content of message {message.envelope.id} is damaged")

    def _sum(self, name: str) -> tuple[int, int]:
        handle = self._files.open(os.path.join(self._bodies, name))
        try:
            at = check = 0
            while piece := handle.read_at(at, PIECE):
                at, check = at + len(piece), zlib.crc32(piece, check)
        finally:
            handle.close()
        return at, check


def _silent(done: int, of: int) -> None:
    """Nobody watches."""


def verify(
    files: Files, folder: str, *, offline: bool = False, progress: Callable[[int, int], None] = _silent
) -> Report:
    """Look at all of the queue's `folder`; `progress(done, of)` counts segments. Raises SpoolLocked, OSError."""
    if not offline:
        return _Verify(files, folder, offline, progress).run()
    lock = files.lock(os.path.join(folder, "lock"))
    try:
        return _Verify(files, folder, offline, progress).run()
    finally:
        lock.close()
