"""what was found out about messages by reading them, kept beside them

One record for each: numbers (times, counts) and blobs (IMAP's ENVELOPE, the
header …), whose meaning is their maker's. Only a cache: nothing is synced, and
what is lost or damaged is read from the messages again.

Format   a head (magic, version of the maker, UIDVALIDITY), then records that are only
         appended: UID, CRC-32, lengths, numbers, blobs. The checksums are looked at when
         the file is opened; memory holds one offset per message.
Promise  a record is whole or not there. The file is never longer than twice what it has
         to say, and 1 MiB.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence

import msgspec

NAME = "tripost-cache"
_HEAD = struct.Struct("<8sII")
_MAGIC = b"tripostC"
_WINDOW = 1 << 18  # octets that are read ahead
_SLACK = 1 << 20
_SCAN = 1 << 20


class Layout(msgspec.Struct, frozen=True):
    """How many of each a record has, and the version of what they mean."""

    version: int
    numbers: int
    blobs: int

    def record(self) -> struct.Struct:
        return struct.Struct(f"<II{self.blobs}I{self.numbers}q")


class Entry(msgspec.Struct, frozen=True):
    numbers: tuple[int, ...]
    blobs: tuple[bytes, ...]


class Cache:
    """Of one folder. Blocking, for any thread; what fails is as if it was not known."""

    def __init__(self, folder: str, validity: int, layout: Layout) -> None:
        self._path = os.path.join(folder, NAME)
        self._head = _HEAD.pack(_MAGIC, layout.version, validity)
        self._layout = layout
        self._record = layout.record()
        self._lock = threading.Lock()
        self._fd = -1
        self._end = 0
        self._window = b""
        self._window_at = 0
        self._offsets: dict[int, int] = {}
        try:
            self._open()
        except OSError:
            self.close()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        size = os.fstat(self._fd).st_size
        if os.pread(self._fd, _HEAD.size, 0) != self._head:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, self._head, 0)
            self._end = _HEAD.size
            return
        self._end = size
        self._end = self._scan(size)
        if self._end != size:
            os.ftruncate(self._fd, self._end)

    def _scan(self, size: int) -> int:
        at, record, blobs = _HEAD.size, self._record, self._layout.blobs
        while at + record.size <= size:
            head = self._bytes(at, record.size)
            if len(head) < record.size:
                break
            row = record.unpack(head)
            length = sum(row[2 : 2 + blobs])
            if at + record.size + length > size:
                break
            check = zlib.crc32(self._bytes(at + record.size, length), zlib.crc32(head[8:]))
            if check != row[1]:
                break
            self._offsets[row[0]] = at
            at += record.size + length
        return at

    def __contains__(self, uid: int) -> bool:
        return uid in self._offsets

    def missing(self, uids: Iterable[int]) -> list[int]:
        return [uid for uid in uids if uid not in self._offsets]

    def get(self, uid: int) -> Entry | None:
        offset = self._offsets.get(uid)
        if offset is None:
            return None
        with self._lock:
            try:
                return self._read(offset)
            except (OSError, struct.error):
                return None

    def _read(self, offset: int) -> Entry:
        record, blobs = self._record, self._layout.blobs
        head = self._bytes(offset, record.size)
        row = record.unpack(head)
        lengths = row[2 : 2 + blobs]
        data = self._bytes(offset + record.size, sum(lengths))
        found: list[bytes] = []
        at = 0
        for length in lengths:
            found.append(data[at : at + length])
            at += length
        return Entry(row[2 + blobs :], tuple(found))

    def blob(self, uid: int, which: int) -> bytes | None:
        """One blob of a record; None as for `get`."""
        offset = self._offsets.get(uid)
        if offset is None:
            return None
        with self._lock:
            try:
                start = offset - self._window_at
                if not 0 <= start <= len(self._window) - self._record.size:
                    self._bytes(offset, self._record.size)
                    start = offset - self._window_at
                row = self._record.unpack_from(self._window, start)
                return self._bytes(offset + self._record.size + sum(row[2 : 2 + which]), row[2 + which])
            except (OSError, struct.error):
                return None

    def holding(self, needle: bytes, uids: Iterable[int]) -> set[int]:
        """Those of the messages whose record has these octets somewhere, and those that have no record."""
        found = set(self.missing(uids))
        with self._lock:
            order = sorted((offset, uid) for uid, offset in self._offsets.items())
            starts = [offset for offset, _ in order]
            at, overlap = _HEAD.size, len(needle) - 1
            try:
                while order and at < self._end:
                    data = os.pread(self._fd, _SCAN + overlap, at)
                    hit = data.find(needle)
                    while hit >= 0:
                        place = bisect_right(starts, at + hit) - 1
                        if place >= 0:
                            found.add(order[place][1])
                        after = starts[place + 1] - at if place + 1 < len(starts) else len(data)
                        hit = data.find(needle, max(after, hit + 1))
                    at += _SCAN
            except OSError:
                found.update(self._offsets)
        return found

    def _bytes(self, offset: int, size: int) -> bytes:
        start = offset - self._window_at
        if not 0 <= start <= len(self._window) - size:
            self._window = os.pread(self._fd, max(size, min(_WINDOW, self._end - offset)), offset)
            self._window_at, start = offset, 0
        return self._window[start : start + size]

    def put(self, uid: int, numbers: Sequence[int], blobs: Sequence[bytes]) -> None:
        lengths = [len(one) for one in blobs]
        body = self._record.pack(uid, 0, *lengths, *numbers)[8:] + b"".join(blobs)
        data = struct.pack("<II", uid, zlib.crc32(body)) + body
        with self._lock:
            try:
                if self._fd >= 0 and os.pwrite(self._fd, data, self._end) == len(data):
                    self._offsets[uid] = self._end
                    self._end += len(data)
            except OSError:
                pass  # a full disk: it will be found out again

    def keep(self, uids: Sequence[int]) -> None:
        """Only these are of use; the file is written anew when it is mostly of others. Raises nothing."""
        with self._lock:
            for uid in self._offsets.keys() - set(uids):
                del self._offsets[uid]
            try:
                self._shrink()
            except OSError:
                self.close()

    def _shrink(self) -> None:
        record, blobs = self._record, self._layout.blobs
        sizes: dict[int, int] = {}
        for uid, offset in self._offsets.items():
            row = record.unpack(self._bytes(offset, record.size))
            sizes[uid] = record.size + sum(row[2 : 2 + blobs])
        if self._fd < 0 or self._end <= 2 * sum(sizes.values()) + _SLACK:
            return
        new = f"{self._path}.new"
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        offsets, at = {}, os.write(fd, self._head)
        for uid, offset in sorted(self._offsets.items()):
            at_now = at
            at += os.pwrite(fd, self._bytes(offset, sizes[uid]), at)
            offsets[uid] = at_now
        os.rename(new, self._path)
        os.close(self._fd)
        self._fd, self._offsets, self._end, self._window = fd, offsets, at, b""

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._window = -1, b""
        self._offsets = {}
