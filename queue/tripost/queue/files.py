"""the only module that opens, syncs, renames

Everything the spool asks of a disk, as a port of plain blocking calls; the
log runs them in a worker thread, or has the kernel sync meanwhile (`syncer`).
A fake with the same methods forgets what was not synced, which is how the commit point is tested.

Promise  `Handle.sync` returns only when the octets are on stable storage;
         `sync_folder` likewise for a folder's entries.
Fails    OSError as the system gives it (ENOSPC, EIO…); `lock` raises
         SpoolLocked.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Protocol

from tripost.queue.apart import Apart, open_apart
from tripost.queue.errors import SpoolLocked


class Handle(Protocol):
    """One open file."""

    def write_at(self, offset: int, data: bytes) -> None:
        """Write all of `data`; a short write goes on until done."""
        ...

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` octets; fewer only at the end of the file."""
        ...

    def read_now(self, offset: int, size: int) -> bytes | None:
        """As `read_at`, None where the disk would have to be waited for."""
        ...

    def size(self) -> int: ...
    def reserve(self, size: int) -> None:
        """Take the room for `size` octets from the disk now, read as zeros until written; a hint where the file
        system cannot."""
        ...

    def truncate(self, size: int) -> None: ...
    def sync(self) -> None: ...
    def close(self) -> None: ...


class Syncer(Protocol):
    """Syncs without a thread, one file after the other."""

    async def sync(self, handle: Handle) -> bool:
        """As Handle.sync, while other tasks run; not to be cancelled. False: it could not, nothing was done."""
        ...

    def close(self) -> None: ...


class Files(Protocol):
    """A disk."""

    def syncer(self) -> Syncer | None:
        """None where the system cannot; needs a running event loop."""
        ...

    def make_folder(self, path: str) -> None:
        """Make it, its parents too; the entries are synced."""
        ...

    def names(self, folder: str) -> list[str]: ...
    def create(self, path: str) -> Handle:
        """A new file; FileExistsError where there is one."""
        ...

    def open(self, path: str) -> Handle:
        """An existing file, for reading."""
        ...

    def open_to_write(self, path: str) -> Handle:
        """An existing file, for reading and writing."""
        ...

    def unlink(self, path: str) -> None: ...
    def sync_folder(self, path: str) -> None: ...
    def free(self, path: str) -> tuple[int, int]:
        """Octets and inodes that a user may still take on the path's file system."""
        ...

    def lock(self, path: str) -> Handle:
        """Hold `path` exclusively until the handle is closed; SpoolLocked if another process does."""
        ...


class RealHandle:
    """A file descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def write_at(self, offset: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            done = os.pwrite(self._fd, view, offset)
            view, offset = view[done:], offset + done

    def read_at(self, offset: int, size: int) -> bytes:
        parts: list[bytes] = []
        while size > 0 and (part := os.pread(self._fd, size, offset)):
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return b"".join(parts)

    def read_now(self, offset: int, size: int) -> bytes | None:
        data = bytearray(size)
        try:
            done = os.preadv(self._fd, [data], offset, os.RWF_NOWAIT)
        except OSError:  # not in memory, or a file system that cannot tell
            return None
        if done < size and offset + done < self.size():
            return None
        return bytes(data[:done])

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def reserve(self, size: int) -> None:
        try:
            os.posix_fallocate(self._fd, 0, size)
        except OSError as wrong:
            if wrong.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


class RealSyncer:
    """The kernel's."""

    def __init__(self, apart: Apart) -> None:
        self._apart = apart

    async def sync(self, handle: Handle) -> bool:
        assert isinstance(handle, RealHandle)
        return await self._apart.sync(handle.fileno())

    def close(self) -> None:
        self._apart.close()


class RealFiles:
    """The machine's file system."""

    def syncer(self) -> RealSyncer | None:
        apart = open_apart()
        return RealSyncer(apart) if apart is not None else None

    def make_folder(self, path: str) -> None:
        if os.path.isdir(path):
            return
        parent = os.path.dirname(path)
        if parent:
            self.make_folder(parent)
        os.mkdir(path, 0o700)
        if parent:
            self.sync_folder(parent)

    def names(self, folder: str) -> list[str]:
        return sorted(os.listdir(folder))

    def create(self, path: str) -> RealHandle:
        return RealHandle(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def open(self, path: str) -> RealHandle:
        return RealHandle(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def open_to_write(self, path: str) -> RealHandle:
        return RealHandle(os.open(path, os.O_RDWR | os.O_CLOEXEC))

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def sync_folder(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def free(self, path: str) -> tuple[int, int]:
        found = os.statvfs(path)
        inodes = found.f_favail if found.f_files else 1 << 62  # some file systems count none
        return found.f_bavail * found.f_frsize, inodes

    def lock(self, path: str) -> RealHandle:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise SpoolLocked(f"{path} is locked") from None
        except BaseException:
            os.close(fd)
            raise
        return RealHandle(fd)
