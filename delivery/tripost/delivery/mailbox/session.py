"""a mailbox as one reader sees it

A snapshot of what is there at the beginning, held exclusively: a second reader
of the same mailbox, in whatever process, is told that it is in use (RFC 1939
§4). Other programs may work on the same Maildir: what they rename is found
again, what they remove is gone.

Promise  numbers, sizes and UIDs do not change while it is open; nothing is
         removed but by `remove`, and then all of it or nothing.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable

from tripost.delivery.mailbox.folders import age_of, find_messages, held_by_upkeep, lock_mailbox
from tripost.delivery.mailbox.index import Index, held
from tripost.delivery.mailbox.lineends import WireEnds, wire_ends
from tripost.delivery.mailbox.places import make_mailbox
from tripost.delivery.mailbox.policy import Policy
from tripost.delivery.mailbox.removal import remove, replay
from tripost.delivery.mailbox.retention import overdue, remove_all
from tripost.delivery.mailbox.uids import folder_name, uidl, wire_size

MOST_MESSAGES = 250_000  # one session shows no more; the rest comes when these are gone
READ = 65_536
NO_LIMITS = Policy()


class MailboxInUse(Exception):
    """Another session holds it; or upkeep does, `briefly`."""

    def __init__(self, account: str, *, briefly: bool) -> None:
        super().__init__(account)
        self.briefly = briefly


class Message:
    """One message being read; close it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._ends = WireEnds()
        self._ended = False

    def read(self, size: int = READ) -> bytes:
        """The next octets as they go over the wire, b"" at the end. Raises OSError."""
        while not self._ended:
            data = os.read(self._fd, size)
            if not data:
                self._ended = True
                return self._ends.finish()
            if data := self._ends.feed(data):
                return data
        return b""

    def whole(self, size: int) -> bytes:
        """All of it, which is `size` octets on the wire, in one go. Raises OSError."""
        data = os.read(self._fd, size + 1)
        if len(data) == size:
            return data  # each of its line ends is a CRLF, or it would have fewer octets than on the wire
        if len(data) < size and not os.read(self._fd, 1):
            return wire_ends(data)
        pieces = [self._ends.feed(data)]
        while data := self.read():
            pieces.append(data)
        return b"".join(pieces)

    def close(self) -> None:
        os.close(self._fd)


class MailboxSession:
    """Blocking; for a thread. Made by `open_mailbox`. Messages are counted from 0."""

    def __init__(self, lock: int, mail: str, box: str, policy: Policy, now: float) -> None:
        self._lock = lock
        self._mail = mail
        self._box = box
        replay(mail, box, self._find)
        late = overdue(self._find(), policy, now)
        self.expired = remove_all(late)
        with held(box):
            index = Index(box, now)
            found = self._find()
            if not all(map(found.__contains__, index.names)):
                found |= self._find()  # a file that is renamed while a folder is read may be missed once, not twice
            index.update(found, lambda names: look_at(names, found))
            try:
                index.save()
            except OSError:
                pass  # a full disk: POP3 shows nothing that needs it, the next session tries again
        self.names = index.names[:MOST_MESSAGES]
        self.sizes = index.sizes[:MOST_MESSAGES]
        self._paths = [found[name] for name in self.names]

    def __len__(self) -> int:
        return len(self.names)

    def uidl(self, number: int) -> str:
        return uidl(self.names[number])

    def open(self, number: int) -> Message:
        """Raises OSError, FileNotFoundError when another program removed it."""
        try:
            return Message(_open(self._paths[number]))
        except FileNotFoundError:
            self._look_again()
            return Message(_open(self._paths[number]))

    def read(self, number: int) -> bytes:
        """All of a message that is not large, as it goes over the wire. Raises as `open`."""
        message = self.open(number)
        try:
            return message.whole(self.sizes[number])
        finally:
            message.close()

    def remove(self, numbers: Iterable[int]) -> None:
        """All of them, also over a crash; raises OSError."""
        remove(self._mail, self._box, [(self.names[one], self._paths[one]) for one in numbers], self._find)

    def close(self) -> None:
        os.close(self._lock)

    def _find(self) -> dict[str, str]:
        return find_messages(self._box)

    def _look_again(self) -> None:
        """Another program gave some of them flags."""
        found = self._find()
        self._paths = [found.get(name, path) for name, path in zip(self.names, self._paths, strict=True)]


def open_mailbox(mail: str, account: str, now: float | None = None, policy: Policy = NO_LIMITS) -> MailboxSession:
    """`mail` is the folder that holds all. Raises MailboxInUse, OSError."""
    box = os.path.join(mail, folder_name(account))
    make_mailbox(box)
    lock = lock_mailbox(box)
    if lock is None:
        raise MailboxInUse(account, briefly=held_by_upkeep(box))
    try:
        return MailboxSession(lock, mail, box, policy, time.time() if now is None else now)
    except BaseException:
        os.close(lock)
        raise


def look_at(names: Iterable[str], found: dict[str, str]) -> list[tuple[str, int]]:
    """Those that are messages, oldest first, with their sizes on the wire."""
    rows: list[tuple[int, str, int]] = []
    for name in names:
        try:
            state = os.stat(found[name], follow_symlinks=False)
            if not stat.S_ISREG(state.st_mode):
                continue
            size = wire_size(name, state.st_size)
            rows.append((int(age_of(name, state.st_mtime)), name, size if size is not None else _measure(found[name])))
        except OSError:
            continue  # gone already, or not for us to read: the next session looks again
    return [(name, size) for _, name, size in sorted(rows)]


def _measure(path: str) -> int:
    message, size = Message(_open(path)), 0
    try:
        while data := message.read():
            size += len(data)
    finally:
        message.close()
    return size


def _open(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
