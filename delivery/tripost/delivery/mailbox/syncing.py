"""making many files durable at once

One syncfs commits everything that was written to a file system: 64 messages
cost it about as much as one fsync (docs/mailboxes.md has figures), while
each fsync is a journal commit and a flush of its own.

Promise  `all` returns when everything written before it is on stable storage;
         OSError when something of the file system, ours or not, could not be
         written since the last call.
Why      Not everywhere: before Linux 5.8 it told of no errors, and a file
         system in user space need not hear of it at all. There, and for a few
         files, each is synced by itself, several at the same time. Where others
         write much to the same disk it waits for them too: when it took longer
         than twice that many single syncs (`single` is told what one takes),
         it is left out for a while, and each time it was in vain for twice as long.
"""

from __future__ import annotations

import ctypes
import os
import platform
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

THREADS = 4  # a disk does several syncs in the time of one
FEW = 4  # files for which it does not pay
QUICK = 0.05  # seconds that are never too long
PAUSE, PAUSE_LONGEST = 1.0, 60.0  # seconds
GOOD = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs"})


class Syncer:
    """For the file system of `folder`; one caller at a time."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._fd = -1
        self._usable: bool | None = None
        self._not_before = 0.0
        self._pause = 0.0
        self._single = 1.0  # seconds, smoothed
        self._pool: ThreadPoolExecutor | None = None

    def pays(self, files: int) -> bool:
        """Is `all` the way for so many? To be asked before they are written. Raises OSError."""
        if self._usable is None:
            self._usable = _tells_errors() and file_system(self._folder) in GOOD
        if self._usable and self._fd < 0:
            # a descriptor is told of errors that come after it was opened
            self._fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._usable and files >= FEW and time.monotonic() >= self._not_before

    def all(self, files: int) -> None:
        """`files`: how many would have to be synced instead. Raises OSError."""
        began = time.monotonic()
        syncfs(self._fd)
        took = time.monotonic() - began
        if took <= max(QUICK, 2 * files * self._single):
            self._pause = 0.0
            return
        self._pause = min(PAUSE_LONGEST, max(PAUSE, 2 * self._pause))
        self._not_before = time.monotonic() + self._pause

    def single(self, took: float) -> None:
        """One file was synced in so many seconds."""
        self._single = took if self._single == 1.0 else 0.8 * self._single + 0.2 * took

    def each(self, work: Callable[[Any], None], what: Iterable[Any]) -> None:
        """One by one, several at the same time; `work` raises nothing."""
        rows = list(what)
        if len(rows) < 2:
            for row in rows:
                work(row)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="mailbox-sync")
        for _ in self._pool.map(work, rows):
            pass

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


def syncfs(fd: int) -> None:
    """Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _tells_errors() -> bool:
    numbers = platform.release().split(".")
    try:
        return platform.system() == "Linux" and (int(numbers[0]), int(numbers[1])) >= (5, 8)
    except (IndexError, ValueError):
        return False


def file_system(folder: str) -> str:
    """Its type, "" when that cannot be found."""
    try:
        device = os.stat(folder).st_dev
        wanted = f"{os.major(device)}:{os.minor(device)}"
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as rows:
            for row in rows:
                left, _, right = row.partition(" - ")
                if left.split()[2] == wanted:
                    return right.split()[0]
    except (OSError, IndexError):
        pass
    return ""
