"""docs/durability.md is enough to read a spool: this reader uses nothing of ours"""

from __future__ import annotations

import os
import struct
import zlib
from typing import Any

import msgspec

from support.fake_files import FakeFiles
from support.life import EAGER, Accept, Act, Life, Sleep, Work, queued
from support.queues import queue_on

ID, RECIPIENTS = 0, 2  # fields of an envelope


def records(data: bytes) -> dict[int, tuple[int, Any]]:
    """Offset → (type, payload) of one segment."""
    assert data[:8] == b"TPOST\x00\x004"
    key, found, at = data[8:24], dict[int, tuple[int, Any]](), 32
    while at + 12 <= len(data):
        marker, kind, version, length, check = struct.unpack_from("<HBBII", data, at)
        payload = data[at + 12 : at + 12 + length]
        wanted = zlib.crc32(key + struct.pack("<Q", at) + data[at : at + 8] + payload)
        if (marker, version, check) != (0xD17E, 1, wanted):
            break
        found[at] = kind, msgspec.msgpack.decode(payload)
        at += -(-(12 + length) // 8) * 8
    return found


class Reader:
    """`queued`: place → (id, recipient ids, content, those that are held)."""

    def __init__(self, files: FakeFiles) -> None:
        self.queued: dict[int, tuple[str, set[int], bytes, set[int]]] = {}
        self._files = files
        segments = {
            int(name[:10]): records(bytes(files.content(f"spool/log/{name}"))) for name in files.names("spool/log")
        }
        voids = [tuple(value) for found in segments.values() for kind, value in found.values() if kind == 1]
        for segment, found in sorted(segments.items()):
            for offset, (kind, value) in found.items():
                if not any(segment == one and offset >= start for one, start in voids):
                    self._record((segment << 40) + offset, kind, value)

    def _record(self, place: int, kind: int, value: Any) -> None:
        if kind == 2:
            self._enter(place, value)
        elif kind == 3:
            old, done, _, report = value
            if old in self.queued:
                id, left, content, held = self.queued.pop(old)
                if left - set(done):
                    self.queued[old] = id, left - set(done), content, held
            if report is not None:
                self._enter(place + 1, report)
        elif kind == 4:
            old, message, left = value
            self.queued.pop(old, None)
            self._enter(place, message)
            id, _, content, _ = self.queued[place]
            self.queued[place] = id, {one[0] for one in left}, content, {one[0] for one in left if one[4]}
        elif kind == 6 and value[2] in ("hold", "release"):
            for _, _, places, parts in value[3]:
                for whole in struct.unpack(f"<{len(places) // 8}Q", places):
                    self._hold(whole, None, held=value[2] == "hold")
                for part, ids in parts.items():
                    self._hold(part, set(ids), held=value[2] == "hold")

    def _hold(self, place: int, ids: set[int] | None, *, held: bool) -> None:
        if place in self.queued:
            id, left, content, before = self.queued[place]
            ids = left if ids is None else ids
            self.queued[place] = id, left, content, before | ids if held else before - ids

    def _enter(self, place: int, message: Any) -> None:
        envelope, content, file, check = message
        if file and os.path.basename(file) in self._files.names("spool/bodies"):
            content = bytes(self._files.content(f"spool/bodies/{file}"))
            assert zlib.crc32(content) == check
        self.queued[place] = envelope[ID], {one[0] for one in envelope[RECIPIENTS]}, content, set()


async def test_another_program_can_read_the_spool(autojump_clock: object) -> None:
    files, life = FakeFiles(), Life()
    steps = [
        Accept(("mx:a", "mx:a", "mx:b"), 700),
        Accept(("mx:a",), 30, waiters=4),
        Work("mx:a", ("ok", "later"), 3),
        Act("hold", 0),
        Act("hold", 1, part=True),
        Accept(("mx:a", "mx:b"), 30),
        Act("hold", 3),
        Act("release", 3, part=True),
        *[Accept(("mx:b",), 500, waiters=3) for _ in range(4)],
        Work("mx:b", ("no", "ok"), 9),
        Sleep(30),  # compaction
        Work("mx:a", ("no",), 1),
    ]
    await life.live(files, steps)
    found = Reader(files)
    async with queue_on(files, EAGER) as queue:
        wanted = await queued(queue)
    assert len(wanted.queued) > 4
    told = {id: (left, content, held & left) for id, left, content, held in found.queued.values()}
    assert any(held for _, _, held in told.values())
    assert told == {
        id: (set(states), wanted.contents[id], {n for n, one in states.items() if one.held})
        for id, states in wanted.queued.items()
    }
