"""from the folder back to the queue

Reads the segments of ingress processes and then the manager's, each in order: of
a sealed one its index, of any other every record. A torn tail is what a crash
leaves of something nobody was promised; a damaged record with good ones behind it
is reported, and everything after it is still found.

Of a segment that an ingress process writes, what the manager before us had taken in
is read; the rest is new, and for tripost.queue.tail. Where nobody writes any more, a
segment without an index is synced first: what was promised is durable, and what was
not is so from then on.
"""

from __future__ import annotations

import os

import msgspec

from tripost.queue import records
from tripost.queue.board import Board
from tripost.queue.entries import INDEX, VOID, Acceptance, decode_void, message_of
from tripost.queue.errors import SpoolDamaged, SpoolError
from tripost.queue.files import Files, Handle
from tripost.queue.index import TRAILER, SegmentIndex, index_offset
from tripost.queue.ledger import Ledger
from tripost.queue.replay import Replay
from tripost.queue.rows import offset_of, segment_of
from tripost.queue.segment import Retired, numbers, segment_name

HEAD = 4096  # octets in which a segment's voids stand


class Following(msgspec.Struct, eq=False):
    """A segment of an ingress process that may grow; `at`: where reading goes on; `void`: from where on nothing
    counts."""

    number: int
    stamp: records.Stamp
    key: bytes
    at: int
    handle: Handle | None = None
    void: int | None = None
    damaged: bool = False


class Recovered:
    """`files`: body files that messages name; `whole`: full segments that lack only their index; `following`: those
    that others write; `bodies`: files that were there before anything was read; `writing`: runs of ingress processes
    that lived after that, or have written what is not taken in yet."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.segments: list[int] = []
        self.files: set[str] = set()
        self.damage: list[str] = []
        self.whole: list[Retired] = []
        self.following: list[Following] = []
        self.bodies: list[str] = []
        self.writing: set[int] = set()


class Segment:
    """One file, open while its records may be asked for."""

    def __init__(self, files: Files, folder: str, number: int) -> None:
        self.number = number
        self.name = segment_name(number)
        self.handle: Handle = files.open(os.path.join(folder, self.name))
        self.size = self.handle.size()
        head = self.handle.read_at(0, HEAD)
        self.key = records.segment_key(head)
        self.stamp = records.segment_stamp(head) if self.key is not None else records.MANAGER
        if self.key is None and not records.cut_off(head):
            self.handle.close()
            raise SpoolDamaged(f"{self.name} is no segment of a version known here")
        self.voids = _voids(self.key, head) if self.key is not None else []

    def index(self) -> SegmentIndex | None:
        """What the sealed segment says of itself, None where it has to be read whole."""
        offset = index_offset(self.handle.read_at(max(0, self.size - TRAILER.size), TRAILER.size))
        if self.key is None or offset is None or offset >= self.size:
            return None
        good = records.decode_at(self.key, self.handle.read_at(offset, self.size - offset), 0, offset)
        if good is None or good.kind != INDEX:
            return None
        try:
            return SegmentIndex.decode(good.payload)
        except (msgspec.DecodeError, ValueError):
            return None

    def record(self, offset: int) -> tuple[int, bytes]:
        """One record: type, payload. Raises SpoolError."""
        assert self.key is not None
        data = self.handle.read_at(offset, HEAD)
        length = records.length_at(data)
        if length > len(data):
            data = self.handle.read_at(offset, length)
        good = records.decode_at(self.key, data, 0, offset)
        if good is None:
            raise SpoolError(f"{self.name}: the record at {offset} is damaged")
        return good.kind, good.payload


def _voids(key: bytes, head: bytes) -> list[tuple[int, int]]:
    """What the first records of a segment say of earlier ones: (number, first voided offset)."""
    found: list[tuple[int, int]] = []
    at = records.SEGMENT_HEADER
    while (good := records.decode_at(key, head, at)) is not None and good.kind == VOID:
        found.append(decode_void(good.payload))
        at += records.octets(good.payload)
    return found


class _Recovery:
    def __init__(self, files: Files, folder: str, board: Board | None) -> None:
        self._files = files
        self._folder = os.path.join(folder, "log")
        self._board = board
        self._found = Recovered()
        self._replay = Replay(self._read)
        self._open: dict[int, Segment] = {}
        # in this order: a file of whoever is not alive now was named before we read on, or never will be
        self._found.bodies = files.names(os.path.join(folder, "bodies"))
        self._found.writing = board.runs() if board is not None else set()

    def run(self, now: float) -> Recovered:
        found = self._found
        found.segments = numbers(self._files, self._folder)
        try:
            voids: dict[int, int] = {}
            stamps: dict[int, records.Stamp] = {}
            for number in list(found.segments):
                one = self._segment(number)
                if one.key is None and found.writing:
                    found.segments.remove(number)  # somebody may be making it
                stamps[number] = one.stamp
                for segment, start in one.voids:
                    voids[segment] = min(start, voids.get(segment, start))
            for number in sorted(found.segments, key=lambda one: (not stamps[one].writer, one)):
                self._one(self._segment(number), voids.get(number))
            found.ledger = ledger = self._replay.finish(now)
            ledger.live = {number: ledger.live.get(number, 0) for number in found.segments}
            ledger.others = {number: stamps[number].writer for number in found.segments if stamps[number].writer}
            ledger.growing = {one.number for one in found.following}
            found.writing |= {one.stamp.run for one in found.following}
        finally:
            for one in self._open.values():
                one.handle.close()
        found.files = self._replay.files
        return found

    def _segment(self, number: int) -> Segment:
        found = self._open.get(number)
        if found is None:
            while len(self._open) >= 64:
                self._open.pop(next(iter(self._open))).handle.close()
            found = self._open[number] = Segment(self._files, self._folder, number)
        return found

    def _read(self, place: int) -> Acceptance:
        segment = self._segment(segment_of(place))
        kind, payload = segment.record(offset_of(place))
        message = message_of(kind, payload)
        if message is None:
            raise SpoolError(f"{segment.name}: no message at {offset_of(place)}")
        return message

    def _one(self, segment: Segment, void: int | None) -> None:
        if segment.key is None:
            return  # cut off while it was being made: nothing was promised in it
        index = segment.index() if void is None else None
        if index is not None:
            self._replay.load(segment.number, index, segment.record)
            return
        grows = self._grows(segment)
        if segment.stamp.writer and grows is None:
            handle = self._files.open_to_write(os.path.join(self._folder, segment.name))
            try:
                handle.sync()
            finally:
                handle.close()
        end, damaged = self._scan(segment, segment.key, void, segment.size if grows is None else grows)
        if grows is not None:
            one = Following(segment.number, segment.stamp, segment.key, grows, void=void, damaged=damaged)
            self._found.following.append(one)
        elif not damaged:
            handle = self._files.open_to_write(os.path.join(self._folder, segment.name))
            self._found.whole.append(Retired(segment.number, handle, segment.key, end))
        else:
            self._replay.ledger.indexes.pop(segment.number, None)

    def _grows(self, segment: Segment) -> int | None:
        """Up to where the manager before us has taken in the segment of an ingress process: what comes behind it is
        new. None for a segment that was taken in whole, or is older than the board."""
        board, stamp = self._board, segment.stamp
        if board is None or stamp.writer not in board.writers:
            return None
        taken = board.taken(stamp.writer)
        if segment_of(taken) == segment.number:
            return offset_of(taken)
        fresh = segment_of(taken) < segment.number if taken else board.run(stamp.writer) == stamp.run
        return records.SEGMENT_HEADER if fresh else None

    def _scan(self, segment: Segment, key: bytes, void: int | None, size: int) -> tuple[int, bool]:
        """Where the records end, and whether there was anything else."""
        number, damaged, end = segment.number, void is not None, records.SEGMENT_HEADER
        self._replay.begin(number)
        for one in records.scan(key, segment.handle.read_at(0, size)):
            if isinstance(one, records.Damaged):
                if not one.torn:
                    damaged = True
                    self._damage(f"{segment.name}: octets {one.start} to {one.end} are damaged and were left out")
                continue
            if void is not None and one.offset >= void:
                break
            end = one.offset + records.octets(one.payload)
            if one.kind not in (VOID, INDEX) and not self._replay.record(number, one.kind, one.offset, one.payload):
                damaged = True
                self._damage(f"{segment.name}: a record of unknown type {one.kind} at {one.offset}")
            if one.kind == INDEX:
                end = one.offset
        return end, damaged

    def _damage(self, what: str) -> None:
        self._found.damage.append(what)


def recover(files: Files, folder: str, now: float, board: Board | None = None) -> Recovered:
    """Read all segments of the spool in `folder`; `board`: of the ingress processes that may be writing. Raises
    SpoolDamaged for a version we do not know, SpoolError, OSError."""
    return _Recovery(files, folder, board).run(now)
