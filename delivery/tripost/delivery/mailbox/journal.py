"""a folder's journal: what its messages' flags are, and when they changed

The names of the files say the flags too, for other programs; the journal is what
has been promised. It holds what names cannot: keywords without a letter,
mod-sequences (RFC 7162), and which messages went when.

Format   frames as in `index`, in columns. `Marks` is synced before the client hears
         OK and before the file is renamed, `Settled` follows when all renames are
         done, unsynced. Marks behind the last `Settled` win over the names of the
         files after a crash; at all other times a name that has changed wins, for
         then another program did it.
Promise  a mod-sequence that was shown is never given again: a block of them is
         reserved (`ceiling`) before the first is used.
Lost     It is written anew: flags from the names, a new mailbox id, mod-sequences that
         begin with the time, above all older ones.
"""

from __future__ import annotations

import os
import secrets
import time
from array import array
from collections.abc import Sequence

import msgspec

from tripost.delivery.mailbox.frames import frame, frames, numbers
from tripost.delivery.mailbox.places import replace_file, write_all

NAME = "tripost-flags"
BLOCK = 1000  # mod-sequences that are reserved together
HISTORY = 1000  # rows out of date before the file is written anew, besides as many as there are messages
MOST_GONE = 10_000  # messages that went, of which it is known when


class Head(msgspec.Struct, frozen=True, array_like=True, tag="head"):
    validity: int
    ceiling: int
    id: str
    gone_since: int = 0  # for older mod-sequences it is not known what went
    version: int = 1


class Marks(msgspec.Struct, frozen=True, array_like=True, tag="marks"):
    """Columns: u32, u64, u64."""

    uids: bytes
    masks: bytes
    modseqs: bytes


class Gone(msgspec.Struct, frozen=True, array_like=True, tag="gone"):
    uids: bytes
    modseq: int


class Settled(msgspec.Struct, frozen=True, array_like=True, tag="settled"):
    pass


_decode = msgspec.msgpack.Decoder(Head | Marks | Gone | Settled).decode


class Journal:
    """Of one folder; for one thread at a time. `marks`: UID → (flags, mod-sequence)."""

    def __init__(self, folder: str, validity: int) -> None:
        """Raises OSError when there is one that cannot be read."""
        self._path = os.path.join(folder, NAME)
        self.validity = validity
        self.id = ""
        self._clear()
        self._dead = 0
        self._load()
        if not self.id:
            self._clear()
            self.id = secrets.token_hex(10)
            self.highest = self._ceiling = self._gone_since = time.time_ns() // 1_000_000
            self._whole = True

    def _clear(self) -> None:
        self.id = ""
        self.marks: dict[int, tuple[int, int]] = {}
        self.unsettled: set[int] = set()
        self.gone: list[tuple[int, list[int]]] = []  # mod-sequence, UIDs
        self.highest = 0
        self._ceiling = 0
        self._gone_since = 0
        self._whole = False

    def _load(self) -> None:
        try:
            with open(self._path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return
        good = 0
        for payload, end in frames(data):
            try:
                record = _decode(payload)
            except msgspec.DecodeError:
                break
            if isinstance(record, Head):
                if record.version != 1 or record.validity != self.validity:
                    return
                self.id, self._gone_since = record.id, max(self._gone_since, record.gone_since)
                self._ceiling = max(self._ceiling, record.ceiling)
            elif isinstance(record, Marks):
                self._take(record)
            elif isinstance(record, Gone):
                self._forget(numbers("I", record.uids), record.modseq)
            else:
                self.unsettled.clear()
            good = end
        self._whole = good != len(data)
        # what was shown after the last record is not known: go on above it
        if self._ceiling > self.highest:
            self.highest = self._ceiling

    def _take(self, record: Marks) -> None:
        uids = numbers("I", record.uids)
        self._dead += sum(uid in self.marks for uid in uids)
        rows = zip(numbers("Q", record.masks), numbers("Q", record.modseqs), strict=False)
        self.marks.update(zip(uids, rows, strict=False))
        self.unsettled.update(uids)
        self.highest = max(self.highest, max((self.marks[uid][1] for uid in uids), default=0))

    def _forget(self, uids: list[int], modseq: int) -> None:
        for uid in uids:
            self.marks.pop(uid, None)
            self.unsettled.discard(uid)
        self._dead += 2 * len(uids)
        self.gone.append((modseq, uids))
        self.highest = max(self.highest, modseq)
        while sum(len(some) for _, some in self.gone) > MOST_GONE and len(self.gone) > 1:
            self._gone_since = max(self._gone_since, self.gone.pop(0)[0])

    def moved(self, folder: str) -> None:
        self._path = os.path.join(folder, NAME)

    def next_modseq(self) -> int:
        """One that nobody has seen. Raises OSError."""
        if self.highest + 1 > self._ceiling:
            ceiling = self.highest + BLOCK
            self._write([frame(Head(self.validity, ceiling, self.id, self._gone_since))], True)
            self._ceiling = ceiling
        self.highest += 1
        return self.highest

    def mark(self, rows: Sequence[tuple[int, int, int]], *, settled: bool) -> None:
        """(UID, flags, mod-sequence). `settled`: the names say it already; else it is durable on return, and to be
        `settle`d. Raises OSError."""
        if not rows:
            return
        self._write([_marks(rows), frame(Settled())] if settled and not self.unsettled else [_marks(rows)], not settled)
        self._dead += sum(uid in self.marks for uid, _, _ in rows)
        self.marks.update((uid, (mask, modseq)) for uid, mask, modseq in rows)
        if not settled:
            self.unsettled.update(uid for uid, _, _ in rows)

    def settle(self) -> None:
        """The names of the files say all that is marked. Raises OSError."""
        if self.unsettled:
            self._write([frame(Settled())], False)
            self.unsettled.clear()

    def remove(self, uids: list[int], modseq: int) -> None:
        """They are gone. Raises OSError."""
        if uids:
            self._write([frame(Gone(array("I", uids).tobytes(), modseq))], False)
            self._forget(uids, modseq)

    def gone_after(self, modseq: int) -> list[int] | None:
        """The UIDs that went later than `modseq`; None where that is not known any more."""
        if modseq < self._gone_since:
            return None
        return sorted(uid for when, uids in self.gone if when > modseq for uid in uids)

    def _write(self, parts: list[bytes], sync: bool) -> None:
        if self._whole or self._dead > len(self.marks) + HISTORY:
            self._rewrite()
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            write_all(fd, b"".join(parts))
            if sync:
                os.fdatasync(fd)
        except OSError:
            self._whole = True  # what is at the file's end now is not known
            raise
        finally:
            os.close(fd)

    def _rewrite(self) -> None:
        parts = [frame(Head(self.validity, self._ceiling, self.id, self._gone_since))]
        parts += [frame(Gone(array("I", uids).tobytes(), modseq)) for modseq, uids in self.gone]
        settled = [(uid, *row) for uid, row in self.marks.items() if uid not in self.unsettled]
        pending = [(uid, *self.marks[uid]) for uid in self.unsettled if uid in self.marks]
        parts += [_marks(settled)] if settled else []
        parts += [frame(Settled())]
        parts += [_marks(pending)] if pending else []
        replace_file(self._path, b"".join(parts))
        self._whole, self._dead = False, 0


def _marks(rows: Sequence[tuple[int, int, int]]) -> bytes:
    uids, masks, modseqs = zip(*rows, strict=True)
    return frame(Marks(array("I", uids).tobytes(), array("Q", masks).tobytes(), array("Q", modseqs).tobytes()))
