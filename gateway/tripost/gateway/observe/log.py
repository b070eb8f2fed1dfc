"""the event log: one line, or one journal entry, per event

JSON lines for machines, one readable line for people on a terminal, fields for
systemd's journal when standard error leads there. The form follows the output
(`auto`) unless the configuration says which.

Promise  see `reader`: nobody waits for it. `reopen` (SIGHUP) begins a new file of
         the same name without losing a line. A line that a full disk cut is
         ended before the next one begins.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from tripost.gateway.observe.journal import datagram
from tripost.gateway.observe.reader import MOST, Batch, Reader
from tripost.queue.events import Event

JOURNAL = "/run/systemd/journal/socket"
STDERR = 2
SEND_BUFFER = 1 << 20
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

Form = Literal["auto", "text", "json", "off"]


class EventLog(Reader):
    """`path` "" is standard error. `open` raises OSError; everything later is counted."""

    def __init__(self, path: str = "", form: Form = "auto", *, journal: str = JOURNAL, most: int = MOST) -> None:
        super().__init__("log", most)
        self._path = path
        self._form = form
        self._journal = journal
        self._socket: socket.socket | None = None
        self._fd = STDERR
        self._text = self._torn = False
        self.off = form == "off"

    def open(self) -> None:
        if self.off:
            return
        if self._path:
            self._fd = _append_to(self._path)
        elif self._form == "auto" and leads_to_journal(STDERR, os.environ.get("JOURNAL_STREAM", "")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            self._socket.connect(self._journal)
        self._text = self._form == "text" or (self._form == "auto" and os.isatty(self._fd))

    def reopen(self) -> bool:
        """Begin the file anew, behind what was offered before; False where there is none."""
        if not self._path:
            return False
        self._queue.put(Batch(b"", 0, 0))
        return True

    # --- the thread's side ---

    def consume(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            self._write_batch(batch)

    def _write_batch(self, batch: Batch) -> None:
        if not batch.count:
            self._begin_anew()
        elif self._socket is not None:
            for event in batch.events:
                fields = msgspec.to_builtins(event)
                _send(self._socket, datagram(fields, readable(event, clock=False)))
        elif self._text:
            self._write("".join([f"{readable(event)}\n" for event in batch.events]).encode("utf-8", "replace"))
        else:
            self._write(batch.lines)

    def _write(self, data: bytes) -> None:
        view, done = memoryview(b"\n" + data if self._torn else data), 0
        try:
            while done < len(view):
                done += os.write(self._fd, view[done:])
        finally:
            if done:
                self._torn = done < len(view)

    def _begin_anew(self) -> None:
        try:
            fd = _append_to(self._path)
        except OSError as wrong:  # the old one is better than none
            self.trouble = f"{self._path} cannot be opened again: {wrong.strerror}"
            return
        self._fd, old = fd, self._fd
        self._torn = False
        os.close(old)

    def end(self) -> None:
        if self._path and not self.off:
            os.close(self._fd)
        if self._socket is not None:
            self._socket.close()


def _append_to(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def _send(journal: socket.socket, data: bytes) -> None:
    """One entry; what is too large for a datagram goes in a sealed file without a name. Raises OSError."""
    try:
        journal.send(data)
    except OSError as wrong:
        if wrong.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
            raise
        fd = os.memfd_create("tripost-event", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with open(fd, "wb", closefd=False) as file:
                file.write(data)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
            socket.send_fds(journal, [b""], [fd])
        finally:
            os.close(fd)


def leads_to_journal(fd: int, told: str) -> bool:
    """Is it the stream that systemd connected to the journal? `told`: $JOURNAL_STREAM, "device:inode"."""
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return told == f"{found.st_dev}:{found.st_ino}" and stat.S_ISSOCK(found.st_mode)


def readable(event: Event, *, clock: bool = True) -> str:
    """`12:04:31 accepted id=… sender=…`; control characters are escaped."""
    fields: dict[str, Any] = msgspec.to_builtins(event)
    name, at = fields.pop("event"), fields.pop("time")
    fields.pop("seq", None)
    words = [name, *[f"{key}={_show(value)}" for key, value in fields.items()]]
    if clock:
        words.insert(0, time.strftime("%H:%M:%S", time.localtime(at)))
    return " ".join(words)


def _show(value: Any) -> str:
    if isinstance(value, list | dict):
        return msgspec.json.encode(value).decode()
    if isinstance(value, float):
        return f"{value:.1f}"
    text = str(value)
    return msgspec.json.encode(text).decode() if not text.isprintable() or " " in text or not text else text
