"""the segment being written

The blocking half of the log: every method runs in a worker thread, one at a
time but for `seal`, which works on a segment that is not written any more.

States   a segment is open (the active one), retired (full, its index not
         written yet), sealed, or abandoned: a sync failed, nothing more is
         written to it, and what it holds behind its last good record is void.
Promise  a new segment is durable, voids and folder entry included, before
         anything is written behind its first records.
Why      a kernel that failed a sync may call the same pages clean at the next
         one; only another file can be trusted after that.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tripost.queue import records
from tripost.queue.entries import INDEX, SNAPSHOT, VOID, encode
from tripost.queue.files import Files, Handle
from tripost.queue.index import trailer
from tripost.queue.rows import OFFSET_BITS


class Retired(NamedTuple):
    """A full segment: its file is still open."""

    number: int
    handle: Handle
    key: bytes
    end: int


class Written(NamedTuple):
    """Records that are not synced yet: where they begin, and where the last one ends."""

    offsets: list[int]
    end: int


def segment_name(number: int) -> str:
    return f"{number:010d}.seg"


def numbers(files: Files, folder: str) -> list[int]:
    """Of the segments that there are, in order. Raises OSError."""
    return sorted(int(name[:-4]) for name in files.names(folder) if name.endswith(".seg"))


def highest(files: Files, folder: str) -> int:
    """Raises OSError."""
    return max(numbers(files, folder), default=0)


def close_quietly(handle: Handle) -> None:
    """The descriptor is gone either way."""
    try:
        handle.close()
    except OSError:
        pass


class Writer:
    """`number`: of the active segment, or the last one; `lost`: the last one was abandoned and there is no other
    yet; `begun`: news for the log, (segment, offset of its notes or 0); `snapshot`: the notes' payload; `retired`: to
    be sealed, by the manager; `abandoned`: never to be; `commits`: syncs that made records durable; `octets`: written
    since the start."""

    def __init__(
        self,
        files: Files,
        folder: str,
        *,
        segment_size: int,
        next_number: int,
        snapshot: Callable[[], bytes] = lambda: b"",
        stamp: records.Stamp = records.MANAGER,
    ) -> None:
        self._files = files
        self._folder = folder
        self._segment_size = segment_size
        self._stamp = stamp
        self.number = next_number - 1
        self._next = next_number
        self._handle: Handle | None = None
        self._key = b""
        self._end = 0
        self._voids: list[tuple[int, int]] = []
        self._suspect = False  # a sync of the active segment has failed
        self.lost = False
        self.retired: list[Retired] = []
        self.abandoned: list[int] = []
        self.begun: list[tuple[int, int]] = []
        self._snapshot = snapshot
        self.commits = 0
        self.octets = 0

    def ready(self) -> bool:
        """There is a segment, and it is not full."""
        return self._handle is not None and self._end <= self._segment_size

    def usable(self) -> bool:
        return self._handle is not None

    @property
    def end(self) -> int:
        """Where the active segment's durable records end; 0 without one."""
        return self._end if self._handle is not None else 0

    def _create(self) -> tuple[int, Handle, str]:
        """A file with a number that none has had. Several writers take from one row of numbers, and the highest file
        is never removed (tripost.queue.dropping): what is higher than all that there are is new. Raises OSError."""
        number = max(self._next, highest(self._files, self._folder) + 1)
        while True:
            self._next = number + 1  # a number is used once, even if this fails half-way
            path = os.path.join(self._folder, segment_name(number))
            try:
                handle = self._files.create(path)
            except FileExistsError:  # another writer was quicker
                number += 1
                continue
            most = highest(self._files, self._folder)
            if most <= number:
                return number, handle, path
            self._drop(handle, path)  # others went past: ours may have been theirs once
            number = most + 1

    def begin(self) -> None:
        """A new segment. Raises OSError: the old one, if there is any, goes on."""
        key = secrets.token_bytes(records.KEY_SIZE)
        number, handle, path = self._create()
        try:
            noted, end = self._fill(handle, key)
            self._files.sync_folder(self._folder)
        except OSError:
            self._drop(handle, path)
            raise
        self.retire()
        self.number, self._handle, self._key, self._end = number, handle, key, end
        self.begun.append((number, noted))
        self._voids = []
        self._suspect = self.lost = False

    def _fill(self, handle: Handle, key: bytes) -> tuple[int, int]:
        """The header, the voids and the notes; zeros follow. Where the notes and the zeros begin."""
        end = records.SEGMENT_HEADER
        data = records.segment_header(key, self._stamp)
        for void in self._voids:
            one = records.encode(key, end, VOID, encode(void))
            data, end = data + one, end + len(one)
        noted, notes = 0, self._snapshot()
        if notes:
            one = records.encode(key, end, SNAPSHOT, notes)
            noted, data, end = end, data + one, end + len(one)
        try:
            handle.reserve(self._segment_size)
        except OSError:  # no room for all of it: a settlement may still fit
            handle.truncate(0)
        handle.write_at(0, data)
        handle.sync()
        return noted, end

    def _drop(self, handle: Handle, path: str) -> None:
        try:
            handle.close()
            self._files.unlink(path)
        except OSError:
            pass  # an empty or unpromised file, which the next start removes

    def write(self, items: Sequence[tuple[int, bytes]]) -> list[int]:
        """Make records (type, payload) durable; their places. Raises OSError."""
        written, handle = self.put(items)
        try:
            handle.sync()  # THE COMMIT POINT: before it nothing is owed, after it everything is
        except OSError:
            self.failed()
            raise
        return self.durable(written)

    def put(self, items: Sequence[tuple[int, bytes]]) -> tuple[Written, Handle]:
        """The first half of `write`: the handle is to be synced next, then `durable` or `failed` called."""
        handle = self._handle
        assert handle is not None
        data, offsets, end = records.encode_many(self._key, self._end, items)
        handle.write_at(self._end, data)
        return Written(offsets, end), handle

    def durable(self, written: Written) -> list[int]:
        """What was put is synced; the records' places."""
        base = self.number << OFFSET_BITS
        self.octets += written.end - self._end
        self._end = written.end
        self.commits += 1
        return [base | offset for offset in written.offsets]

    def failed(self) -> None:
        """A sync was: what is on the disk is not known."""
        self._suspect = True

    def undo(self) -> bool:
        """After a failed write, when no sync has failed: True when what it left is durably gone."""
        handle = self._handle
        assert handle is not None
        if self._suspect:
            return False
        try:
            handle.truncate(self._end)
            handle.sync()
        except OSError:
            return False
        return True

    def abandon(self) -> None:
        """After a failed sync."""
        handle, self._handle = self._handle, None
        self.lost = True
        if handle is None:
            return
        self.abandoned.append(self.number)
        self._voids.append((self.number, self._end))
        close_quietly(handle)  # the void says what the file is worth

    def retire(self) -> None:
        """Write no more to the active segment. An ingress process's is the manager's from now on."""
        handle, self._handle = self._handle, None
        if handle is None:
            return
        if self._stamp == records.MANAGER:
            self.retired.append(Retired(self.number, handle, self._key, self._end))
            return
        try:
            handle.truncate(self._end)  # a manager that reads to the end need not look through what was reserved
        except OSError:
            pass
        close_quietly(handle)

    def seal(self, one: Retired, payload: bytes) -> None:
        """Put the index at the segment's end and give back what was reserved. Raises OSError; closes the file."""
        try:
            record = records.encode(one.key, one.end, INDEX, payload)
            data = record + trailer(one.end)
            one.handle.truncate(one.end + len(data))
            one.handle.write_at(one.end, data)
            one.handle.sync()
        finally:
            one.handle.close()
