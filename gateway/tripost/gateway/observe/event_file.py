"""the newest events on disk, so that who watches goes on after a restart

A reader of events (see `reader`): its thread appends what comes to
state/events/current, and begins a new file when that has HALF octets; the one
before is kept. A line that no event has, `boot`, says where a start begins, and
whether the run before ended well.

Promise  mail never waits for it, and nothing of mail depends on it: no sync. What
         `Replay` gives is in the order of `seq`, each event once.
Bounds   two files of HALF octets, and one batch.
Loses    with kill -9 what was not written: `boot` tells that it may be so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import BinaryIO

import msgspec

from tripost.gateway.observe.reader import Batch, Reader
from tripost.gateway.settings import Config
from tripost.queue.events import AnyEvent, Event, Stopped

FOLDER = "events"  # in state
NAMES = ("before", "current")
HALF = 8 << 20
PIECE = 256 << 10  # octets of a file that are looked at in one go
TAIL = 64 << 10
GATHER = 0.2  # seconds between two writes, where many events come


class Boot(msgspec.Struct, frozen=True, gc=False, tag_field="event", tag="boot"):
    """A start, whose events have numbers over `first`; `after`: the last number before, 0 for none; `clean`: the run
    before wrote all it had."""

    first: int
    after: int
    clean: bool


_decode = msgspec.json.Decoder(AnyEvent | Boot).decode
_encode = msgspec.json.Encoder().encode


class EventFile(Reader):
    """`first`: what the numbers of this start are greater than. `oldest`: the first number on disk, 0 for none."""

    def __init__(self, config: Config, first: int) -> None:
        super().__init__("events")
        self.folder = os.path.join(config.state, FOLDER)
        self.off = all(one.service != "monitor" for one in config.listen)
        self.oldest = 0
        self._first = first
        self._file: BinaryIO | None = None

    def start(self) -> None:
        """Looks what the runs before have left first: who comes at once is told of it too."""
        with suppress(OSError):
            self.oldest = self._oldest()
        super().start()

    # --- the thread's side ---

    gather = GATHER

    def consume(self, batches: Sequence[Batch]) -> None:
        """Raises OSError."""
        file = self._ready()
        for one in batches:
            file.write(one.lines)
        file.flush()
        if file.tell() >= HALF:
            self._turn(file)

    def _ready(self) -> BinaryIO:
        if self._file is None:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            before, current = [os.path.join(self.folder, name) for name in NAMES]
            last = _last(current) or _last(before)
            fd = os.open(current, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._file = os.fdopen(fd, "ab")
            after = last.seq if isinstance(last, Event) else last.after if last is not None else 0
            clean = last is None or isinstance(last, Stopped)
            torn = b"\n" if self._file.tell() else b""  # an empty line is no event
            self._file.write(torn + _encode(Boot(first=self._first, after=after, clean=clean)) + b"\n")
            self._file.flush()
            self.oldest = self._oldest()
        return self._file

    def _turn(self, file: BinaryIO) -> None:
        """The file is full: it is the one before now."""
        before, current = [os.path.join(self.folder, name) for name in NAMES]
        file.close()
        self._file = None
        os.replace(current, before)
        self._file = os.fdopen(os.open(current, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab")
        self.oldest = self._oldest()

    def _oldest(self) -> int:
        found = next((one for one in _events(self.folder) if one[0].seq), None) if self.folder else None
        return found[0].seq if found is not None else 0

    def end(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()


def _last(path: str) -> Event | Boot | None:
    """The last whole line of a file; None where there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            lines = file.read().split(b"\n")
    except OSError:
        return None
    for line in reversed(lines):
        found = _read(line)
        if found is not None:
            return found
    return None


def _read(line: bytes) -> Event | Boot | None:
    """None for what is no line of ours: empty, torn, or of another version."""
    try:
        return _decode(line) if line else None
    except msgspec.DecodeError:
        return None


def _events(folder: str) -> Iterator[tuple[Event, bytes]]:
    for piece in Replay(folder, 0):
        for one, line in piece:
            if isinstance(one, Event):
                yield one, line


class Replay:
    """What is on disk after a number, in pieces, each with its line; to be iterated in a thread. Boots are told where
    they come between."""

    def __init__(self, folder: str, after: int) -> None:
        self._folder = folder
        self._after = after

    def __iter__(self) -> Iterator[list[tuple[Event | Boot, bytes]]]:
        """Raises OSError."""
        files: list[BinaryIO] = []
        try:
            for name in NAMES:
                with suppress(FileNotFoundError):
                    files.append(open(os.path.join(self._folder, name), "rb"))  # noqa: SIM115
            if len(files) == 2 and os.path.samestat(os.fstat(files[0].fileno()), os.fstat(files[1].fileno())):
                files.pop()  # it was turned between
            for file in files:
                yield from self._pieces(file)
        finally:
            for file in files:
                file.close()

    def _pieces(self, file: BinaryIO) -> Iterator[list[tuple[Event | Boot, bytes]]]:
        rest = b""
        while data := file.read(PIECE):
            lines = (rest + data).split(b"\n")
            rest = lines.pop()
            yield self._wanted(lines)
            if len(rest) > 64 * PIECE:
                rest = b""  # no event is so long

    def _wanted(self, lines: list[bytes]) -> list[tuple[Event | Boot, bytes]]:
        found: list[tuple[Event | Boot, bytes]] = []
        for line in lines:
            one = _read(line)
            if one is None:
                continue
            if isinstance(one, Boot):
                if one.first >= self._after:
                    found.append((one, line))
            elif one.seq > self._after:
                self._after = one.seq
                found.append((one, line))
        return found
