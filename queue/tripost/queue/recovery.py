"""start-up scan

Reads every segment in order and tells what is still queued. A torn tail is
what a crash leaves of something nobody was promised; a damaged record with
good ones behind it is reported and everything after it is still found.
"""

from __future__ import annotations

import os

import msgspec

from tripost.queue import records
from tripost.queue.errors import SpoolDamaged
from tripost.queue.files import Files
from tripost.queue.log import VOID, Location
from tripost.queue.message import Envelope

ACCEPT = 2  # payload: Acceptance
SETTLE = 3  # payload: Settlement


class Acceptance(msgspec.Struct, frozen=True, array_like=True):
    """A message; its content is `body`, or the file named `file` in the bodies folder."""

    envelope: Envelope
    body: bytes
    file: str = ""


class Later(msgspec.Struct, frozen=True, array_like=True):
    """A recipient that stays queued: its finished attempts, its next due time (wall seconds)."""

    recipient: int
    attempts: int
    due: float


class Settlement(msgspec.Struct, frozen=True, array_like=True):
    """What became of some recipients of message `id`; the DSN that this causes is part of it."""

    id: str
    done: tuple[int, ...]
    later: tuple[Later, ...]
    report: Acceptance | None = None


class Entry:
    """One queued message in memory: `recipients` maps those still queued to (attempts, due, next hop)."""

    __slots__ = ("expires", "file", "id", "in_settlement", "location", "recipients")

    def __init__(self, message: Acceptance, location: Location, *, in_settlement: bool) -> None:
        envelope = message.envelope
        self.id = envelope.id
        self.location = location
        self.file = message.file
        self.in_settlement = in_settlement
        self.expires = envelope.expires
        self.recipients: dict[int, tuple[int, float, str]] = {
            one.id: (0, envelope.accepted, one.next_hop) for one in envelope.recipients
        }


class Recovered:
    """`entries` by id; `live` counts messages per segment; `damage` is to be reported."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.segments: list[int] = []
        self.damage: list[str] = []


_accept = msgspec.msgpack.Decoder(Acceptance)
_settle = msgspec.msgpack.Decoder(Settlement)
_void = msgspec.msgpack.Decoder(tuple[int, int])


def read_acceptance(payload: bytes, in_settlement: bool) -> Acceptance:
    if not in_settlement:
        return _accept.decode(payload)
    report = _settle.decode(payload).report
    assert report is not None
    return report


def recover(files: Files, folder: str) -> Recovered:
    """Read all segments of `folder`. Raises SpoolDamaged for a version we do not know, OSError."""
    found = Recovered()
    found.segments = sorted(int(name[:-4]) for name in files.names(folder) if name.endswith(".seg"))
    held: list[tuple[int, list[records.Good]]] = []
    voids: dict[int, int] = {}
    for number in found.segments:
        held.append((number, _scan(files, folder, number, found.damage, voids)))
    for number, good in held:
        for record in good:
            if record.offset < voids.get(number, record.offset + 1):
                _apply(found, number, record)
    return found


def _scan(files: Files, folder: str, number: int, damage: list[str], voids: dict[int, int]) -> list[records.Good]:
    name = f"{number:010d}.seg"
    handle = files.open(os.path.join(folder, name))
    try:
        data = handle.read_at(0, handle.size())
    finally:
        handle.close()
    key = records.segment_key(data)
    if key is None:
        if data.strip(b"\0") and not records.MAGIC.startswith(data[: len(records.MAGIC)]):
            raise SpoolDamaged(f"{name} is no segment of a version known here")
        return []  # cut off while it was being made: nothing was promised in it
    good: list[records.Good] = []
    for one in records.scan(key, data):
        if isinstance(one, records.Damaged):
            if not one.torn:
                damage.append(f"{name}: octets {one.start} to {one.end} are damaged and were left out")
        elif one.kind == VOID:
            segment, start = _void.decode(one.payload)
            voids[segment] = min(start, voids.get(segment, start))
        else:
            good.append(one)
    return good


def _apply(found: Recovered, number: int, record: records.Good) -> None:
    if record.kind == ACCEPT:
        message = _accept.decode(record.payload)
        _enter(found, message, Location(number, record.offset), in_settlement=False)
    elif record.kind == SETTLE:
        settlement = _settle.decode(record.payload)
        settle_entry(found.entries, settlement)
        if settlement.report is not None:
            _enter(found, settlement.report, Location(number, record.offset), in_settlement=True)
    else:
        found.damage.append(f"segment {number}: a record of unknown type {record.kind} at {record.offset}")


def _enter(found: Recovered, message: Acceptance, location: Location, *, in_settlement: bool) -> None:
    entry = Entry(message, location, in_settlement=in_settlement)
    found.entries.setdefault(entry.id, entry)


def settle_entry(entries: dict[str, Entry], settlement: Settlement) -> Entry | None:
    """Apply a settlement; returns the entry when its last recipient is done (it is gone then)."""
    entry = entries.get(settlement.id)
    if entry is None:
        return None
    for recipient in settlement.done:
        entry.recipients.pop(recipient, None)
    for later in settlement.later:
        if later.recipient in entry.recipients:
            hop = entry.recipients[later.recipient][2]
            entry.recipients[later.recipient] = (later.attempts, later.due, hop)
    if entry.recipients:
        return None
    return entries.pop(settlement.id)
