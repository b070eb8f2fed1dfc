"""who has which message already

A list of deliveries, (message, recipient) each, that outlives the file that
was delivered: a reader may remove the file before the queue's settlement is
durable, and then the message must not be delivered again.

One folder for all mailboxes, so that a batch of deliveries into many of them
costs one sync: `N.log` is appended to; when it is full it becomes `N-TIME.run`,
sorted, of which a look-up reads a few pages. TIME is that of its newest entry.

Promise  `add` returns when the entries are on stable storage. An entry is kept
         for KEEP after it was last added, and longer while its message is
         queued (`forget` is told which are).
Why      An entry's time is never before its message was accepted, so a look-up
         leaves out every run that ended before that: for new mail, all of them.
         Memory holds the entries of one log, whatever the traffic.
Fails    OSError from `add`: the entries may be there or not. Nothing is written
         behind them; the next `add` begins another log.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import re
import struct
import zlib
from collections.abc import Collection, Iterable, Iterator

from tripost.delivery.mailbox.places import replace_file, sync_folder, write_all

KEEP = 86_400.0  # seconds
LOG_LIMIT = 65_536  # entries of one log
_BODY = struct.Struct("<32sd")  # key, wall seconds
_SUM = struct.Struct("<I4x")
SIZE = _BODY.size + _SUM.size
_KEY = 32
_RUN = re.compile(r"([0-9]+)-([0-9]+)\.run")
_LOG = re.compile(r"([0-9]+)\.log")


class Run:
    """A sorted list that does not change any more."""

    def __init__(self, path: str, newest: float) -> None:
        self.path = path
        self.newest = newest
        self._map: mmap.mmap | None = None

    def has(self, key: bytes) -> bool:
        rows = self._rows()
        low, high = 0, len(rows) // SIZE
        while low < high:
            middle = (low + high) // 2
            if rows[middle * SIZE : middle * SIZE + _KEY] < key:
                low = middle + 1
            else:
                high = middle
        return any(found[0] == key for found in _entries(rows[low * SIZE : (low + 1) * SIZE]))

    def messages(self) -> set[str]:
        """The ids of all in it."""
        return {message_of(key) for key, _ in _entries(self._rows())}

    def _rows(self) -> mmap.mmap | bytes:
        if self._map is None:
            with open(self.path, "rb") as file:
                if not os.fstat(file.fileno()).st_size:
                    return b""
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._map

    def close(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None


class DeliveredList:
    """Blocking, one caller at a time; opened at the first use."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._open = False
        self._fd = -1
        self._number = 0
        self._recent: dict[bytes, float] = {}  # what the logs hold
        self._logs: list[str] = []
        self.runs: list[Run] = []

    def has(self, key: str, accepted: float) -> bool:
        """Was this delivered? `accepted` is when its message was taken in."""
        self._load()
        raw = _raw(key)
        return raw in self._recent or any(run.newest >= accepted and run.has(raw) for run in reversed(self.runs))

    def add(self, entries: Iterable[tuple[str, float]]) -> None:
        """Key, and the later of now and when its message was accepted. Raises OSError."""
        self._load()
        rows = [(_raw(key), at) for key, at in entries]
        if self._recent and len(self._recent) + len(rows) > LOG_LIMIT:
            self._seal()
        if self._fd < 0:
            self._begin()
        try:
            write_all(self._fd, b"".join(_entry(key, at) for key, at in rows))
            os.fdatasync(self._fd)
        except OSError:
            self._abandon()
            raise
        self._recent.update(rows)

    def forget(self, runs: Collection[Run]) -> None:
        """These are not needed any more."""
        for run in runs:
            run.close()
            os.unlink(run.path)
            self.runs.remove(run)

    def old(self, now: float) -> list[Run]:
        """The runs that may go, if none of their messages is queued."""
        self._load()
        return [run for run in self.runs if run.newest + KEEP < now]

    def close(self) -> None:
        self._abandon()
        for run in self.runs:
            run.close()
        self.runs, self._logs, self._recent, self._open = [], [], {}, False

    # --- files ---

    def _load(self) -> None:
        if self._open:
            return
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        for name in sorted(os.listdir(self._folder)):
            path = os.path.join(self._folder, name)
            run, log = _RUN.fullmatch(name), _LOG.fullmatch(name)
            if run is not None:
                self.runs.append(Run(path, float(run[2])))
            elif log is not None:
                self._logs.append(path)
                with open(path, "rb") as file:
                    self._recent.update(_entries(file.read()))
            if (found := run or log) is not None:
                self._number = max(self._number, int(found[1]))
        self.runs.sort(key=lambda one: one.newest)
        self._open = True

    def _begin(self) -> None:
        path = os.path.join(self._folder, f"{self._number + 1:012}.log")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._number += 1
        self._logs.append(path)
        try:
            sync_folder(self._folder)
        except OSError:
            os.close(fd)
            raise
        self._fd = fd

    def _abandon(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _seal(self) -> None:
        """All that the logs hold becomes a run; its name is durable before they go."""
        newest = math.ceil(max(self._recent.values()))
        path = os.path.join(self._folder, f"{self._number:012}-{newest}.run")
        replace_file(path, b"".join(_entry(key, self._recent[key]) for key in sorted(self._recent)))
        self.runs.append(Run(path, newest))
        self.runs.sort(key=lambda one: one.newest)
        self._abandon()
        for log in self._logs:
            os.unlink(log)
        self._logs, self._recent = [], {}


def _raw(key: str) -> bytes:
    raw = key.encode()
    return raw.ljust(_KEY, b"\0") if len(raw) <= _KEY else hashlib.sha256(raw).digest()


def _entry(key: bytes, at: float) -> bytes:
    body = _BODY.pack(key, at)
    return body + _SUM.pack(zlib.crc32(body))


def _entries(rows: bytes | mmap.mmap) -> Iterator[tuple[bytes, float]]:
    """What is whole in there; what a crash cut off, or damaged, is left out."""
    for at in range(0, len(rows) - SIZE + 1, SIZE):
        body = rows[at : at + _BODY.size]
        if _SUM.unpack(rows[at + _BODY.size : at + SIZE])[0] == zlib.crc32(body):
            key, when = _BODY.unpack(body)
            yield key, when


def key_of(message: str, recipient: int) -> str:
    return f"{message}_{recipient}"


def message_of(key: bytes) -> str:
    """The message's id in a run's key."""
    return key.rstrip(b"\0").decode("ascii", "replace").rpartition("_")[0]
