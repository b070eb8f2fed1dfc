"""a mailbox as one reader sees it

A snapshot of what is there at the beginning, held exclusively: a second reader
of the same mailbox is told that it is in use (RFC 1939 §4).

Promise  numbers, sizes and UIDs do not change while it is open; nothing is
         removed but by `remove`.
"""

from __future__ import annotations

import fcntl
import os

import msgspec

from tripost.delivery.mailbox.maildir import make_mailbox
from tripost.delivery.mailbox.uids import folder_name, uid_of

MOST_MESSAGES = 100_000  # one session shows no more; the rest comes when these are gone


class MailboxInUse(Exception):
    """Another session holds it."""


class Stored(msgspec.Struct, frozen=True):
    """One message: `size` in octets as sent over the wire."""

    path: str
    uid: str
    size: int


class MailboxSession:
    """Blocking; for a thread. Made by `open_mailbox`."""

    def __init__(self, lock: int, messages: list[Stored]) -> None:
        self._lock = lock
        self.messages = messages

    def read(self, message: Stored, offset: int, size: int) -> bytes:
        """Raises OSError, FileNotFoundError when another program removed it."""
        fd = os.open(message.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(fd, size, offset)
        finally:
            os.close(fd)

    def remove(self, messages: list[Stored]) -> int:
        """How many are gone now; raises OSError at the first that cannot be removed."""
        for one in messages:
            try:
                os.unlink(one.path)
            except FileNotFoundError:
                pass  # gone is gone
        return len(messages)

    def close(self) -> None:
        os.close(self._lock)


def open_mailbox(folder: str, account: str) -> MailboxSession:
    """Raises MailboxInUse, OSError."""
    box = os.path.join(folder, folder_name(account))
    make_mailbox(box)
    lock = os.open(os.path.join(box, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MailboxInUse(account) from None
        return MailboxSession(lock, _messages(box))
    except BaseException:
        os.close(lock)
        raise


def _messages(box: str) -> list[Stored]:
    found: list[tuple[str, Stored]] = []
    for part in ("new", "cur"):
        with os.scandir(os.path.join(box, part)) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.is_file(follow_symlinks=False):
                    found.append((entry.name, Stored(entry.path, uid_of(entry.name), entry.stat().st_size)))
    return [stored for _, stored in sorted(found)[:MOST_MESSAGES]]
