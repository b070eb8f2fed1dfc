"""a sync that the kernel does meanwhile

Linux's asynchronous I/O (`io_submit`, IOCB_CMD_FDSYNC): a worker of the kernel does what
fdatasync would, and an eventfd tells when it is done. The same promise as fdatasync in a
thread, without the thread.

Promise  `sync` returns True when the file's octets are on stable storage, as fdatasync
         does; the event loop goes on meanwhile. One sync at a time, not to be cancelled.
Fails    `open_apart` gives None where the system has no such thing, or no room for it
         (fs.aio-max-nr), `sync` False where it takes none now: nothing was done, a
         thread does it then. `sync` raises OSError as fdatasync does.
Why      a thread that comes back from a sync wants Python's lock, which the loop has:
         each takes it from the other several times, 20 futex calls a commit.
         docs/performance.md has the figures. The calls keep the lock: none of them blocks.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Callable
from contextlib import suppress

import trio

# of io_setup, io_destroy, io_getevents, io_submit
_NUMBERS = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2), "riscv64": (0, 1, 4, 2)}
# <linux/aio_abi.h>: struct iocb is data, key, rw_flags, opcode, priority, fd, buffer, octets, offset, reserved, flags,
# eventfd; struct io_event is data, iocb, result, 0
_REQUEST = struct.Struct("<QIIHhIQQqQII")
_EVENT = struct.Struct("<QQqq")
_FDSYNC = 3  # IOCB_CMD_FDSYNC
_RESFD = 1  # IOCB_FLAG_RESFD: tell the eventfd


class Apart:
    """One such sync after the other."""

    def __init__(self, syscall: Callable[..., int], numbers: tuple[int, ...], context: ctypes.c_ulong) -> None:
        self._syscall = syscall
        _, self._destroy, self._getevents, self._submit = numbers
        self._context = context
        self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._request = ctypes.create_string_buffer(_REQUEST.size)
        self._requests = (ctypes.c_void_p * 1)(ctypes.addressof(self._request))
        self._event = ctypes.create_string_buffer(_EVENT.size)

    async def sync(self, fd: int) -> bool:
        """Raises OSError: as after an fdatasync that failed, nobody knows what is on the disk."""
        _REQUEST.pack_into(self._request, 0, 0, 0, 0, _FDSYNC, 0, fd, 0, 0, 0, 0, _RESFD, self._eventfd)
        if self._syscall(self._submit, self._context, 1, self._requests) != 1:
            return False
        with trio.CancelScope(shield=True):
            done = 0
            while done != 1:
                await trio.lowlevel.wait_readable(self._eventfd)
                with suppress(BlockingIOError):  # somebody else's wake-up
                    os.eventfd_read(self._eventfd)  # told once the result is there, so not looked for before
                done = self._syscall(self._getevents, self._context, 0, 1, self._event, None)
        result = _EVENT.unpack_from(self._event)[2]
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return True

    def close(self) -> None:
        self._syscall(self._destroy, self._context)
        os.close(self._eventfd)


def open_apart() -> Apart | None:
    """None where the system does not offer it."""
    numbers = _NUMBERS.get(platform.machine())
    if numbers is None:
        return None
    syscall = ctypes.PyDLL(None).syscall
    context = ctypes.c_ulong(0)
    if syscall(numbers[0], 1, ctypes.byref(context)) != 0:
        return None
    return Apart(syscall, numbers, context)
