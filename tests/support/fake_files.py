"""a disk in memory that forgets, at `crash`, what was not synced

Files and folder entries are two things, as on a real disk: a synced file whose
folder was not synced may be gone, an unsynced file may be there with any part
of what was written.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import trio

from tripost.queue.errors import SpoolLocked
from tripost.queue.files import Handle


class Crash(BaseException):
    """The machine stops here."""


class _Inode:
    def __init__(self) -> None:
        self.now = bytearray()
        self.durable = b""


class FakeHandle:
    def __init__(
        self,
        disk: FakeFiles,
        inode: _Inode,
        on_close: Callable[[], None] | None = None,
        *,
        may_write: bool = True,
    ) -> None:
        self._disk = disk
        self._may_write = may_write
        self._inode = inode
        self._on_close = on_close
        self.closed = False

    def write_at(self, offset: int, data: bytes) -> None:
        if not self._may_write:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        self._disk.boundary("write")
        now = self._inode.now
        if len(now) < offset:
            now.extend(b"\0" * (offset - len(now)))
        now[offset : offset + len(data)] = data
        self._disk.boundary("written")

    def read_at(self, offset: int, size: int) -> bytes:
        return bytes(self._inode.now[offset : offset + size])

    def read_now(self, offset: int, size: int) -> bytes | None:
        return self.read_at(offset, size)

    def size(self) -> int:
        return len(self._inode.now)

    def reserve(self, size: int) -> None:
        self._disk.boundary("reserve")
        if len(self._inode.now) < size:
            self._inode.now.extend(b"\0" * (size - len(self._inode.now)))

    def truncate(self, size: int) -> None:
        self._disk.boundary("truncate")
        now = self._inode.now
        del now[size:]
        now.extend(b"\0" * (size - len(now)))

    def sync(self) -> None:
        self._disk.boundary("sync")
        self._disk.make_durable(self._inode)
        self._disk.syncs += 1
        self._disk.boundary("synced")

    def close(self) -> None:
        assert not self.closed, "closed twice"
        self.closed = True
        if self._on_close is not None:
            self._on_close()


class FakeFiles:
    """`stop_at`: raise Crash at that I/O boundary; `fail`: {boundary name: errno} to fail with, once each;
    `fail_for_good`: likewise, each time; `fail_at`: {boundary number: errno}; `lies`: syncs that do
    nothing, or what they were asked ("late") one sync later; `names_of`: every boundary so far. `apart`: it has a
    syncer."""

    def __init__(self, *, apart: bool = True) -> None:
        self._folders: dict[str, dict[str, _Inode]] = {}
        self._durable: dict[str, dict[str, _Inode]] = {}
        self._locked: set[str] = set()
        self.boundaries = 0
        self.stop_at = -1
        self.fail: dict[str, int] = {}
        self.fail_for_good: dict[str, int] = {}
        self.fail_at: dict[int, int] = {}
        self.names_of: list[str] = []
        self.lies: frozenset[str] = frozenset()
        self.syncs = 0
        self.room = 1 << 40
        self.inodes = 1 << 20
        self.crashed = False
        self._apart = apart
        self._late: tuple[_Inode, bytes] | None = None

    def make_durable(self, inode: _Inode) -> None:
        """What a sync does, unless it lies."""
        if "late" in self.lies:  # each sync does the work of the one before it
            if self._late is not None:
                self._late[0].durable = self._late[1]
            self._late = inode, bytes(inode.now)
        elif "sync" not in self.lies:
            inode.durable = bytes(inode.now)

    def boundary(self, name: str) -> None:
        if self.crashed or self.boundaries == self.stop_at:
            self.crashed = True
            raise Crash
        self.boundaries += 1
        self.names_of.append(name)
        if self.boundaries - 1 in self.fail_at:
            raise OSError(self.fail_at[self.boundaries - 1], "at this boundary")
        if name in self.fail_for_good:
            raise OSError(self.fail_for_good[name], os.strerror(self.fail_for_good[name]))
        if name in self.fail:
            number = self.fail.pop(name)
            raise OSError(number, os.strerror(number))

    def crash(
        self, keep: Callable[[bytes, bytes], bytes] = lambda durable, now: durable, *, entries: bool = False
    ) -> None:
        """Power off and on. `keep(durable, written)` is what a file holds afterwards; `entries`: changes of folders
        that were not synced have come through."""
        if entries:
            self._durable = {name: dict(found) for name, found in self._folders.items()}
        inodes = {id(one): one for folder in self._durable.values() for one in folder.values()}
        for inode in inodes.values():
            inode.durable = keep(inode.durable, bytes(inode.now))
            inode.now = bytearray(inode.durable)
        self._folders = {name: dict(found) for name, found in self._durable.items()}
        self._locked.clear()
        self.crashed, self.stop_at, self.boundaries = False, -1, 0
        self.fail.clear()
        self.fail_at.clear()

    def content(self, path: str) -> bytearray:
        folder, name = os.path.split(path)
        return self._folders[folder][name].now

    # --- the port ---

    def syncer(self) -> FakeSyncer | None:
        return FakeSyncer() if self._apart else None

    def make_folder(self, path: str) -> None:
        self._folders.setdefault(path, {})
        self._durable.setdefault(path, {})

    def names(self, folder: str) -> list[str]:
        return sorted(self._in(folder))

    def _in(self, folder: str) -> dict[str, _Inode]:
        if folder not in self._folders:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), folder)
        return self._folders[folder]

    def create(self, path: str) -> FakeHandle:
        self.boundary("create")
        folder, name = os.path.split(path)
        if name in self._in(folder):
            raise FileExistsError(errno.EEXIST, "File exists", path)
        inode = self._folders[folder][name] = _Inode()
        return FakeHandle(self, inode)

    def open(self, path: str) -> FakeHandle:
        return FakeHandle(self, self._inode(path), may_write=False)

    def open_to_write(self, path: str) -> FakeHandle:
        return FakeHandle(self, self._inode(path))

    def _inode(self, path: str) -> _Inode:
        folder, name = os.path.split(path)
        if name not in self._in(folder):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return self._folders[folder][name]

    def unlink(self, path: str) -> None:
        self.boundary("unlink")
        folder, name = os.path.split(path)
        self._inode(path)
        del self._folders[folder][name]

    def sync_folder(self, path: str) -> None:
        self._in(path)
        self.boundary("sync_folder")
        if "sync_folder" not in self.lies:
            self._durable[path] = dict(self._in(path))

    def free(self, path: str) -> tuple[int, int]:
        return self.room, self.inodes

    def lock(self, path: str) -> FakeHandle:
        if path in self._locked:
            raise SpoolLocked(path)
        parent = os.path.dirname(path)
        if parent not in self._folders and not any(one.startswith(f"{parent}/") for one in self._folders):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        self._locked.add(path)
        return FakeHandle(self, _Inode(), lambda: self._locked.discard(path))


class FakeSyncer:
    """Others run before the sync, and after it."""

    async def sync(self, handle: Handle) -> bool:
        await trio.lowlevel.checkpoint()
        handle.sync()
        await trio.lowlevel.checkpoint()
        return True

    def close(self) -> None:
        """Nothing to be closed."""


async def run_here(work: Callable[[], object]) -> object:
    """Instead of a thread: real threads and a mock clock must not meet."""
    return work()
