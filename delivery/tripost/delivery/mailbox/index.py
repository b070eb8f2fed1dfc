"""a folder's index: which message has which UID, and its size on the wire

The Maildir is the truth; the index adds what it does not hold: UIDs that grow
and are never used twice (RFC 3501 §2.3.1.1), and sizes that would have to be
read from every file. Lost or damaged, it is built again with a new UIDVALIDITY;
POP3's UIDs do not depend on it (`uids.uidl`).

Format   frames of length, CRC-32 and a msgspec record: `Head`, then `Seen` and
         `Gone` in the order in which they happened. Columns instead of rows, so
         that 100,000 messages are decoded at once; new columns go to the end.
Promise  a frame that a crash cut off is as if never written: its UIDs had not
         been shown, because `save` syncs. Rewritten when it is mostly history.
Many     Whoever changes it holds the folder (`held`), first reads what others have
         written (`catch_up`), and saves before letting go: POP3 sessions and IMAP's
         folders agree on the UIDs.
"""

from __future__ import annotations

import fcntl
import os
from array import array
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager

import msgspec

from tripost.delivery.mailbox.frames import frame, frames, numbers
from tripost.delivery.mailbox.places import replace_file, write_all

NAME = "tripost-index"
_SLASH = b"/"  # cannot be in a file's name
MOST_UID = 0xFFFFFFFF
DAMAGE = 1_000_000  # UIDs that are left out where it is not known how many the lost end of the file had given
HISTORY = 1000  # rows that may be gone before the file is written anew, besides as many as there are messages


class Head(msgspec.Struct, frozen=True, array_like=True, tag="head"):
    validity: int
    next: int
    version: int = 1


class Seen(msgspec.Struct, frozen=True, array_like=True, tag="seen"):
    """Messages that came; `uids` an array of u32, `sizes` of u64, `names` joined by "/"."""

    uids: bytes
    sizes: bytes
    names: bytes


class Gone(msgspec.Struct, frozen=True, array_like=True, tag="gone"):
    uids: bytes


_decode = msgspec.msgpack.Decoder(Head | Seen | Gone).decode


@contextmanager
def held(folder: str) -> Generator[None]:
    """Nobody else, in this process or another, changes the folder's index meanwhile. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


class Index:
    """In UID order: `uids`, `names` (without flags) and `sizes`."""

    def __init__(self, folder: str, now: float) -> None:
        """Raises OSError when there is one that cannot be read."""
        self._path = os.path.join(folder, NAME)
        self._now = now
        self._begin()
        self._load()

    def _begin(self) -> None:
        self.uids: list[int] = []
        self.names: list[str] = []
        self.sizes: list[int] = []
        self.validity = 0
        self.next = 1
        self._dead = 0  # rows of the file that are gone
        self._frames: list[bytes] = []  # to be saved
        self._whole = False  # by writing the file anew
        self._file = (0, 0)  # device and inode of what was read
        self._end = 0  # and how far

    def moved(self, folder: str) -> None:
        """The folder has another name now."""
        self._path = os.path.join(folder, NAME)

    def catch_up(self) -> None:
        """Read what others have written. What was not saved is forgotten. Raises OSError."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            if self._file == (0, 0):
                return
            self._now = max(self._now, self.validity + 1.0)
        else:
            if self._file == (found.st_dev, found.st_ino) and not self._frames and not self._whole:
                if found.st_size == self._end:
                    return
                if found.st_size > self._end:
                    self._load()
                    return
        self._begin()
        self._load()

    def _load(self) -> None:
        """From `_end` on."""
        try:
            with open(self._path, "rb") as file:
                state = os.fstat(file.fileno())
                self._file = state.st_dev, state.st_ino
                file.seek(self._end)
                data = file.read()
        except FileNotFoundError:
            data = b""
        good = 0
        for payload, end in frames(data):
            try:
                record = _decode(payload)
            except msgspec.DecodeError:
                break
            if isinstance(record, Head):
                if record.version != 1:
                    break
                self.validity, self.next = record.validity, max(self.next, record.next)
            elif isinstance(record, Seen):
                self._take(record)
            else:
                self._drop(set(numbers("I", record.uids)))
            good = end
        self._end += good
        if good != len(data):
            self._whole = True
            self.next += DAMAGE
        if not self.validity:
            self.validity = max(1, min(int(self._now), MOST_UID))
            self._whole = True

    def _take(self, record: Seen) -> None:
        uids = numbers("I", record.uids)
        self.uids += uids
        self.sizes += numbers("Q", record.sizes)
        self.names += os.fsdecode(record.names).split("/")
        self.next = max(self.next, max(uids) + 1)

    def _drop(self, gone: set[int]) -> None:
        left = [at for at, uid in enumerate(self.uids) if uid not in gone]
        self._dead += len(self.uids) - len(left)
        self.uids = [self.uids[at] for at in left]
        self.names = [self.names[at] for at in left]
        self.sizes = [self.sizes[at] for at in left]

    def update(self, found: Mapping[str, str], look: Callable[[Iterable[str]], list[tuple[str, int]]]) -> None:
        """`found`: name without flags → path. `look` gives those of new names that are messages, in their order,
        with their sizes."""
        if len(found) != len(self.names) or not all(map(found.__contains__, self.names)):
            self.drop({uid for uid, name in zip(self.uids, self.names, strict=True) if name not in found})
            known = set(self.names)
            self.add(look([name for name in found if name not in known]))

    def drop(self, gone: set[int]) -> None:
        """These are not there any more."""
        there = [uid for uid in self.uids if uid in gone]
        if there:
            self._drop(gone)
            self._frames.append(frame(Gone(array("I", there).tobytes())))

    def add(self, fresh: Sequence[tuple[str, int]]) -> list[int]:
        """Names and sizes of messages that came, in this order; their UIDs."""
        if not fresh:
            return []
        if self.next + len(fresh) > MOST_UID:  # 4 billion messages later
            self.validity, self.next, self._whole = self.validity + 1, 1, True
            self.uids = list(range(1, len(self.names) + 1))
            self.next = len(self.names) + 1
        uids = range(self.next, self.next + len(fresh))
        self.uids += uids
        self.names += [name for name, _ in fresh]
        self.sizes += [size for _, size in fresh]
        self.next += len(fresh)
        self._frames.append(frame(_seen(uids, fresh)))
        return list(uids)

    def save(self) -> None:
        """Make what is new durable. Raises OSError: nothing of it may be shown as a UID then."""
        if self._whole or self._dead > len(self.uids) + HISTORY:
            rows = list(zip(self.names, self.sizes, strict=True))
            data = frame(Head(self.validity, self.next)) + (frame(_seen(self.uids, rows)) if rows else b"")
            replace_file(self._path, data)
            state = os.stat(self._path)
            self._file, self._end = (state.st_dev, state.st_ino), len(data)
            self._whole, self._dead = False, 0
        elif self._frames:
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            data = b"".join(self._frames)
            try:
                write_all(fd, data)
                os.fdatasync(fd)
            except OSError:
                self._whole = True  # what is at the file's end now is not known
                raise
            finally:
                os.close(fd)
            self._end += len(data)
        self._frames = []


def _seen(uids: Iterable[int], rows: Sequence[tuple[str, int]]) -> Seen:
    names = _SLASH.join(os.fsencode(name) for name, _ in rows)
    return Seen(array("I", uids).tobytes(), array("Q", [size for _, size in rows]).tobytes(), names)
