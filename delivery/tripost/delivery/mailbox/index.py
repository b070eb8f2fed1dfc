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
"""

from __future__ import annotations

import os
import struct
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import msgspec

from tripost.delivery.mailbox.places import replace_file, write_all

NAME = "tripost-index"
_FRAME = struct.Struct("<II")
_SLASH = b"/"  # cannot be in a file's name
MOST_UID = 0xFFFFFFFF
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


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Head | Seen | Gone).decode


class Index:
    """In UID order: `uids`, `names` (without flags) and `sizes`."""

    def __init__(self, folder: str, now: float) -> None:
        """Raises OSError when there is one that cannot be read."""
        self._path = os.path.join(folder, NAME)
        self.uids: list[int] = []
        self.names: list[str] = []
        self.sizes: list[int] = []
        self.validity = 0
        self.next = 1
        self._dead = 0  # rows of the file that are gone
        self._frames: list[bytes] = []  # to be saved
        self._whole = False  # by writing the file anew
        self._load()
        if not self.validity:
            self.validity = max(1, min(int(now), MOST_UID))
            self._whole = True

    def _load(self) -> None:
        try:
            with open(self._path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return
        good = 0
        for payload, end in _frames(data):
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
                self._drop(set(_numbers("I", record.uids)))
            good = end
        self._whole = good != len(data)

    def _take(self, record: Seen) -> None:
        uids = _numbers("I", record.uids)
        self.uids += uids
        self.sizes += _numbers("Q", record.sizes)
        self.names += os.fsdecode(record.names).split("/")
        self.next = max(self.next, max(uids) + 1)

    def _drop(self, gone: set[int]) -> None:
        left = [at for at, uid in enumerate(self.uids) if uid not in gone]
        self._dead += len(self.uids) - len(left)
        self.uids = [self.uids[at] for at in left]
        self.names = [self.names[at] for at in left]
        self.sizes = [self.sizes[at] for at in left]

    def update(self, found: dict[str, str], look: Callable[[Iterable[str]], list[tuple[str, int]]]) -> None:
        """`found`: name without flags → path. `look` gives those of new names that are messages, in their order,
        with their sizes."""
        if len(found) != len(self.names) or not all(map(found.__contains__, self.names)):
            gone = [uid for uid, name in zip(self.uids, self.names, strict=True) if name not in found]
            if gone:
                self._drop(set(gone))
                self._frames.append(_frame(Gone(array("I", gone).tobytes())))
            known = set(self.names)
            self._add(look([name for name in found if name not in known]))

    def _add(self, fresh: list[tuple[str, int]]) -> None:
        if not fresh:
            return
        if self.next + len(fresh) > MOST_UID:  # 4 billion messages later
            self.validity, self.next, self._whole = self.validity + 1, 1, True
            self.uids = list(range(1, len(self.names) + 1))
            self.next = len(self.names) + 1
        uids = range(self.next, self.next + len(fresh))
        self.uids += uids
        self.names += [name for name, _ in fresh]
        self.sizes += [size for _, size in fresh]
        self.next += len(fresh)
        self._frames.append(_frame(_seen(uids, fresh)))

    def save(self) -> None:
        """Make what is new durable. Raises OSError: nothing of it may be shown as a UID then."""
        if self._whole or self._dead > len(self.uids) + HISTORY:
            rows = list(zip(self.names, self.sizes, strict=True))
            data = _frame(Head(self.validity, self.next)) + (_frame(_seen(self.uids, rows)) if rows else b"")
            replace_file(self._path, data)
            self._whole, self._dead = False, 0
        elif self._frames:
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                write_all(fd, b"".join(self._frames))
                os.fdatasync(fd)
            except OSError:
                self._whole = True  # what is at the file's end now is not known
                raise
            finally:
                os.close(fd)
        self._frames = []


def _seen(uids: Iterable[int], rows: list[tuple[str, int]]) -> Seen:
    names = _SLASH.join(os.fsencode(name) for name, _ in rows)
    return Seen(array("I", uids).tobytes(), array("Q", [size for _, size in rows]).tobytes(), names)


def _frame(record: Head | Seen | Gone) -> bytes:
    payload = _encode(record)
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def _frames(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Each whole payload, and where it ends."""
    at = 0
    while at + _FRAME.size <= len(data):
        size, check = _FRAME.unpack_from(data, at)
        payload = data[at + _FRAME.size : at + _FRAME.size + size]
        if len(payload) != size or zlib.crc32(payload) != check:
            return
        at += _FRAME.size + size
        yield payload, at


def _numbers(kind: Literal["I", "Q"], data: bytes) -> list[int]:
    found: array[int] = array(kind)
    found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found.tolist()
